"""The broker of a run: one that is there already, or a Farol of its own with free ports and an empty folder."""

import contextlib
import os
import re
import subprocess
import time

from clients import CACHE, HERE
from program import Failed

TARGET = os.environ.get("CARGO_TARGET_DIR") or CACHE / "target"
BINARY = os.environ.get("FAROL_BINARY") or f"{TARGET}/debug/farol"
READY_S = 60
STOP_S = 30


@contextlib.contextmanager
def running(brokers):
    """A broker that somebody else started."""
    yield brokers


# What a client must know to come in at a Farol that asks who one is, but for the mechanism.
USER = {
    "protocol": "SASL_SSL",
    "username": "matrix",
    "password": "as-many-as-there-are",
    "ca": str(HERE.parents[1] / "crates/broker/tests/kafka/data/localhost.crt"),
}
SECURED = {
    "FAROL_KAFKA_USERS": f"{USER['username']}:{USER['password']}",
    "FAROL_KAFKA_TLS_CERTIFICATE": USER["ca"],
    "FAROL_KAFKA_TLS_KEY": USER["ca"].replace(".crt", ".key"),
}


@contextlib.contextmanager
def farol(folder, more=None):
    """Starts Farol, gives the address of its Kafka port, and stops it in order."""
    os.makedirs(folder, exist_ok=True)
    settings = {"FAROL_HTTP_LISTEN": "127.0.0.1:0", "FAROL_KAFKA_LISTEN": "127.0.0.1:0", **(more or {})}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FAROL_")}
    with open(f"{folder}/farol.out", "wb") as out, open(f"{folder}/farol.err", "wb") as err:
        process = subprocess.Popen(
            [BINARY, "run", "--data", f"{folder}/data"], stdout=out, stderr=err, env={**environment, **settings}
        )
    try:
        yield address(process, folder)
        if process.poll() is not None:
            raise Failed(f"Farol ended with {process.returncode}, see {folder}/farol.err")
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
    with open(f"{folder}/farol.err", errors="replace") as err:
        if "panicked" in err.read():
            raise Failed(f"a part of Farol panicked, see {folder}/farol.err")


def address(process, folder):
    end = time.monotonic() + READY_S
    while time.monotonic() < end and process.poll() is None:
        with open(f"{folder}/farol.out", errors="replace") as out:
            if found := re.search(r"^ *kafka +(127\.0\.0\.1:\d+)", out.read(), re.MULTILINE):
                return found[1]
        time.sleep(0.05)
    raise Failed(f"Farol said no Kafka address, see {folder}/farol.out and {folder}/farol.err")
