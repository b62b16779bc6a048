"""What a task yields (see `tasks`): a module of its own, so that a worker need not import what the driver does."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """What a task yields on its way. `place` is where it runs (see `leaving.place_here`)."""

    place: str = field(default="", kw_only=True)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a task yields at its end. A failure has a `cause` and a `message`; `log` is what was printed on the way.

    `place` is where it ran.
    """

    log: str = ""
    cause: str = ""
    message: str = ""
    place: str = ""
