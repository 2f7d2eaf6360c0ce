"""What every client must be able to do. Each check takes a `Client` and raises when something is not as it must be."""

import json
import random
import time
from dataclasses import dataclass, field

from program import Failed, Member, Program, decode, encode, eventually

PARTITIONS = 6
RECORDS = 300
JOIN_S = 45
TEXT = "abcdefghijklmnopqrstuvwxyz 0123456789 áçéõ °C {\"value\": }"


@dataclass
class Client:
    """One client under test: how its program is started, and the process that answers commands."""

    name: str
    command: list
    brokers: str
    folder: str
    preparer: object
    seed: int
    secured: object = None
    version: str = ""
    can: list = field(default_factory=list)
    main: Program = None
    started: list = field(default_factory=list)
    three: tuple = None

    def start(self):
        self.main = Program(self.command, self.brokers, f"{self.folder}/{self.name}.log")
        self.started.append(self.main)
        hello = self.main.next_line()
        self.version, self.can = hello["client"], hello["can"]

    def stop(self):
        for program in self.started:
            program.kill()

    def ask(self, do, **arguments):
        return self.main.ask(do, **arguments)

    def member(self, number, **arguments):
        program = Member(self.command, self.brokers, f"{self.folder}/{self.name}-{number}.log", **arguments)
        self.started.append(program)
        return program

    def label(self, purpose):
        """A name for a topic, group or transactional id that no other client and no other run has."""
        return f"{self.name}-{purpose}-{self.seed}"

    def topic(self, purpose, partitions):
        """A topic of its own, made by the client that prepares things for all."""
        topic = self.label(purpose)
        self.preparer("create", topic=topic, partitions=partitions, config={})
        return topic

    def records(self, count, partitions=None, purpose=""):
        """Made-up records, different every time but the same for a seed. With `partitions`, spread over them in turn."""
        chance = random.Random(f"{self.seed} {self.name} {purpose}")
        made = []
        for number in range(count):
            length = chance.choice([0, 1, 20, 100, chance.randrange(3000)])
            if "bytes" in self.can:
                # Some clients refuse records with neither key nor value.
                key = chance.choice([None, b"", chance.randbytes(4)])
                value = chance.choice([chance.randbytes(length), b"\0\n\t\xff" * (length // 4), *([] if key is None else [None])])
            else:
                value = "".join(chance.choices(TEXT, k=length)).encode()
                key = f"key {number % 17}".encode()
            more = {} if partitions is None else {"partition": number % partitions}
            made.append({"key": encode(key), "value": encode(value), **more})
        return made


def content(records):
    return sorted((each["key"] or "", each["key"] is None, each["value"] or "", each["value"] is None) for each in records)


def places(records):
    return [(each["partition"], each["offset"]) for each in records]


def same(produced, consumed, what="consumed"):
    """The same keys and values, each as often."""
    if content(produced) != content(consumed):
        raise Failed(f"{what}: {len(consumed)} records differ from the {len(produced)} produced")


def compression(codec):
    def check(client):
        """Produced with the codec, every byte comes back, to this client and to the one that prepares."""
        topic = client.topic(codec, 3)
        produced = client.records(RECORDS, purpose=codec)
        client.ask("produce", topic=topic, records=produced, compression=codec)
        same(produced, client.preparer("read", topic=topic, count=RECORDS), "read by another client")
        if "read" in client.can:
            same(produced, client.ask("read", topic=topic, count=RECORDS))

    return check


def share(members):
    """All partitions are owned, each by one member, and every member has some."""
    owned = [partition for member in members for partition in member.assigned]
    return sorted(owned) == list(range(PARTITIONS)) and all(member.assigned for member in members)


def group_of_three(client):
    """Three processes share six partitions and read everything once."""
    topic, group = client.topic("group", PARTITIONS), client.label("three")
    members = [client.member(number, topic=topic, group=group) for number in range(3)]
    eventually(JOIN_S, "three members share the partitions", lambda: share(members), members)
    produced = client.records(60, PARTITIONS, "first")
    client.preparer("produce", topic=topic, records=produced)
    read = lambda: [record for member in members for record in member.records]
    eventually(30, "three members read what was produced", lambda: len(read()) >= len(produced), members)
    same(produced, read())
    if not all(member.records for member in members):
        raise Failed("a member of three read nothing")
    client.three = (topic, members, produced)


def rebalance_on_kill(client):
    """One of the three is killed: the others get its partitions and read on."""
    if client.three is None:
        raise Failed("there is no group of three")
    topic, (victim, *rest), first = client.three
    victim.kill()
    eventually(JOIN_S, "the partitions of the killed member move", lambda: share(rest), rest)
    second = client.records(60, PARTITIONS, "second")
    client.preparer("produce", topic=topic, records=second)
    # What the killed member had read and not yet committed may come again: twice is allowed, missing isn't.
    read = lambda: {place: record for member in (victim, *rest) for place, record in zip(places(member.records), member.records)}
    eventually(30, "the members left read everything", lambda: len(read()) >= len(first) + len(second), rest)
    same([*first, *second], read().values())
    if not all(member.records for member in rest):
        raise Failed("a member left read nothing")
    for member in rest:
        member.kill()


def commit_and_resume(client):
    """A member commits and leaves after half; the next goes on exactly there."""
    topic, group = client.topic("resume", 1), client.label("resume")
    produced = client.records(40, purpose="resume")
    client.ask("produce", topic=topic, records=produced)
    offsets = []
    for half in range(2):
        member = client.member(f"half-{half}", topic=topic, group=group, count=20)
        eventually(JOIN_S, f"half {half} is read and committed", lambda: member.answer and "ok" in member.answer, [member])
        offsets += [record["offset"] for record in member.records]
        member.kill()
    if offsets != list(range(40)):
        raise Failed(f"offsets read: {offsets}")


def seek_by_time(client):
    """Reading from a time begins at the first record that isn't older."""
    topic = client.topic("time", 1)
    began = int(time.time() * 1000) - 3_600_000
    made = client.records(40, 1, "time")
    client.preparer("produce", topic=topic, records=[{**each, "time": began + number * 1000} for number, each in enumerate(made)])
    for wanted in (began + 25_000, began + 24_001):
        records = client.ask("read", topic=topic, count=15, time=wanted)
        if [record["offset"] for record in records] != list(range(25, 40)):
            raise Failed(f"from a time came offsets {[record['offset'] for record in records]}")
        if any(record["time"] != began + record["offset"] * 1000 for record in records):
            raise Failed("timestamps differ from those produced")


def topic_admin(client):
    """A topic is made, described, altered, gets more partitions, and is deleted."""
    topic = client.label("admin")
    client.ask("create", topic=topic, partitions=3, config={"retention.ms": "3600000"})
    eventually(20, "the topic is listed", lambda: topic in client.ask("topics"))
    shown = client.ask("describe", topic=topic)
    if shown["partitions"] != 3 or shown["config"].get("retention.ms") != "3600000":
        raise Failed(f"created topic is described as {shown['partitions']} partitions, {shown['config'].get('retention.ms')}")
    client.ask("alter", topic=topic, config={"retention.ms": "7200000"}, partitions=5)

    def altered():
        shown = client.ask("describe", topic=topic)
        return shown["partitions"] == 5 and shown["config"].get("retention.ms") == "7200000"

    eventually(20, "the alteration is described", altered)
    client.ask("delete", topic=topic)
    eventually(20, "the topic is gone", lambda: topic not in client.ask("topics"))


def group_admin(client):
    """A group with one member is listed and described, with the offsets it committed."""
    topic, group = client.topic("groups", 1), client.label("groups")
    client.preparer("produce", topic=topic, records=client.records(5, 1, "groups"))
    member = client.member("groups", topic=topic, group=group)
    eventually(JOIN_S, "the member reads", lambda: len(member.records) == 5, [member])
    if group not in client.ask("groups"):
        raise Failed("the group is not listed")
    eventually(20, "the group is described as stable", lambda: client.ask("group", group=group) == {"state": "stable", "members": 1})
    eventually(20, "the committed offset is shown", lambda: client.ask("offsets", group=group, topic=topic).get("0") == 5)
    member.kill()


def idempotent(client):
    """An idempotent producer's records arrive once, in order."""
    topic = client.topic("idempotent", 1)
    produced = client.records(RECORDS, purpose="idempotent")
    client.ask("produce", topic=topic, records=produced, compression="none", idempotent=True)
    records = client.preparer("read", topic=topic, count=RECORDS)
    if [(each["key"], each["value"]) for each in records] != [(each["key"], each["value"]) for each in produced]:
        raise Failed("order or content differ")


def transactions(client):
    """Committed records are read, aborted ones only without read_committed; offsets go with the transaction."""
    topic, group = client.topic("transactions", 1), client.label("transactions")
    every, committed, position = [], [], None
    ends = ["commit", "abort", "commit"] if "abort" in client.can else ["commit", "commit"]
    for number, end in enumerate(ends):
        records = client.records(10, purpose=f"transaction {number}")
        every += records
        committed += records if end == "commit" else []
        position = 100 + number if end == "commit" else position
        more = {"group": group, "offsets": {"0": 100 + number}} if "offsets" in client.can else {}
        client.ask("transact", id=client.label("id"), topic=topic, records=records, end=end, **more)
        if more:
            shown = lambda: client.ask("offsets", group=group, topic=topic).get("0")
            eventually(20, f"the group's offset is {position}", lambda: shown() == position)
    reader = client.ask if "read" in client.can else client.preparer
    same(committed, reader("read", topic=topic, count=len(committed), committed=True), "read committed")
    same(every, reader("read", topic=topic, count=len(every)), "read uncommitted")
    return None if "abort" in client.can else "commit"


def readings_to_alerts(client):
    """Readings that this client produces come out as an alert that it consumes."""
    sensor = client.label("sensor")
    member = client.member("alerts", topic="alerts", group=client.label("alerts"))
    begin = time.time()
    readings = []
    for number in range(20):
        reading = {"sensor_id": sensor, "sensor_type": "temperature", "value": 20.0 if number < 10 else 90.0, "unit": "°C"}
        readings.append({"key": encode(sensor.encode()), "value": encode(json.dumps(reading, ensure_ascii=False).encode())})
    client.ask("produce", topic="sensor-data", records=readings)

    def firing():
        values = [json.loads(decode(record["value"])) for record in member.records if record["value"]]
        return any(sensor in json.dumps(value) for value in values)

    eventually(JOIN_S, "an alert of the sensor is consumed", firing, [member])
    member.kill()


def over_tls(mechanism):
    def check(client):
        """At a Farol that asks who one is, over TLS, records go to and fro."""
        brokers, user, prepare = client.secured
        topic = client.label(mechanism)
        prepare("create", topic=topic, partitions=1, config={})
        produced = client.records(20, purpose=mechanism)
        program = Program(client.command, brokers, f"{client.folder}/{client.name}-{mechanism}.log", {**user, "mechanism": mechanism})
        client.started.append(program)
        program.next_line()
        program.ask("produce", topic=topic, records=produced)
        same(produced, program.ask("read", topic=topic, count=len(produced)))
        program.kill()

    return check


# Column of the table, what a client needs for it, and the check.
CHECKS = [
    *((codec, codec, compression(codec)) for codec in ("none", "gzip", "snappy", "lz4", "zstd")),
    ("group of three", "group", group_of_three),
    ("kill of a member", "group", rebalance_on_kill),
    ("commit, resume", "group", commit_and_resume),
    ("seek by time", "time", seek_by_time),
    ("topic admin", "topics", topic_admin),
    ("group admin", "groups", group_admin),
    ("idempotent", "idempotent", idempotent),
    ("transactions", "transactions", transactions),
    ("readings to alerts", "group", readings_to_alerts),
    ("PLAIN over TLS", "read", over_tls("PLAIN")),
    ("SCRAM over TLS", "read", over_tls("SCRAM-SHA-512")),
]
# What can only be checked at a Farol that the test has started.
FAROLS_OWN = {"readings to alerts", "PLAIN over TLS", "SCRAM over TLS"}
