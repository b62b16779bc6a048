"""What workers are given: the task of a trial, and the trials that wait for another worker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import Trial

from mnistlab.tuning.history import PastTrial
from mnistlab.tuning.schedulers.halving import Rung


@dataclass(frozen=True)
class Waiting:
    """A trial that is to go on, told to Optuna as far as it has come.

    The scheduler has it under `key`; a worker gets its packed state by `state`; with `room` it gets all of a device.
    """

    one: PastTrial
    trial: Trial
    key: str
    state: object = None
    room: bool = False


def task_of(
    plan: Mapping[str, Any],
    seed: int,
    repeats: str,
    *,
    resumes: str = "",
    room: bool = False,
    away: Sequence[str] = (),
    rung: Rung | None = None,
    spent: float = 0.0,
) -> dict[str, Any]:
    """Return what a worker is given. One opaque string: Tune would look for its own words inside a plan.

    `spent` are the seconds that the trial's trainings at lower rungs took.
    """
    more = {"repeats": repeats, "resumes": resumes, "room": room, "away": list(away), "spent": spent}
    more |= {} if rung is None else {"rung": rung.number}
    more |= {} if rung is None or rung.last else {"budget": rung.budget}
    return {"task": json.dumps({"plan": plan, "seed": seed, **{key: value for key, value in more.items() if value}})}
