"""confluent-kafka, librdkafka's Python client."""

import sys

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from confluent_kafka import ConsumerGroupTopicPartitions

from program import EVERYTHING, LIBRDKAFKA_SECURITY, decode, record, say, serve

WAIT_S = 20


class Confluent:
    name = f"confluent-kafka {confluent_kafka.__version__} (librdkafka {confluent_kafka.libversion()[0]})"
    can = EVERYTHING

    def __init__(self, brokers):
        self.base = {"bootstrap.servers": brokers, **LIBRDKAFKA_SECURITY}
        self.admin = AdminClient(self.base)

    def produce(self, topic, records, compression="none", idempotent=False):
        producer = Producer({**self.base, "compression.type": compression, "enable.idempotence": idempotent, "linger.ms": 20})
        return self._send(producer, topic, records)

    def _send(self, producer, topic, records):
        failed = []
        for each in records:
            more = {"timestamp": each["time"]} if "time" in each else {}
            producer.produce(
                topic,
                value=decode(each["value"]),
                key=decode(each["key"]),
                partition=each.get("partition", -1),
                on_delivery=lambda error, _: failed.append(error) if error else None,
                **more,
            )
        left = producer.flush(WAIT_S)
        if failed or left:
            raise RuntimeError(f"{left} not delivered, failed: {failed[:1]}")
        return len(records)

    def read(self, topic, count, time=None, committed=False):
        consumer = Consumer({
            **self.base,
            "group.id": "unused",
            "enable.auto.commit": False,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
        })
        try:
            partitions = consumer.list_topics(topic, WAIT_S).topics[topic].partitions
            if time is None:
                start = [TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions]
            else:
                start = consumer.offsets_for_times([TopicPartition(topic, partition, time) for partition in partitions], WAIT_S)
            consumer.assign(start)
            records = []
            while len(records) < count:
                messages = consumer.consume(count - len(records), WAIT_S)
                if not messages:
                    raise RuntimeError(f"only {len(records)} of {count} records came")
                records += [self._record(message) for message in messages]
            return records
        finally:
            consumer.close()

    def join(self, topic, group, count=None):
        consumer = Consumer({
            **self.base,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
        })
        consumer.subscribe(
            [topic],
            on_assign=lambda _, partitions: say(assigned=[each.partition for each in partitions]),
            on_revoke=lambda *_: say(assigned=[]),
        )
        seen = 0
        while count is None or seen < count:
            message = consumer.poll(0.2)
            if message is None:
                continue
            say(record=self._record(message))
            consumer.commit(message, asynchronous=False)
            seen += 1
        consumer.close()
        return seen

    def transact(self, id, topic, records, end, group=None, offsets=None):
        producer = Producer({**self.base, "transactional.id": id})
        producer.init_transactions(WAIT_S)
        producer.begin_transaction()
        self._send(producer, topic, records)
        if group is not None:
            consumer = Consumer({**self.base, "group.id": group})
            positions = [TopicPartition(topic, int(partition), offset) for partition, offset in offsets.items()]
            producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), WAIT_S)
            consumer.close()
        producer.commit_transaction(WAIT_S) if end == "commit" else producer.abort_transaction(WAIT_S)

    def create(self, topic, partitions, config):
        self.admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(WAIT_S)

    def describe(self, topic):
        resource = ConfigResource(ResourceType.TOPIC, topic)
        config = self.admin.describe_configs([resource])[resource].result(WAIT_S)
        partitions = self.admin.list_topics(topic, WAIT_S).topics[topic].partitions
        return {"partitions": len(partitions), "config": {name: entry.value for name, entry in config.items()}}

    def alter(self, topic, config, partitions):
        entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        self.admin.incremental_alter_configs([resource])[resource].result(WAIT_S)
        self.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(WAIT_S)

    def delete(self, topic):
        self.admin.delete_topics([topic])[topic].result(WAIT_S)

    def topics(self):
        return list(self.admin.list_topics(timeout=WAIT_S).topics)

    def groups(self):
        return [group.group_id for group in self.admin.list_consumer_groups().result(WAIT_S).valid]

    def group(self, group):
        found = self.admin.describe_consumer_groups([group])[group].result(WAIT_S)
        return {"state": found.state.name.lower(), "members": len(found.members)}

    def offsets(self, group, topic):
        asked = ConsumerGroupTopicPartitions(group)
        found = self.admin.list_consumer_group_offsets([asked])[group].result(WAIT_S)
        return {str(each.partition): each.offset for each in found.topic_partitions if each.topic == topic}

    @staticmethod
    def _record(message):
        if message.error():
            raise KafkaException(message.error())
        return record(message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value())


serve(Confluent(sys.argv[1]))
