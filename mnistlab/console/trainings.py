"""What a view knows of single trainings: those at work, those that have ended, the trainings of a confirmation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mnistlab import events as ev


@dataclass(frozen=True)
class RunningTrial:
    """A trial at work; `started` is in seconds of the run, `value` the run's metric at its last epoch.

    One that is `waiting` has lost its worker, and goes on after `epoch` as soon as another one is free.
    """

    trial: str
    label: str
    started: float
    epoch: int = 0
    epochs: int = 0
    value: float | None = None
    images_per_second: float | None = None
    curve: tuple[float, ...] = ()  # the metric at the last epochs
    reported: float = 0.0  # when its last epoch ended
    trained: float = 0.0  # seconds that its epochs took, without what came before the first of them
    plan: ev.Plan = field(default_factory=dict[str, object])
    waiting: bool = False


@dataclass(frozen=True)
class Ended:
    """A trial that has ended lately: in which state, after how many epochs, with which value of the run's metric."""

    trial: str
    state: str  # complete, pruned, interrupted or failed; paused: it waits at a rung
    label: str
    epoch: int
    value: float | None
    seconds: float


@dataclass(frozen=True)
class Scored:
    """A trial that has used its full budget, with the run's metric; `t` and `ended` tell when it was found."""

    trial: str
    label: str
    value: float
    t: float = 0.0
    ended: int = 0
    seconds: float = 0.0  # how long it took


@dataclass(frozen=True)
class Replicate:
    """One (plan, seed) of the confirmation; `value` is the run's metric at its last epoch."""

    state: Literal["running", "done", "failed"]
    started: float
    epoch: int = 0
    epochs: int = 0
    value: float | None = None
    reported: float = 0.0  # when its last epoch ended
    trained: float = 0.0  # seconds that its epochs took


@dataclass(frozen=True)
class Failure:
    """The newest failure, in the plugin's own words; `log` is relative to the run directory."""

    who: str
    cause: str
    message: str
    log: str = ""


@dataclass(frozen=True)
class Duration:
    """How long a trial took that has ended, and whether it used its full budget."""

    seconds: float
    full: bool


def files_of(plan: Mapping[str, Any]) -> list[str]:
    """Return the single files among a plan's plugins, one at most for each kind of record."""
    parts = [plan.get("model"), plan.get("optimizer"), *(plan.get("transforms") or ())]
    names = [str(part.get("distribution", "")) for part in parts if part]
    return list(dict.fromkeys(name for name in names if name.endswith(".py")))
