"""aiokafka, the asyncio client."""

import asyncio
import sys

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code
from aiokafka.helpers import create_ssl_context

from program import EVERYTHING, SECURITY, decode, record, say, serve

WAIT_MS = 20_000


class Listener(ConsumerRebalanceListener):
    def on_partitions_assigned(self, assigned):
        say(assigned=[each.partition for each in assigned])

    def on_partitions_revoked(self, revoked):
        say(assigned=[])


def succeed(errors):
    """Admin answers of aiokafka carry their error codes inside."""
    for name, code, *more in errors:
        if code:
            raise for_code(code)(f"{name}: {more}")


class Aiokafka:
    name = f"aiokafka {aiokafka.__version__}"
    can = EVERYTHING

    def __init__(self, brokers):
        self.base = {"bootstrap_servers": brokers}
        if SECURITY:
            self.base |= {
                "security_protocol": SECURITY["protocol"],
                "sasl_mechanism": SECURITY["mechanism"],
                "sasl_plain_username": SECURITY["username"],
                "sasl_plain_password": SECURITY["password"],
                "ssl_context": create_ssl_context(cafile=SECURITY["ca"]),
            }

    async def produce(self, topic, records, compression="none", idempotent=False):
        producer = AIOKafkaProducer(
            **self.base,
            compression_type=None if compression == "none" else compression,
            enable_idempotence=idempotent,
            acks="all",
            linger_ms=20,
        )
        async with producer:
            return await self._send(producer, topic, records)

    @staticmethod
    async def _send(producer, topic, records):
        sent = [
            await producer.send(
                topic,
                value=decode(each["value"]),
                key=decode(each["key"]),
                partition=each.get("partition"),
                timestamp_ms=each.get("time"),
            )
            for each in records
        ]
        await asyncio.gather(*sent)
        return len(sent)

    async def read(self, topic, count, time=None, committed=False):
        consumer = AIOKafkaConsumer(**self.base, isolation_level="read_committed" if committed else "read_uncommitted")
        async with consumer:
            await consumer._client.force_metadata_update()
            await consumer._client.add_topic(topic)
            partitions = [TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic)]
            consumer.assign(partitions)
            if time is None:
                await consumer.seek_to_beginning()
            else:
                for partition, found in (await consumer.offsets_for_times({each: time for each in partitions})).items():
                    consumer.seek(partition, found.offset)
            records = []
            while len(records) < count:
                polled = await consumer.getmany(timeout_ms=WAIT_MS, max_records=count - len(records))
                if not polled:
                    raise RuntimeError(f"only {len(records)} of {count} records came")
                records += [self._record(each) for messages in polled.values() for each in messages]
            return records

    async def join(self, topic, group, count=None):
        consumer = AIOKafkaConsumer(
            **self.base,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=6000,
            heartbeat_interval_ms=500,
        )
        consumer.subscribe([topic], listener=Listener())
        seen = 0
        async with consumer:
            while count is None or seen < count:
                for partition, messages in (await consumer.getmany(timeout_ms=200, max_records=1)).items():
                    for each in messages:
                        say(record=self._record(each))
                        await consumer.commit({partition: each.offset + 1})
                        seen += 1
        return seen

    async def transact(self, id, topic, records, end, group=None, offsets=None):
        async with AIOKafkaProducer(**self.base, transactional_id=id) as producer:
            await producer.begin_transaction()
            await self._send(producer, topic, records)
            if group is not None:
                positions = {TopicPartition(topic, int(partition)): offset for partition, offset in offsets.items()}
                await producer.send_offsets_to_transaction(positions, group)
            await (producer.commit_transaction() if end == "commit" else producer.abort_transaction())

    async def _admin(self, work):
        admin = AIOKafkaAdminClient(**self.base)
        await admin.start()
        try:
            return await work(admin)
        finally:
            await admin.close()

    async def create(self, topic, partitions, config):
        wanted = [NewTopic(topic, partitions, 1, topic_configs=config)]
        answer = await self._admin(lambda admin: admin.create_topics(wanted))
        succeed(answer.topic_errors)

    async def describe(self, topic):
        [found] = await self._admin(lambda admin: admin.describe_topics([topic]))
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        [answer] = await self._admin(lambda admin: admin.describe_configs([resource]))
        config = {entry[0]: entry[1] for entry in answer.resources[0][4]}
        return {"partitions": len(found["partitions"]), "config": config}

    async def alter(self, topic, config, partitions):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs=config)
        [answer] = await self._admin(lambda admin: admin.alter_configs([resource]))
        succeed([(each[3], each[0], each[1]) for each in answer.resources])
        answer = await self._admin(lambda admin: admin.create_partitions({topic: NewPartitions(partitions)}))
        succeed(answer.topic_errors)

    async def delete(self, topic):
        answer = await self._admin(lambda admin: admin.delete_topics([topic]))
        succeed(answer.topic_error_codes)

    async def topics(self):
        return await self._admin(lambda admin: admin.list_topics())

    async def groups(self):
        return [each[0] for each in await self._admin(lambda admin: admin.list_consumer_groups())]

    async def group(self, group):
        [answer] = await self._admin(lambda admin: admin.describe_consumer_groups([group]))
        [found] = answer.groups
        return {"state": found[2].lower(), "members": len(found[5])}

    async def offsets(self, group, topic):
        found = await self._admin(lambda admin: admin.list_consumer_group_offsets(group))
        return {str(each.partition): position.offset for each, position in found.items() if each.topic == topic}

    @staticmethod
    def _record(message):
        return record(message.partition, message.offset, message.timestamp, message.key, message.value)


serve(Aiokafka(sys.argv[1]))
