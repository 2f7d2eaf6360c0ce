"""Where the client programs are and how each is started. scripts/clients-setup puts what they need into the cache folder."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("CACHE_DIR") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farol")
TOOLS = CACHE / "tools" / "clients"
PYTHON = str(TOOLS / "python" / "bin" / "python")
PYTHON_OLD = str(TOOLS / "python-kafka-2" / "bin" / "python")
JAVA = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx128m"]


def java(version):
    return [*JAVA, "-cp", f"{TOOLS}/java-{version}/*:{TOOLS}/java-{version}/classes", "Client"]


CLIENTS = {
    "kcat": [PYTHON, str(HERE / "python" / "kcat.py")],
    "confluent-kafka": [PYTHON, str(HERE / "python" / "confluent.py")],
    "kafka-python-3": [PYTHON, str(HERE / "python" / "kafka_python.py")],
    "kafka-python-2": [PYTHON_OLD, str(HERE / "python" / "kafka_python.py")],
    "aiokafka": [PYTHON, str(HERE / "python" / "aio.py")],
    "kafkajs": ["node", str(HERE / "js" / "client.js"), str(TOOLS / "js")],
    "java-4": java(4),
    "java-3": java(3),
    "console": [PYTHON, str(HERE / "python" / "console.py"), str(TOOLS / "java-4"), str(HERE / "java" / "console-log4j2.properties")],
    "franz-go": [str(TOOLS / "go" / "client")],
}

PREPARER = CLIENTS["confluent-kafka"]
