"""A client program as a process of its own: commands go in, answers come out, one JSON object a line."""

import base64
import json
import os
import queue
import signal
import subprocess
import threading
import time

ANSWER_S = 90


class Failed(Exception):
    """What a client could not do, in a sentence."""


class Program:
    """Answers one command after the other."""

    def __init__(self, command, brokers, log, security=None):
        self.log = log
        self.errors = open(log, "ab")
        self.process = subprocess.Popen(
            [*command, brokers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            start_new_session=True,
            env={**os.environ, "KAFKA_SECURITY": json.dumps(security)} if security else None,
        )
        self.lines = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stdout:
            try:
                self.hear(json.loads(line))
            except ValueError:
                self.errors.write(line)
        self.hear(None)

    def hear(self, line):
        self.lines.put(line)

    def next_line(self, limit=ANSWER_S):
        try:
            line = self.lines.get(timeout=limit)
        except queue.Empty:
            raise Failed(f"no answer within {limit} s, see {self.log}") from None
        if line is None:
            raise Failed(f"the program ended, see {self.log}")
        return line

    def tell(self, do, **arguments):
        self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, do, **arguments):
        self.tell(do, **arguments)
        answer = self.next_line()
        if "error" in answer:
            raise Failed(f"{do}: {answer['error']}")
        return answer["ok"]

    def kill(self):
        """SIGKILL to the program and whatever it started (a tool, a JVM)."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.errors.close()


class Member(Program):
    """A member of a consumer group: remembers what it was assigned and what it read."""

    def __init__(self, command, brokers, log, **arguments):
        self.changed = threading.Condition()
        self.assigned = set()
        self.records = []
        self.answer = None
        self.alive = True
        super().__init__(command, brokers, log)
        self.tell("join", **arguments)

    def hear(self, line):
        with self.changed:
            if line is None:
                self.alive = False
            elif "assigned" in line:
                self.assigned = set(line["assigned"])
            elif "record" in line:
                self.records.append(line["record"])
            elif "client" not in line:
                self.answer = line
            self.changed.notify_all()


def eventually(limit, what, condition, members=()):
    """Waits until `condition` holds. `members` whose program ended before it did are named."""
    end = time.monotonic() + limit
    while not condition():
        ended = [member.log for member in members if not member.alive and member.answer is None]
        if ended:
            raise Failed(f"{what}: a member ended, see {ended[0]}")
        failed = [member.answer["error"] for member in members if member.answer and "error" in member.answer]
        if failed:
            raise Failed(f"{what}: {failed[0]}")
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {limit} s")
        time.sleep(0.05)


def encode(data):
    return None if data is None else base64.b64encode(data).decode()


def decode(text):
    return None if text is None else base64.b64decode(text)
