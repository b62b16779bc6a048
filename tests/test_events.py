from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from mnistlab import events
from mnistlab.events import EVENT_TYPES, SCHEMA, Event, Stamped, from_json, to_json

WHEN = datetime(2026, 11, 22, 19, 0, 0, 123_000, tzinfo=UTC)

# A value for each kind of field that events have, told by the annotation.
SAMPLES: dict[str, Any] = {
    "str": 'a "word" with\nÜ and \u2028',
    "int": 7,
    "float": 0.1,
    "bool": True,
    "Metrics": {"val_accuracy": 0.99, "seconds": 1e-9},
    "Plan": {"model": {"name": "cnn", "config": {"depth": 3, "on": True}}, "transforms": [{"name": "shift"}]},
    "Mapping[str, str]": {"mnistlab": "0.1"},
    "Mapping[str, int]": {"complete": 3},
    "Mapping[str, Any]": {"search.trials": 20, "search.time_budget": "2h"},
    "tuple[str, ...]": ("0001", "0002"),
    "tuple[float, ...]": (0.5, 2.0, 8.0),
    "tuple[int, ...]": (24, 6, 4),
    "float | None": 0.25,
    "int | None": 1 << 34,
    "tuple[Mapping[str, Any], ...]": ({"index": 0, "name": "A100", "use": 0.5},),
}


def sample(kind: type[Event]) -> Event:
    return kind(**{field.name: SAMPLES[str(field.type)] for field in fields(kind)})


def stamped(event: Event) -> Stamped:
    return Stamped(seq=3, time=WHEN, t=1.25, event=event)


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_every_event_comes_back_from_a_line_of_json(kind):
    one = stamped(sample(kind))
    assert from_json(json.loads(json.dumps(to_json(one)))) == one


def test_every_event_class_is_known_by_its_word():
    assert set(EVENT_TYPES.values()) == set(Event.__subclasses__())
    assert "" not in EVENT_TYPES


def test_the_form_of_a_line():
    assert to_json(stamped(events.Warned(message="hot"))) == {
        "schema": "mnistlab.event/1",
        "seq": 3,
        "type": "warning",
        "time": "2026-11-22T19:00:00.123Z",
        "t": 1.25,
        "message": "hot",
    }


def test_times_are_written_in_utc():
    local = WHEN.astimezone(timezone(timedelta(hours=5)))
    line = to_json(Stamped(seq=1, time=local, t=0.0, event=events.Warned(message="")))
    assert line["time"] == "2026-11-22T19:00:00.123Z"


GOOD = {"schema": SCHEMA, "seq": 1, "type": "warning", "time": "2026-11-22T19:00:00Z", "t": 0.5, "message": "m"}


def test_keys_of_a_newer_writer_are_skipped():
    read = from_json(GOOD | {"colour": "red"})
    assert read is not None
    assert read.event == events.Warned(message="m")


@pytest.mark.parametrize(
    "change",
    [
        {"type": "from_the_future"},
        {"type": None},
        {"schema": "mnistlab.event/2"},
        {"seq": "x"},
        {"seq": float("inf")},
        {"time": "yesterday"},
        {"t": None},
    ],
)
def test_what_can_not_be_read_is_skipped(change):
    assert from_json(GOOD | change) is None


@pytest.mark.parametrize("key", GOOD)
def test_a_record_that_lacks_a_key_is_skipped(key):
    assert from_json({k: v for k, v in GOOD.items() if k != key}) is None
