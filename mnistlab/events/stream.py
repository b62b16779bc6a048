"""An event with its place in the stream, and as the JSON object that it is on disk and on a pipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from mnistlab.events.kinds import EVENT_TYPES, Event

SCHEMA = "mnistlab.event/1"


@dataclass(frozen=True, kw_only=True)
class Stamped:
    """An event with its place in the stream: `seq` counts from 1, `time` is UTC, `t` monotonic seconds of the run."""

    seq: int
    time: datetime
    t: float
    event: Event


Emit = Callable[[Event], None]
"""What the search calls to say that something happened. Only the driver holds one."""


def to_json(stamped: Stamped) -> dict[str, Any]:
    """Return the flat JSON object of an event, without its checksum."""
    return {
        "schema": SCHEMA,
        "seq": stamped.seq,
        "type": stamped.event.type,
        "time": stamped.time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "t": round(stamped.t, 3),
        **asdict(stamped.event),
    }


def from_json(record: Mapping[str, Any]) -> Stamped | None:
    """Return the event of a JSON object, or None where schema or type are unknown or a key that it needs is missing."""
    kind = EVENT_TYPES.get(str(record.get("type")))
    if kind is None or record.get("schema") != SCHEMA:
        return None
    known = {f.name for f in fields(kind)}
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in record.items() if key in known}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    try:
        event = kind(**values)
        time = datetime.fromisoformat(str(record["time"]))
        return Stamped(seq=int(record["seq"]), time=time, t=float(record["t"]), event=event)
    except (KeyError, OverflowError, TypeError, ValueError):
        return None
