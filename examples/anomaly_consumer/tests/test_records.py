"""Records, repeats and settings: no broker needed."""

import json

import pytest

from anomaly_consumer.records import BadRecord, Reading, Seen, parse
from anomaly_consumer.settings import Settings, SettingsError

ROW = {
    "engineId": "e1",
    "timestamp": "2026-01-01T00:00:00.000000Z",
    "status": "running",
    "temperature": 300.5,
    "rpm": None,
    "pressure": 28,
    "fuelFlow": 1.25,
    "extra": {"oil": 3.5},
    "createdAt": "2026-01-01T00:00:01.000000Z",
    "updatedAt": None,
}


def test_a_row_is_read_with_its_number_and_its_further_metrics() -> None:
    headers = [("stream", b"s1"), ("seq", b"42"), ("deliveryId", b"d1")]
    reading = parse(b"e1", json.dumps(ROW).encode(), headers)
    assert reading.metrics == {"fuelFlow": 1.25, "oil": 3.5, "pressure": 28.0, "temperature": 300.5}
    assert (reading.engine_id, reading.stream, reading.seq, reading.delivery_id) == ("e1", "s1", 42, "d1")


def test_further_metrics_may_stand_beside_the_named_ones_and_the_key_may_name_the_engine() -> None:
    reading = parse(b"e9", b'{"temperature": 1, "oil": 2, "ok": true}', None)
    assert (reading.engine_id, reading.metrics, reading.seq) == ("e9", {"oil": 2.0, "temperature": 1.0}, None)


@pytest.mark.parametrize("value", [None, b"", b"[1]", b"{", b'{"engineId": "e"}', b'{"rpm": NaN, "engineId": "e"}', b'{"rpm": 1}'])
def test_what_is_no_reading_is_told(value: bytes | None) -> None:
    with pytest.raises(BadRecord):
        parse(None, value, [])


def reading(stream: str | None, seq: int | None, engine_id: str = "e") -> Reading:
    return Reading(engine_id, "", {"rpm": 1.0}, stream, seq, None)


def test_a_number_that_was_seen_is_a_repeat_of_its_stream_and_engine_alone() -> None:
    seen = Seen(10)
    taken = [seen.is_repeat(reading("s", seq)) for seq in (1, 2, 2, 1, 5, 3)]
    assert taken == [False, False, True, True, False, True]
    assert not seen.is_repeat(reading("s", 3, "other"))
    assert not seen.is_repeat(reading("t", 3))
    assert not seen.is_repeat(reading(None, 3))


def test_what_is_remembered_of_streams_is_bounded() -> None:
    seen = Seen(3)
    for stream in range(10):
        seen.is_repeat(reading(str(stream), 1))
    assert len(seen) == 3


def test_settings_come_from_the_environment_and_wrong_ones_are_told() -> None:
    assert Settings.from_env({}) == Settings()
    assert Settings.from_env({"ANOMALY_TOPIC": "x", "ANOMALY_WARM_UP": "20"}).warm_up == 20
    for env in ({"ANOMALY_TOPIC": " "}, {"ANOMALY_WARM_UP": "x"}, {"ANOMALY_WARM_UP": "20.5"}, {"ANOMALY_THRESHOLD": "2"}):
        with pytest.raises(SettingsError):
            Settings.from_env(env)
