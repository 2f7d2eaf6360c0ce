"""The console tools of Apache Kafka: each command runs the unmodified program in a JVM of its own."""

import atexit
import os
import re
import subprocess
import sys
import tempfile

from program import COMPRESSIONS, SECURITY, decode, record, say, serve

WAIT_S = 60
BETWEEN = "\x1f"
TOOLS = {
    "console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "topics": "org.apache.kafka.tools.TopicCommand",
    "configs": "kafka.admin.ConfigCommand",
    "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
}
JAVA = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx128m"]


def parse(line):
    time, partition, offset, key, value = line.split(BETWEEN)
    number = lambda text: int(text.partition(":")[2])
    return record(number(partition), number(offset), number(time), key.encode(), value.encode())


class Console:
    can = [*COMPRESSIONS, "read", "time", "group", "topics", "groups", "idempotent"]

    def __init__(self, jars, logging, brokers):
        self.java = [*JAVA, "-cp", f"{jars}/*", f"-Dlog4j2.configurationFile={logging}"]
        self.brokers = brokers
        self.security = self._security()
        self.name = "Kafka console tools " + self._run("topics", "--version").split()[0]

    @staticmethod
    def _security():
        """A settings file for the tools, where the broker asks who one is."""
        if not SECURITY:
            return []
        login = "org.apache.kafka.common.security.{}LoginModule".format("plain.Plain" if SECURITY["mechanism"] == "PLAIN" else "scram.Scram")
        file = tempfile.NamedTemporaryFile("w", suffix=".properties", delete=False)
        with file:
            file.write(
                f"security.protocol={SECURITY['protocol']}\nsasl.mechanism={SECURITY['mechanism']}\n"
                f"sasl.jaas.config={login} required username=\"{SECURITY['username']}\" password=\"{SECURITY['password']}\";\n"
                f"ssl.truststore.type=PEM\nssl.truststore.location={SECURITY['ca']}\n"
            )
        atexit.register(os.unlink, file.name)
        return ["--command-config", file.name]

    def _command(self, tool, *arguments):
        return [*self.java, TOOLS[tool], "--bootstrap-server", self.brokers, *self.security, *arguments]

    def _run(self, tool, *arguments, given=""):
        done = subprocess.run(self._command(tool, *arguments), input=given.encode(), capture_output=True, timeout=WAIT_S)
        out = done.stdout.decode()
        if done.returncode != 0 or "ERROR" in out:
            raise RuntimeError(f"{tool}: {out} {done.stderr.decode(errors='replace')}")
        return out

    def produce(self, topic, records, compression="none", idempotent=False):
        lines = "".join(f"{decode(each['key']).decode()}{BETWEEN}{decode(each['value']).decode()}\n" for each in records)
        settings = ["--command-property", f"enable.idempotence={str(idempotent).lower()}", "--compression-codec", compression]
        reader = ["--reader-property", "parse.key=true", "--reader-property", f"key.separator={BETWEEN}"]
        self._run("console-producer", "--topic", topic, *settings, *reader, given=lines)
        return len(records)

    @staticmethod
    def _printed():
        properties = ["print.timestamp", "print.partition", "print.offset", "print.key"]
        return [word for name in properties for word in ("--formatter-property", f"{name}=true")] + [
            "--formatter-property",
            f"key.separator={BETWEEN}",
        ]

    def read(self, topic, count, time=None, committed=False):
        where = ["--from-beginning"]
        if time is not None:
            # The consumer knows no times: get-offsets says where to begin in the topic's one partition.
            [(_, partition, offset)] = [line.split(":") for line in self._run("get-offsets", "--topic", topic, "--time", str(time)).split()]
            where = ["--partition", partition, "--offset", offset]
        isolation = "read_committed" if committed else "read_uncommitted"
        more = ["--max-messages", str(count), "--timeout-ms", "20000", "--isolation-level", isolation]
        out = self._run("console-consumer", "--topic", topic, *where, *more, *self._printed())
        return [parse(line) for line in out.splitlines() if BETWEEN in line]

    def join(self, topic, group, count=None):
        settings = ["session.timeout.ms=6000", "heartbeat.interval.ms=500", "auto.commit.interval.ms=200"]
        more = [word for setting in settings for word in ("--command-property", setting)]
        more += ["--max-messages", str(count)] if count else []
        command = self._command("console-consumer", "--topic", topic, "--group", group, "--from-beginning", *more, *self._printed())
        consumer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        seen = 0
        for line in consumer.stdout:
            line = line.rstrip("\n")
            # The client's log, on the same stream, says when the assignment changes.
            if line.startswith("log:"):
                if "Adding newly assigned partitions" in line:
                    say(assigned=[int(each) for each in re.findall(rf"{re.escape(topic)}-(\d+)", line.partition("partitions")[2])])
                elif "Revoke" in line or "lost" in line:
                    say(assigned=[])
            elif BETWEEN in line:
                say(record=parse(line))
                seen += 1
        if consumer.wait() != 0:
            raise RuntimeError(f"console-consumer ended with {consumer.returncode}")
        return seen

    def create(self, topic, partitions, config):
        settings = [word for name, value in config.items() for word in ("--config", f"{name}={value}")]
        self._run("topics", "--create", "--topic", topic, "--partitions", str(partitions), *settings)

    def describe(self, topic):
        partitions = int(re.search(r"PartitionCount: (\d+)", self._run("topics", "--describe", "--topic", topic))[1])
        shown = self._run("configs", "--describe", "--entity-type", "topics", "--entity-name", topic)
        return {"partitions": partitions, "config": dict(re.findall(r"^ +([\w.]+)=(\S*) sensitive", shown, re.M))}

    def alter(self, topic, config, partitions):
        settings = ",".join(f"{name}={value}" for name, value in config.items())
        self._run("configs", "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", settings)
        self._run("topics", "--alter", "--topic", topic, "--partitions", str(partitions))

    def delete(self, topic):
        self._run("topics", "--delete", "--topic", topic)

    def topics(self):
        return self._run("topics", "--list").split()

    def groups(self):
        return self._run("consumer-groups", "--list").split()

    def group(self, group):
        heading, shown = self._run("consumer-groups", "--describe", "--group", group, "--state").strip().splitlines()
        words = shown.split()
        return {"state": words[-2].lower(), "members": int(words[-1])}

    def offsets(self, group, topic):
        shown = self._run("consumer-groups", "--describe", "--group", group, "--offsets")
        rows = [line.split() for line in shown.splitlines() if topic in line]
        return {row[2]: int(row[3]) for row in rows if row[3] != "-"}


serve(Console(*sys.argv[1:]))
