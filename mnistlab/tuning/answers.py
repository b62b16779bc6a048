"""What a task yields (see `tasks`): a module of its own, so that a worker need not import what the driver does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What a task yields on its way."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a task yields at its end. A failure has a `cause` and a `message`; `log` is what was printed on the way."""

    log: str = ""
    cause: str = ""
    message: str = ""
