"""kafka-python, 2.x and 3.x: the consumer and producer are the same, the admin clients differ."""

import sys

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.structs import OffsetAndMetadata

from program import EVERYTHING, SECURITY, decode, record, say, serve

WAIT_MS = 20_000
MAJOR = int(kafka.__version__.split(".")[0])


class Listener(kafka.ConsumerRebalanceListener):
    def on_partitions_assigned(self, assigned):
        say(assigned=[each.partition for each in assigned])

    def on_partitions_revoked(self, revoked):
        say(assigned=[])


class KafkaPython:
    name = f"kafka-python {kafka.__version__}"
    can = EVERYTHING

    def __init__(self, brokers):
        self.base = {"bootstrap_servers": brokers}
        if SECURITY:
            self.base |= {
                "security_protocol": SECURITY["protocol"],
                "sasl_mechanism": SECURITY["mechanism"],
                "sasl_plain_username": SECURITY["username"],
                "sasl_plain_password": SECURITY["password"],
                "ssl_cafile": SECURITY["ca"],
            }

    def produce(self, topic, records, compression="none", idempotent=False):
        producer = KafkaProducer(
            **self.base,
            compression_type=None if compression == "none" else compression,
            enable_idempotence=idempotent,
            acks="all",
            linger_ms=20,
        )
        try:
            return self._send(producer, topic, records)
        finally:
            producer.close()

    @staticmethod
    def _send(producer, topic, records):
        sent = [
            producer.send(
                topic,
                value=decode(each["value"]),
                key=decode(each["key"]),
                partition=each.get("partition"),
                timestamp_ms=each.get("time"),
            )
            for each in records
        ]
        producer.flush(WAIT_MS / 1000)
        for each in sent:
            each.get(WAIT_MS / 1000)
        return len(sent)

    def read(self, topic, count, time=None, committed=False):
        consumer = KafkaConsumer(**self.base, isolation_level="read_committed" if committed else "read_uncommitted")
        try:
            partitions = [TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic)]
            consumer.assign(partitions)
            if time is None:
                consumer.seek_to_beginning()
            else:
                for partition, found in consumer.offsets_for_times({each: time for each in partitions}).items():
                    consumer.seek(partition, found.offset)
            records = []
            while len(records) < count:
                polled = consumer.poll(timeout_ms=WAIT_MS, max_records=count - len(records))
                if not polled:
                    raise RuntimeError(f"only {len(records)} of {count} records came")
                records += [self._record(each) for messages in polled.values() for each in messages]
            return records
        finally:
            consumer.close()

    def join(self, topic, group, count=None):
        consumer = KafkaConsumer(
            **self.base,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=6000,
            heartbeat_interval_ms=500,
        )
        consumer.subscribe([topic], listener=Listener())
        seen = 0
        while count is None or seen < count:
            for partition, messages in consumer.poll(timeout_ms=200, max_records=1).items():
                for each in messages:
                    say(record=self._record(each))
                    consumer.commit({partition: OffsetAndMetadata(each.offset + 1, "", -1)})
                    seen += 1
        consumer.close()
        return seen

    def transact(self, id, topic, records, end, group=None, offsets=None):
        producer = KafkaProducer(**self.base, transactional_id=id)
        try:
            producer.init_transactions()
            producer.begin_transaction()
            self._send(producer, topic, records)
            if group is not None:
                positions = {TopicPartition(topic, int(each)): OffsetAndMetadata(at, "", -1) for each, at in offsets.items()}
                producer.send_offsets_to_transaction(positions, group)
            producer.commit_transaction() if end == "commit" else producer.abort_transaction()
        finally:
            producer.close()

    @property
    def admin(self):
        return KafkaAdminClient(**self.base)

    def create(self, topic, partitions, config):
        self.admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)])

    def describe(self, topic):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        [found] = self.admin.describe_topics([topic])
        if MAJOR < 3:
            [answer] = self.admin.describe_configs([resource])
            config = {entry[0]: entry[1] for entry in answer.resources[0][4]}
        else:
            described = self.admin.describe_configs([resource], config_filter="all")
            config = {name: entry["value"] for name, entry in next(iter(described.values()))[topic].items()}
        return {"partitions": len(found["partitions"]), "config": config}

    def alter(self, topic, config, partitions):
        self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=config)])
        self.admin.create_partitions({topic: NewPartitions(partitions)})

    def delete(self, topic):
        self.admin.delete_topics([topic])

    def topics(self):
        names = self.admin.list_topics()
        return [each["name"] if isinstance(each, dict) else each for each in names]

    def groups(self):
        if MAJOR < 3:
            return [each[0] for each in self.admin.list_consumer_groups()]
        return [each["group_id"] for each in self.admin.list_groups()]

    def group(self, group):
        if MAJOR < 3:
            [found] = self.admin.describe_consumer_groups([group])
            return {"state": found.state.lower(), "members": len(found.members)}
        found = self.admin.describe_groups([group])[group]
        return {"state": found["group_state"].lower(), "members": len(found["members"])}

    def offsets(self, group, topic):
        if MAJOR < 3:
            found = self.admin.list_consumer_group_offsets(group)
        else:
            found = self.admin.list_group_offsets({group: None})[group]
        return {str(each.partition): position.offset for each, position in found.items() if each.topic == topic}

    @staticmethod
    def _record(message):
        return record(message.partition, message.offset, message.timestamp, message.key, message.value)


serve(KafkaPython(sys.argv[1]))
