"""A Kafka record as a reading: the row that `GET /api/readings` gives, with its stream and number in the headers."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

NOT_METRICS = frozenset({"engineId", "timestamp", "status", "createdAt", "updatedAt", "extra"})
METRICS_MAX = 36


class BadRecord(ValueError):
    """A record that is no reading; it is counted and passed over."""


@dataclass(frozen=True)
class Reading:
    """What the model sees of a record."""

    engine_id: str
    timestamp: str
    metrics: dict[str, float]
    stream: str | None
    seq: int | None
    delivery_id: str | None


def parse(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]] | None) -> Reading:
    """Reads one record. Further metrics may stand under "extra" or beside the named ones."""
    try:
        row = json.loads(value or b"")
    except ValueError as error:
        raise BadRecord(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise BadRecord("not a JSON object")
    engine_id = row.get("engineId") or (key or b"").decode("utf-8", "replace")
    if not isinstance(engine_id, str) or not 1 <= len(engine_id) <= 64:
        raise BadRecord("no engineId")
    extra = row.get("extra")
    fields = {name: number for name, number in row.items() if name not in NOT_METRICS}
    if isinstance(extra, dict):
        fields |= extra
    metrics = {name: float(number) for name, number in sorted(fields.items()) if _is_number(number)}
    if not metrics or len(metrics) > METRICS_MAX:
        raise BadRecord(f"{len(metrics)} metrics; 1 to {METRICS_MAX} are expected")
    named = {name: text.decode("utf-8", "replace") for name, text in headers or () if text is not None}
    seq = named.get("seq", "")
    return Reading(
        engine_id=engine_id,
        timestamp=str(row.get("timestamp", "")),
        metrics=metrics,
        stream=named.get("stream"),
        seq=int(seq) if seq.isdecimal() and len(seq) <= 19 else None,
        delivery_id=named.get("deliveryId"),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)


class Seen:
    """Which (stream, seq) have been taken: for each stream and engine the highest number.

    belayd gives numbers in rising order and keeps that order for each engine, so a number not above the engine's highest is a
    repeat. Between engines nothing is promised. Bounded: beyond `most` the pair that has been quiet for longest is forgotten.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._highest: OrderedDict[tuple[str, str], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._highest)

    def is_repeat(self, reading: Reading) -> bool:
        """Whether the reading was taken before; if not, it is from now on. Without numbers nothing can be told."""
        if reading.stream is None or reading.seq is None:
            return False
        key = (reading.stream, reading.engine_id)
        highest = self._highest.get(key)
        if highest is not None and reading.seq <= highest:
            return True
        self._highest[key] = reading.seq
        self._highest.move_to_end(key)
        if len(self._highest) > self._most:
            self._highest.popitem(last=False)
        return False
