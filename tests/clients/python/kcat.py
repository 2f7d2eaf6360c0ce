"""kcat, the command line client on librdkafka: each command runs the unmodified program."""

import re
import subprocess
import sys
import tempfile

from program import COMPRESSIONS, LIBRDKAFKA_SECURITY, decode, record, say, serve

WAIT_S = 30
# Unit and record separators can't be in the records, which are text.
BETWEEN, END = b"\x1f", b"\x1e"
FORMAT = r"%p\x1f%o\x1f%T\x1f%K\x1f%k\x1f%S\x1f%s\x1e"


def parse(line):
    partition, offset, time, key_length, key, length, value = line.split(BETWEEN)
    key = None if int(key_length) < 0 else key
    value = None if int(length) < 0 else value
    return record(int(partition), int(offset), int(time), key, value)


class Kcat:
    name = "kcat"
    can = [*COMPRESSIONS, "read", "time", "group", "idempotent", "transactions"]

    def __init__(self, brokers):
        self.base = ["kcat", "-b", brokers, *(f"-X{name}={value}" for name, value in LIBRDKAFKA_SECURITY.items())]

    def _run(self, *arguments, given=b""):
        done = subprocess.run([*self.base, *arguments], input=given, capture_output=True, timeout=WAIT_S)
        if done.returncode != 0 or b"ERROR" in done.stderr:
            raise RuntimeError(done.stderr.decode(errors="replace"))
        return done.stdout

    def produce(self, topic, records, compression="none", idempotent=False):
        return self._produce(topic, records, "-z", compression, "-X", f"enable.idempotence={str(idempotent).lower()}")

    def _produce(self, topic, records, *more):
        lines = b"".join(decode(each["key"]) + BETWEEN + decode(each["value"]) + END for each in records)
        partitions = {each.get("partition", -1) for each in records}
        if len(partitions) > 1:
            raise ValueError("kcat produces to one partition or to any")
        self._run("-P", "-t", topic, "-p", str(partitions.pop()), "-K", BETWEEN.decode(), "-D", END.decode(), *more, given=lines)
        return len(records)

    def read(self, topic, count, time=None, committed=False):
        begin = "beginning" if time is None else f"s@{time}"
        isolation = "read_committed" if committed else "read_uncommitted"
        out = self._run("-C", "-q", "-t", topic, "-o", begin, "-c", str(count), "-f", FORMAT, "-X", f"isolation.level={isolation}")
        return [parse(line) for line in out.split(END)[:-1]]

    def join(self, topic, group, count=None):
        settings = ["auto.offset.reset=earliest", "session.timeout.ms=6000", "heartbeat.interval.ms=500", "auto.commit.interval.ms=200"]
        more = [word for setting in settings for word in ("-X", setting)] + (["-c", str(count)] if count else [])
        # Assignments are told on standard error, records on standard output: both go to one pipe, in order.
        kcat = subprocess.Popen(
            [*self.base, "-G", group, "-f", FORMAT, "-u", *more, topic], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        seen, waiting = 0, b""
        while chunk := kcat.stdout.read1():
            waiting += chunk
            # A notice is a line that begins with %, a record ends with its separator.
            while match := re.match(rb"(%[^\n]*)\n|([^%][^\x1e]*)\x1e", waiting):
                waiting = waiting[match.end() :]
                notice, line = match.groups()
                if line:
                    say(record=parse(line))
                    seen += 1
                elif b": assigned:" in notice:
                    say(assigned=[int(each) for each in re.findall(rb"\[(\d+)\]", notice.partition(b"assigned:")[2])])
                elif b": revoked:" in notice:
                    say(assigned=[])
        if kcat.wait() != 0:
            raise RuntimeError(f"kcat ended with {kcat.returncode}: {waiting.decode(errors='replace')}")
        return seen

    def transact(self, id, topic, records, end):
        self._produce(topic, records, "-X", f"transactional.id={id}")


serve(Kcat(sys.argv[1]))
