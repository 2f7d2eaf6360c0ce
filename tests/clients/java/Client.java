import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

/** The Java client, 3.x and 4.x: commands in, answers out, one JSON object a line (../README.md). */
public final class Client {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Duration WAIT = Duration.ofSeconds(20);
    private static final List<String> CAN =
            List.of(
                    "none", "gzip", "snappy", "lz4", "zstd", "bytes", "read", "time", "group", "topics", "groups",
                    "idempotent", "transactions", "abort", "offsets");

    private final String brokers;

    private Client(String brokers) {
        this.brokers = brokers;
    }

    public static void main(String[] arguments) throws Exception {
        Client client = new Client(arguments[0]);
        say(Map.of("client", "Java client " + AppInfoParser.getVersion(), "can", CAN));
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            Map<String, Object> answer = new HashMap<>();
            try {
                answer.put("ok", client.answer(JSON.readTree(line)));
            } catch (Exception error) {
                answer.put("error", String.valueOf(error.getCause() == null ? error : error.getCause()));
            }
            say(answer);
        }
    }

    private Object answer(JsonNode command) throws Exception {
        switch (command.get("do").asText()) {
            case "produce": return produce(command);
            case "read": return read(command);
            case "join": return join(command);
            case "transact": return transact(command);
            case "create": return create(command);
            case "describe": return describe(command);
            case "alter": return alter(command);
            case "delete": return delete(command);
            case "topics": return topics();
            case "groups": return groups();
            case "group": return group(command);
            case "offsets": return offsets(command);
            default: throw new IllegalArgumentException("unknown command " + command.get("do"));
        }
    }

    private Object produce(JsonNode command) throws Exception {
        Map<String, Object> settings = settings();
        settings.put("compression.type", command.path("compression").asText("none"));
        settings.put("enable.idempotence", command.path("idempotent").asBoolean());
        settings.put("acks", "all");
        settings.put("linger.ms", 20);
        try (KafkaProducer<byte[], byte[]> producer = producer(settings)) {
            return send(producer, command);
        }
    }

    private static int send(KafkaProducer<byte[], byte[]> producer, JsonNode command) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (JsonNode record : command.get("records")) {
            Integer partition = record.has("partition") ? record.get("partition").asInt() : null;
            Long time = record.has("time") ? record.get("time").asLong() : null;
            byte[] key = decode(record.get("key"));
            byte[] value = decode(record.get("value"));
            sent.add(producer.send(new ProducerRecord<>(command.get("topic").asText(), partition, time, key, value)));
        }
        producer.flush();
        for (Future<RecordMetadata> each : sent) {
            each.get(WAIT.toSeconds(), TimeUnit.SECONDS);
        }
        return sent.size();
    }

    private Object read(JsonNode command) throws Exception {
        String topic = command.get("topic").asText();
        int count = command.get("count").asInt();
        Map<String, Object> settings = settings();
        settings.put("isolation.level", command.path("committed").asBoolean() ? "read_committed" : "read_uncommitted");
        settings.put("max.poll.records", count);
        List<Object> records = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(settings)) {
            List<TopicPartition> partitions = new ArrayList<>();
            consumer.partitionsFor(topic).forEach(each -> partitions.add(new TopicPartition(topic, each.partition())));
            consumer.assign(partitions);
            if (command.hasNonNull("time")) {
                Map<TopicPartition, Long> times = new HashMap<>();
                partitions.forEach(each -> times.put(each, command.get("time").asLong()));
                consumer.offsetsForTimes(times).forEach((partition, found) -> consumer.seek(partition, found.offset()));
            } else {
                consumer.seekToBeginning(partitions);
            }
            while (records.size() < count) {
                ConsumerRecords<byte[], byte[]> polled = consumer.poll(WAIT);
                if (polled.isEmpty()) {
                    throw new TimeoutException("only " + records.size() + " of " + count + " records came");
                }
                for (ConsumerRecord<byte[], byte[]> each : polled) {
                    if (records.size() < count) {
                        records.add(record(each));
                    }
                }
            }
        }
        return records;
    }

    private Object join(JsonNode command) throws Exception {
        Map<String, Object> settings = settings();
        settings.put("group.id", command.get("group").asText());
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", false);
        settings.put("session.timeout.ms", 6000);
        settings.put("heartbeat.interval.ms", 500);
        settings.put("max.poll.records", 1);
        int count = command.path("count").asInt(Integer.MAX_VALUE);
        int seen = 0;
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(settings)) {
            consumer.subscribe(List.of(command.get("topic").asText()), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> assigned) {
                    say(Map.of("assigned", assigned.stream().map(TopicPartition::partition).toArray()));
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
                    say(Map.of("assigned", new int[0]));
                }
            });
            while (seen < count) {
                for (ConsumerRecord<byte[], byte[]> each : consumer.poll(Duration.ofMillis(200))) {
                    say(Map.of("record", record(each)));
                    consumer.commitSync(Map.of(
                            new TopicPartition(each.topic(), each.partition()), new OffsetAndMetadata(each.offset() + 1)));
                    seen++;
                }
            }
        }
        return seen;
    }

    private Object transact(JsonNode command) throws Exception {
        Map<String, Object> settings = settings();
        settings.put("transactional.id", command.get("id").asText());
        try (KafkaProducer<byte[], byte[]> producer = producer(settings)) {
            producer.initTransactions();
            producer.beginTransaction();
            send(producer, command);
            if (command.hasNonNull("group")) {
                Map<TopicPartition, OffsetAndMetadata> positions = new HashMap<>();
                command.get("offsets").fields().forEachRemaining(each -> positions.put(
                        new TopicPartition(command.get("topic").asText(), Integer.parseInt(each.getKey())),
                        new OffsetAndMetadata(each.getValue().asLong())));
                producer.sendOffsetsToTransaction(positions, new ConsumerGroupMetadata(command.get("group").asText()));
            }
            if (command.get("end").asText().equals("commit")) {
                producer.commitTransaction();
            } else {
                producer.abortTransaction();
            }
        }
        return null;
    }

    private Object create(JsonNode command) throws Exception {
        Map<String, String> config = JSON.convertValue(command.get("config"), Map.class);
        NewTopic topic = new NewTopic(command.get("topic").asText(), command.get("partitions").asInt(), (short) 1).configs(config);
        try (Admin admin = Admin.create(settings())) {
            return wait(admin.createTopics(List.of(topic)).all());
        }
    }

    private Object describe(JsonNode command) throws Exception {
        String topic = command.get("topic").asText();
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        try (Admin admin = Admin.create(settings())) {
            int partitions = wait(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic).partitions().size();
            Config found = wait(admin.describeConfigs(List.of(resource)).all()).get(resource);
            Map<String, String> config = new HashMap<>();
            found.entries().forEach(each -> config.put(each.name(), each.value()));
            return Map.of("partitions", partitions, "config", config);
        }
    }

    private Object alter(JsonNode command) throws Exception {
        String topic = command.get("topic").asText();
        List<AlterConfigOp> changes = new ArrayList<>();
        command.get("config").fields().forEachRemaining(each -> changes.add(
                new AlterConfigOp(new ConfigEntry(each.getKey(), each.getValue().asText()), AlterConfigOp.OpType.SET)));
        try (Admin admin = Admin.create(settings())) {
            wait(admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.TOPIC, topic), changes)).all());
            return wait(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(command.get("partitions").asInt()))).all());
        }
    }

    private Object delete(JsonNode command) throws Exception {
        try (Admin admin = Admin.create(settings())) {
            return wait(admin.deleteTopics(List.of(command.get("topic").asText())).all());
        }
    }

    private Object topics() throws Exception {
        try (Admin admin = Admin.create(settings())) {
            return wait(admin.listTopics().names());
        }
    }

    private Object groups() throws Exception {
        try (Admin admin = Admin.create(settings())) {
            return wait(admin.listConsumerGroups().all()).stream().map(each -> each.groupId()).toArray();
        }
    }

    private Object group(JsonNode command) throws Exception {
        String group = command.get("group").asText();
        try (Admin admin = Admin.create(settings())) {
            var found = wait(admin.describeConsumerGroups(List.of(group)).all()).get(group);
            return Map.of("state", found.state().toString().toLowerCase(Locale.ROOT), "members", found.members().size());
        }
    }

    private Object offsets(JsonNode command) throws Exception {
        Map<String, Long> offsets = new HashMap<>();
        try (Admin admin = Admin.create(settings())) {
            wait(admin.listConsumerGroupOffsets(command.get("group").asText()).partitionsToOffsetAndMetadata())
                    .forEach((partition, position) -> {
                        if (partition.topic().equals(command.get("topic").asText())) {
                            offsets.put(String.valueOf(partition.partition()), position.offset());
                        }
                    });
        }
        return offsets;
    }

    private Map<String, Object> settings() throws Exception {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", brokers);
        String text = System.getenv("KAFKA_SECURITY");
        if (text != null) {
            // How to come in where the broker asks who one is.
            JsonNode security = JSON.readTree(text);
            String mechanism = security.get("mechanism").asText();
            String login = mechanism.equals("PLAIN") ? "plain.PlainLoginModule" : "scram.ScramLoginModule";
            settings.put("security.protocol", security.get("protocol").asText());
            settings.put("sasl.mechanism", mechanism);
            settings.put("sasl.jaas.config", String.format(
                    "org.apache.kafka.common.security.%s required username=\"%s\" password=\"%s\";",
                    login, security.get("username").asText(), security.get("password").asText()));
            settings.put("ssl.truststore.type", "PEM");
            settings.put("ssl.truststore.location", security.get("ca").asText());
        }
        return settings;
    }

    private static KafkaProducer<byte[], byte[]> producer(Map<String, Object> settings) {
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static KafkaConsumer<byte[], byte[]> consumer(Map<String, Object> settings) {
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static <T> T wait(KafkaFuture<T> answer) throws Exception {
        return answer.get(WAIT.toSeconds(), TimeUnit.SECONDS);
    }

    private static Map<String, Object> record(ConsumerRecord<byte[], byte[]> record) {
        Map<String, Object> said = new LinkedHashMap<>();
        said.put("partition", record.partition());
        said.put("offset", record.offset());
        said.put("time", record.timestamp());
        said.put("key", encode(record.key()));
        said.put("value", encode(record.value()));
        return said;
    }

    private static String encode(byte[] data) {
        return data == null ? null : Base64.getEncoder().encodeToString(data);
    }

    private static byte[] decode(JsonNode text) {
        return text.isNull() ? null : Base64.getDecoder().decode(text.asText());
    }

    private static synchronized void say(Object line) {
        try {
            System.out.println(JSON.writeValueAsString(line));
        } catch (com.fasterxml.jackson.core.JsonProcessingException error) {
            throw new IllegalStateException(error);
        }
    }
}
