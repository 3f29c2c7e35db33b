"""Configuration: environment variables alone, checked once at the start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


class SettingsError(ValueError):
    """A variable that cannot be used; the text says which and what to write."""


@dataclass(frozen=True)
class Settings:
    """What the consumer works by."""

    bootstrap: str = "127.0.0.1:9092"
    topic: str = "engine"
    group: str = "anomaly-consumer"
    max_engines: int = 10_000
    warm_up: int = 50
    threshold: float = 0.55
    stale_after_s: float = 60.0

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Reads ANOMALY_BOOTSTRAP, ANOMALY_TOPIC and so on; what is left out has its default."""
        return cls(
            bootstrap=_text(env, "ANOMALY_BOOTSTRAP", cls.bootstrap),
            topic=_text(env, "ANOMALY_TOPIC", cls.topic),
            group=_text(env, "ANOMALY_GROUP", cls.group),
            max_engines=_whole(env, "ANOMALY_MAX_ENGINES", cls.max_engines, 1, 1_000_000),
            warm_up=_whole(env, "ANOMALY_WARM_UP", cls.warm_up, 10, 10_000),
            threshold=_number(env, "ANOMALY_THRESHOLD", cls.threshold, 0.0, 1.0),
            stale_after_s=_number(env, "ANOMALY_STALE_AFTER_S", cls.stale_after_s, 1.0, 86_400.0),
        )


def _text(env: Mapping[str, str], name: str, default: str) -> str:
    value = env.get(name, default).strip()
    if not value:
        raise SettingsError(f"{name} is empty: remove it or give it a value")
    return value


def _number(env: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = env.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        raise SettingsError(f"{name}={text!r} is no number") from None
    if not low <= value <= high:
        raise SettingsError(f"{name}={text} is out of range: {low} to {high}")
    return value


def _whole(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    value = _number(env, name, default, low, high)
    if value != int(value):
        raise SettingsError(f"{name}={value} is no whole number")
    return int(value)
