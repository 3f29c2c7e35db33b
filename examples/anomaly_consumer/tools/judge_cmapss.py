"""Judges the model on NASA C-MAPSS: `python tools/judge_cmapss.py DIR/train_FD001.txt`.

Columns are mapped as `belayd simulate --format cmapss` maps them; alerts are judged as `cargo bench --bench anomaly` does. The
threshold is chosen on the first half of the engines, by the largest share of engines warned at no more than 10 false alarms a 1,000
earlier cycles, and judged on the other half.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anomaly_consumer.model import Engine
from anomaly_consumer.records import Reading

WINDOW = 30


def to_metrics(numbers: list[float]) -> dict[str, float]:
    """One line as belayd maps it; the cycle is a counter and is left out, as it says nothing of the engine's state."""
    sensors = numbers[5:]
    metrics = {f"setting{n + 1}": numbers[2 + n] for n in range(3)}
    metrics |= {f"s{n}": sensors[n - 1] for n in range(1, 22) if n not in (7, 9)}
    metrics["temperature"] = (sensors[3] - 491.67) * 5 / 9
    metrics["rpm"] = sensors[8]
    metrics["pressure"] = sensors[6]
    metrics["fuelFlow"] = sensors[11] * sensors[10]
    return metrics


def smoothed_scores(path: Path, warm_up: int) -> list[list[float]]:
    """The smoothed score after each cycle of each engine, each engine in order and with a model of its own."""
    engines: dict[int, Engine] = {}
    scores: dict[int, list[float]] = {}
    for line in path.read_text().splitlines():
        numbers = [float(word) for word in line.split()]
        unit = int(numbers[0])
        engine = engines.setdefault(unit, Engine())
        engine.take(Reading(str(unit), "", to_metrics(numbers), None, None, None), warm_up, 2.0)
        scores.setdefault(unit, []).append(engine.smoothed if engine.readings > 2 * warm_up else 0.0)
    return [scores[unit] for unit in sorted(scores)]


def judge(lives: list[list[float]], threshold: float) -> tuple[float, float, float, float]:
    """Warned, warned by an alert that began in the window, false starts and open cycles a 1,000 earlier cycles."""
    loose = strict = false = early = early_open = 0
    for life in lives:
        is_open, starts, opens = False, [], []
        for at, score in enumerate(life):
            was = is_open
            is_open = score > (threshold * 0.9 if is_open else threshold)
            if is_open and not was:
                starts.append(at)
            opens.append(is_open)
        end = len(life) - WINDOW
        early += end
        false += sum(at < end for at in starts)
        early_open += sum(opens[:end])
        strict += any(at >= end for at in starts)
        loose += any(opens[end:])
    return loose / len(lives), strict / len(lives), 1000 * false / early, 1000 * early_open / early


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--warm-up", type=int, default=50)
    args = parser.parse_args()
    lives = smoothed_scores(args.file, args.warm_up)
    tune, check = lives[: len(lives) // 2], lives[len(lives) // 2 :]
    candidates = [n / 200 for n in range(100, 200)]
    best = max(candidates, key=lambda at: (judge(tune, at)[0] if judge(tune, at)[2] <= 10 else -1.0, judge(tune, at)[1], at))
    for name, half, threshold in (
        ("tuned on", tune, best),
        ("judged on", check, best),
        ("judged on, default threshold", check, 0.55),
    ):
        loose, strict, false, early_open = judge(half, threshold)
        print(
            f"{name}: threshold {threshold:.3f}, warned {loose:.0%}, strict {strict:.0%}, "
            f"false starts {false:.1f} and open cycles {early_open:.0f} a 1,000 earlier cycles"
        )


if __name__ == "__main__":
    main()
