"""End to end against a real Kafka: `KAFKA_BOOTSTRAP=127.0.0.1:9092 python tools/e2e.py`.

Makes a topic of its own, writes committed, repeated and aborted transactions, starts the consumer as a process, asks it over HTTP,
stops it with SIGTERM, starts it again and sees that nothing is scored twice. Exits with 0 where all of it holds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

HERE = Path(__file__).resolve().parent.parent
WAIT_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def wait_for(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            if holds():
                print(f"ok: {what}")
                return
        except OSError:
            pass
        time.sleep(0.3)
    raise SystemExit(f"FAILED: {what}")


def start(bootstrap: str, topic: str, port: int) -> subprocess.Popen[bytes]:
    env = {**os.environ, "ANOMALY_BOOTSTRAP": bootstrap, "ANOMALY_TOPIC": topic, "ANOMALY_GROUP": f"{topic}-group"}
    command = [sys.executable, "-m", "uvicorn", "anomaly_consumer.app:app", "--host", "127.0.0.1", "--port", str(port)]
    return subprocess.Popen(command, cwd=HERE, env=env)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        raise SystemExit("FAILED: it did not stop within 20 s of SIGTERM") from None
    if code not in (0, -signal.SIGTERM):
        raise SystemExit(f"FAILED: it ended with {code}")
    print("ok: it stops in order")


def main() -> None:
    bootstrap = os.environ.get("KAFKA_BOOTSTRAP")
    if not bootstrap:
        raise SystemExit("set KAFKA_BOOTSTRAP to the broker's HOST:PORT")
    topic, stream, rng = f"engine-{uuid.uuid4().hex[:8]}", str(uuid.uuid4()), random.Random(1)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": topic})
    producer.init_transactions(30)

    def send(engine: str, seq: int) -> None:
        row = {
            "engineId": engine,
            "timestamp": "2026-01-01T00:00:00.000000Z",
            "temperature": rng.gauss(300, 2),
            "extra": {"oil": 3.5},
        }
        headers = {"stream": stream, "seq": str(seq), "deliveryId": f"{stream}/{seq}"}
        producer.produce(topic, json.dumps(row), engine, headers=list(headers.items()))

    def transaction(numbers: range, commit: bool) -> None:
        producer.begin_transaction()
        for seq in numbers:
            send(f"e{seq % 4}", seq)
        producer.flush(30)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)

    transaction(range(0, 200), commit=True)
    transaction(range(200, 300), commit=False)
    transaction(range(150, 200), commit=True)
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    process = start(bootstrap, topic, port)
    try:
        wait_for("200 committed readings are scored once", lambda: get(f"{base}/healthz")["scored"] == 200)
        wait_for("50 repeats are told", lambda: get(f"{base}/healthz")["repeated"] == 50)
        wait_for("four engines have scores", lambda: get(f"{base}/scores")["total"] == 4)
        wait_for("each engine is known", lambda: get(f"{base}/scores/e3")["readings"] == 50)
        wait_for("both partitions are assigned", lambda: get(f"{base}/healthz")["assignedPartitions"] == [0, 1])
        wait_for("there is no lag", lambda: get(f"{base}/healthz")["lag"] == 0)
        transaction(range(300, 320), commit=True)
        wait_for("what comes later is scored, the aborted is not", lambda: get(f"{base}/healthz")["scored"] == 220)
        stop(process)
        process = start(bootstrap, topic, port)
        transaction(range(320, 330), commit=True)
        wait_for("a restart goes on where it stopped", lambda: get(f"{base}/healthz")["scored"] == 10)
        stop(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        admin.delete_topics([topic])[topic].result(30)


if __name__ == "__main__":
    main()
