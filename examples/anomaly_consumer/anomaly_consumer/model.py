"""One online model for each engine: half-space trees over metrics that are scaled as they come.

Half-space trees: S. C. Tan, K. M. Ting, T. F. Liu, "Fast Anomaly Detection for Streaming Data", IJCAI 2011, as river has them. A
score lies within 0 to 1; 1 is as far from what was seen before as can be. An alert begins where the smoothed score passes the
threshold and is over where it has come back to half the way between the threshold and the engine's usual score.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from river import anomaly, compose, preprocessing

from .records import Reading

SMOOTHING = 0.1


def make_model(seed: int = 7) -> Any:
    """The model of one engine. Its size does not grow with the readings."""
    return compose.Pipeline(
        preprocessing.MinMaxScaler(),
        anomaly.HalfSpaceTrees(n_trees=10, height=6, window_size=50, seed=seed),
    )


@dataclass
class Engine:
    """What is known of one engine."""

    model: Any = field(default_factory=make_model)
    readings: int = 0
    score: float = 0.0
    smoothed: float = 0.0
    usual: float = 0.0
    alert: bool = False
    timestamp: str = ""

    def take(self, reading: Reading, warm_up: int, threshold: float) -> None:
        """Scores a reading by what came before it, then learns from it."""
        self.readings += 1
        self.timestamp = reading.timestamp
        if self.readings > warm_up:
            self.score = float(self.model.score_one(reading.metrics))
            rate = max(SMOOTHING, 1.0 / (self.readings - warm_up))
            self.smoothed += rate * (self.score - self.smoothed)
            if self.readings <= 2 * warm_up:
                self.usual = self.smoothed
            elif self.alert:
                self.alert = self.smoothed > (threshold + min(self.usual, threshold)) / 2
            else:
                self.alert = self.smoothed > threshold
        self.model.learn_one(reading.metrics)

    def as_json(self, engine_id: str) -> dict[str, object]:
        """The form of `GET /scores/{engineId}`."""
        return {
            "engineId": engine_id,
            "timestamp": self.timestamp,
            "readings": self.readings,
            "score": round(self.score, 6),
            "smoothed": round(self.smoothed, 6),
            "alert": self.alert,
        }


class Engines:
    """Engines, bounded in number: beyond it the one that has been quiet for longest is forgotten."""

    def __init__(self, most: int, warm_up: int, threshold: float) -> None:
        self._most = most
        self._warm_up = warm_up
        self._threshold = threshold
        self._engines: OrderedDict[str, Engine] = OrderedDict()

    def __len__(self) -> int:
        return len(self._engines)

    def take(self, reading: Reading) -> Engine:
        """Takes a reading into account."""
        engine = self._engines.get(reading.engine_id)
        if engine is None:
            engine = self._engines[reading.engine_id] = Engine()
            if len(self._engines) > self._most:
                self._engines.popitem(last=False)
        self._engines.move_to_end(reading.engine_id)
        engine.take(reading, self._warm_up, self._threshold)
        return engine

    def get(self, engine_id: str) -> Engine | None:
        """One engine."""
        return self._engines.get(engine_id)

    def worst(self, limit: int) -> list[dict[str, object]]:
        """Engines with the highest smoothed score first."""
        order = sorted(self._engines.items(), key=lambda item: (-item[1].smoothed, item[0]))
        return [engine.as_json(engine_id) for engine_id, engine in order[:limit]]
