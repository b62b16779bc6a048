"""Checking the files of checksummed lines: each line by itself, then the order of the events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnistlab import events
from mnistlab.store import CONFIRMATION, CONFIRMATION_SCHEMA, EVENTS, LEDGER, LEDGER_SCHEMA, refusal
from mnistlab.store.fsck.findings import Finding
from mnistlab.store.jsonl import decode_line

STREAMS: Mapping[str, str] = {EVENTS: events.SCHEMA, CONFIRMATION: CONFIRMATION_SCHEMA, LEDGER: LEDGER_SCHEMA}


@dataclass(frozen=True)
class Line:
    """A line that is whole: its number in the file (from 1) and its object."""

    number: int
    record: Mapping[str, Any]


def read_stream(run: Path, name: str) -> tuple[list[Line], list[Finding]]:
    """Return the whole lines of a file in STREAMS, and what is wrong with the others."""
    lines: list[Line] = []
    found: list[Finding] = []
    try:
        with (run / name).open("rb") as file:
            for number, content in enumerate(file, 1):
                record = decode_line(content)
                if not content.endswith(b"\n"):
                    found.append(_torn(name, number))
                if record is not None:
                    found += _of_other_format(name, number, record)
                    lines.append(Line(number, record))
                elif content.endswith(b"\n"):
                    said = "is damaged: its checksum is not that of what it holds; readers skip it"
                    found.append(Finding(level="fault", file=name, line=number, message=said))
    except FileNotFoundError:
        pass
    except OSError as error:
        found.append(Finding(level="fault", file=name, message=f"can't be read: {error.strerror}"))
    return lines, found


def _torn(name: str, number: int) -> Finding:
    said = "was not written to its end, as a writer that died leaves it; the next one mends it"
    return Finding(level="note", file=name, line=number, message=said, mend="tail")


def _of_other_format(name: str, number: int, record: Mapping[str, Any]) -> Iterator[Finding]:
    if why := refusal(record.get("schema"), STREAMS[name]):
        yield Finding(level="fault", file=name, line=number, message=why)


def order_faults(lines: list[Line]) -> Iterator[Finding]:
    """Yield where the events are not counted one by one, or their time goes back."""
    seq, t = 0, 0.0
    for line in lines:
        this, now = line.record.get("seq"), line.record.get("t")
        if not isinstance(this, int) or not isinstance(now, (int, float)):
            yield _fault(line, "has no seq or t")
            continue
        if this != seq + 1:
            yield _fault(line, f"seq is {this} after {seq}: {_gap(this, seq)}")
        if now < t - 0.0015:  # rounded to milliseconds, by each driver for itself
            yield _fault(line, f"t is {now} after {t}: the run's time can't go back")
        seq, t = this, float(now)
        if line.record.get("type") in events.EVENT_TYPES and events.from_json(line.record) is None:
            yield _fault(line, f"lacks keys of its type {line.record['type']!r}; readers skip it")


def _gap(this: int, seq: int) -> str:
    return f"{this - seq - 1} events are missing" if this > seq + 1 else "it must count up by one"


def _fault(line: Line, message: str) -> Finding:
    return Finding(level="fault", file=EVENTS, line=line.number, message=message)
