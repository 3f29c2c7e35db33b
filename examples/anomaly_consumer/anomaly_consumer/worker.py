"""The thread that reads Kafka and feeds the models.

Offsets are committed only after a record was scored; what is read again after a crash or a rebalance is told by (stream, seq). The
models live in memory: after a restart they learn anew from what comes.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, TopicPartition

from .model import Engines
from .records import BadRecord, Seen, parse
from .settings import Settings

log = logging.getLogger("anomaly_consumer")

COMMIT_EVERY_S = 2.0
LAG_EVERY_S = 5.0
BATCH = 200


class Message(Protocol):
    """What is used of a Kafka message."""

    def error(self) -> Any: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Any: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...


class Worker:
    """Owns the consumer and everything that is learned; the web side reads under the lock."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lock = threading.Lock()
        self.engines = Engines(settings.max_engines, settings.warm_up, settings.threshold)
        self.seen = Seen(2 * settings.max_engines)
        self.counts = {"scored": 0, "repeated": 0, "bad": 0}
        self.assigned: list[int] = []
        self.lag: dict[int, int] = {}
        self.last_record_at: float | None = None
        self.last_turn_at: float | None = None
        self.failure: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 15.0) -> None:
        """Scores what is in hand, commits, leaves the group."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def take(self, message: Message) -> None:
        """Takes one record into account. A record that is no reading is counted, never fatal."""
        try:
            reading = parse(message.key(), message.value(), message.headers())
        except BadRecord as error:
            with self.lock:
                self.counts["bad"] += 1
            log.warning("partition=%s offset=%s passed over: %s", message.partition(), message.offset(), error)
            return
        with self.lock:
            self.last_record_at = time.time()
            if self.seen.is_repeat(reading):
                self.counts["repeated"] += 1
                return
            was = self.engines.get(reading.engine_id)
            before = was is not None and was.alert
            engine = self.engines.take(reading)
            self.counts["scored"] += 1
        if engine.alert != before:
            word = "begins" if engine.alert else "is over"
            log.warning("engineId=%s smoothed=%.3f alert %s", reading.engine_id, engine.smoothed, word)

    def health(self) -> tuple[bool, dict[str, object]]:
        """Whether the loop turns, and what it sees."""
        with self.lock:
            turns = self.last_turn_at is not None and time.time() - self.last_turn_at < self.settings.stale_after_s
            return turns and self.failure is None, {
                "assignedPartitions": sorted(self.assigned),
                "lag": sum(self.lag.values()) if self.lag else None,
                "lagByPartition": {str(partition): lag for partition, lag in sorted(self.lag.items())},
                "lastRecordAt": self.last_record_at,
                "engines": len(self.engines),
                "numbered": len(self.seen),
                "error": self.failure,
                **self.counts,
            }

    def _run(self) -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.bootstrap,
                "group.id": self.settings.group,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "queued.max.messages.kbytes": 16_384,
            }
        )
        consumer.subscribe([self.settings.topic], on_assign=self._assign, on_revoke=self._revoke)
        try:
            self._loop(consumer)
        except Exception as error:
            # Told by /healthz; whoever runs this process starts it again.
            log.exception("the consumer stopped")
            with self.lock:
                self.failure = str(error)
        finally:
            consumer.close()

    def _loop(self, consumer: Consumer) -> None:
        committed_at = lag_at = time.monotonic()
        dirty = False
        while not self._stopping.is_set():
            messages = consumer.consume(BATCH, timeout=0.5)
            for message in messages:
                error = message.error()
                if error is None:
                    self.take(message)
                    dirty = True
                elif error.fatal():
                    raise RuntimeError(str(error))
                else:
                    log.warning("Kafka: %s", error)
            now = time.monotonic()
            with self.lock:
                self.last_turn_at = time.time()
            if dirty and now - committed_at >= COMMIT_EVERY_S:
                dirty = not self._commit(consumer)
                committed_at = now
            if now - lag_at >= LAG_EVERY_S:
                self._measure_lag(consumer)
                lag_at = now
        if dirty:
            self._commit(consumer)

    def _commit(self, consumer: Consumer) -> bool:
        try:
            consumer.commit(asynchronous=False)
        except Exception as error:
            # The records are scored; a repeat after a crash is told by its number.
            log.warning("offsets not committed, tried again: %s", error)
            return False
        return True

    def _measure_lag(self, consumer: Consumer) -> None:
        with self.lock:
            partitions = list(self.assigned)
        lag = {}
        try:
            for partition in partitions:
                here = TopicPartition(self.settings.topic, partition)
                low, high = consumer.get_watermark_offsets(here, timeout=2.0)
                position = consumer.position([here])[0].offset
                lag[partition] = max(high - (position if position >= 0 else low), 0)
        except Exception as error:
            log.warning("lag unknown: %s", error)
            return
        with self.lock:
            self.lag = lag

    def _assign(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        with self.lock:
            self.assigned = [partition.partition for partition in partitions]
        log.info("assigned partitions %s", self.assigned)

    def _revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._commit_quietly(consumer)
        gone = {partition.partition for partition in partitions}
        with self.lock:
            self.assigned = [partition for partition in self.assigned if partition not in gone]
            self.lag = {partition: lag for partition, lag in self.lag.items() if partition not in gone}

    def _commit_quietly(self, consumer: Consumer) -> None:
        try:
            consumer.commit(asynchronous=False)
        except Exception as error:
            if getattr(error.args[0] if error.args else None, "code", lambda: None)() != KafkaError._NO_OFFSET:
                log.warning("offsets not committed at a rebalance: %s", error)
