"""What a view knows of single trainings: those at work, those that have ended, the trainings of a confirmation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mnistlab import events as ev
from mnistlab.store.ends import TrialEnd


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
    budget: float | None = None  # epochs, where trials are trained anew at each rung


@dataclass(frozen=True)
class Ended:
    """A trial that has ended lately: in which state, after how many epochs, with which value of the run's metric."""

    trial: str
    state: str  # complete, pruned, interrupted or failed; paused: it waits at a rung
    label: str
    epoch: float  # 0.5 where that was half of the images, once
    value: float | None
    seconds: float


def epochs_of(event: TrialEnd) -> float:
    """Return how many epochs a trial's last training had: 0.5 where that was half of the images, once."""
    told = getattr(event, "epochs", None)
    return event.epoch if told is None else told


@dataclass(frozen=True)
class Scored:
    """A trial that has used its full budget, with the run's metric; `t` and `ended` tell when it was found."""

    trial: str
    label: str
    value: float
    t: float = 0.0
    ended: int = 0
    seconds: float = 0.0  # how long its last training took


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
    """How long a training of a trial took, and whether it had the full budget.

    `budget` is how many epochs it had, where trials are trained anew at each rung.
    """

    seconds: float
    full: bool
    budget: float | None = None


def files_of(plan: Mapping[str, Any]) -> list[str]:
    """Return the single files among a plan's plugins, one at most for each kind of record."""
    parts = [plan.get("model"), plan.get("optimizer"), *(plan.get("transforms") or ())]
    names = [str(part.get("distribution", "")) for part in parts if part]
    return list(dict.fromkeys(name for name in names if name.endswith(".py")))
