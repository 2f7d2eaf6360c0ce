"""The shape that every client program in Python has: commands in, answers out, one JSON object a line (../README.md)."""

import asyncio
import base64
import inspect
import json
import os
import sys

COMPRESSIONS = ["none", "gzip", "snappy", "lz4", "zstd"]
# What a whole client library can; the words are those of ../README.md.
EVERYTHING = [
    *COMPRESSIONS,
    *("bytes", "read", "time", "group", "topics", "groups", "idempotent", "transactions", "abort", "offsets"),
]


# How to come in where the broker asks who one is: protocol, mechanism, username, password, ca; or nothing.
SECURITY = json.loads(os.environ.get("KAFKA_SECURITY", "{}"))
# The same as librdkafka's settings.
LIBRDKAFKA_SECURITY = {
    name: SECURITY[key]
    for name, key in [
        ("security.protocol", "protocol"),
        ("sasl.mechanism", "mechanism"),
        ("sasl.username", "username"),
        ("sasl.password", "password"),
        ("ssl.ca.location", "ca"),
    ]
    if SECURITY
}


def say(**line):
    print(json.dumps(line), flush=True)


def encode(data):
    return None if data is None else base64.b64encode(data).decode()


def decode(text):
    return None if text is None else base64.b64decode(text)


def record(partition, offset, time, key, value):
    """A consumed record as programs say it."""
    return {"partition": partition, "offset": offset, "time": time, "key": encode(key), "value": encode(value)}


def serve(program):
    """Answers commands until standard input ends. A command that raises is answered with the error and the next one is read."""
    loop = asyncio.new_event_loop()
    say(client=program.name, can=program.can)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(program, command.pop("do"))(**command)
            if inspect.isawaitable(answer):
                answer = loop.run_until_complete(answer)
        except Exception as error:  # whatever the client library raises is the answer
            say(error=f"{type(error).__name__}: {error}")
        else:
            say(ok=answer)
