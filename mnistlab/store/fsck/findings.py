"""What a check of a run directory finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

SCHEMA = "mnistlab.fsck/1"

Level = Literal["fault", "note"]
"""Something is damaged, missing or contradicts something else; or what a writer that died leaves, at no cost."""

Mend = Literal["", "tail", "remove", "rebuild", "tell", "quarantine"]
"""What a repair does about it: mend a torn tail, remove a temporary file, write a result anew from the events, write
the event that a result lacks, move away what can't be read; "" where it can do nothing without loss or guessing."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found: in which file (relative to the run directory), in which line (from 1; 0 for none)."""

    level: Level
    file: str
    message: str
    line: int = 0
    mend: Mend = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{self.level}: {place}: {self.message}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was looked at, what was found, and who drives the run ("" where nobody does)."""

    run: str
    findings: tuple[Finding, ...]
    files: int
    events: int
    results: int
    weights: int
    holder: str = ""

    @property
    def sound(self) -> bool:
        """Return whether there is no fault."""
        return not any(one.level == "fault" for one in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {"schema": SCHEMA, "sound": self.sound, **asdict(self)}
