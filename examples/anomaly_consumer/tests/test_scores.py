"""The models, the worker's handling of records, and the HTTP surface: no broker needed."""

import json
import random
from typing import Any

from fastapi.testclient import TestClient

from anomaly_consumer.app import make_app
from anomaly_consumer.model import Engines
from anomaly_consumer.records import Reading
from anomaly_consumer.settings import Settings
from anomaly_consumer.worker import Worker


class Record:
    """A message as Kafka gives it."""

    def __init__(self, value: bytes, seq: int | None = None, key: bytes = b"e1", partition: int = 0) -> None:
        self._value, self._seq, self._key, self._partition = value, seq, key, partition

    def error(self) -> Any:
        return None

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> Any:
        return [] if self._seq is None else [("stream", b"s"), ("seq", str(self._seq).encode())]

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return 0


def value(rng: random.Random, engine_id: str = "e1", far: float = 0.0) -> bytes:
    return json.dumps({"engineId": engine_id, "rpm": rng.gauss(4000 + far, 10), "temperature": rng.gauss(300 + far, 2)}).encode()


class OfflineWorker(Worker):
    """Without its thread."""

    def start(self) -> None:
        pass


def test_repeats_and_bad_records_are_counted_and_change_nothing() -> None:
    worker, rng = Worker(Settings()), random.Random(1)
    for seq in range(100):
        record = Record(value(rng), seq)
        worker.take(record)
        worker.take(record)
    worker.take(Record(b"no"))
    assert worker.counts == {"scored": 100, "repeated": 100, "bad": 1}
    engine = worker.engines.get("e1")
    assert engine is not None and engine.readings == 100


def test_an_engine_that_moves_away_scores_higher_than_before() -> None:
    engines, rng = Engines(10, 50, 0.55), random.Random(2)
    before = after = 0.0
    for at in range(400):
        far = 40.0 if at >= 300 else 0.0
        reading = Reading("e", "", {"rpm": rng.gauss(4000 + far, 10), "temperature": rng.gauss(300 + far, 2)}, None, None, None)
        engine = engines.take(reading)
        assert 0.0 <= engine.score <= 1.0
        before = engine.smoothed if at == 299 else before
        after = max(after, engine.smoothed) if at >= 300 else after
    assert after > before + 0.1


def test_engines_are_bounded_and_the_quietest_goes() -> None:
    engines = Engines(3, 50, 0.55)
    for name in ("a", "b", "c", "a", "d"):
        engines.take(Reading(name, "", {"rpm": 1.0}, None, None, None))
    assert len(engines) == 3
    assert engines.get("b") is None and engines.get("a") is not None


def test_the_surface_answers_scores_and_health() -> None:
    worker, rng = OfflineWorker(Settings()), random.Random(3)
    for engine_id in ("e1", "e2"):
        for _ in range(60):
            worker.take(Record(value(rng, engine_id), key=engine_id.encode()))
    with TestClient(make_app(lambda: worker)) as client:
        listed = client.get("/scores").json()
        assert listed["total"] == 2 and {item["engineId"] for item in listed["items"]} == {"e1", "e2"}
        assert client.get("/scores/e1").json()["readings"] == 60
        assert client.get("/scores/nobody").status_code == 404
        assert client.get("/scores?limit=0").status_code == 422
        health = client.get("/healthz")
        assert health.status_code == 503, "its thread has not turned"
        assert health.json()["scored"] == 120 and health.json()["lastRecordAt"] is not None
