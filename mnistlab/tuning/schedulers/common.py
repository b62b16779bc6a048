"""What schedulers share: what they are made for, and how a fresh one is told what earlier drivers have done."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import TrialScheduler

from mnistlab.events import Emit
from mnistlab.experiment.space import Space
from mnistlab.experiment.spec import ExperimentSpec
from mnistlab.store.metric import Metric
from mnistlab.tuning.history import NOTHING, Past

TIME = "epoch"  # under which a report says how far its trial has come


@dataclass(frozen=True)
class Wanted:
    """What a scheduler is made for: its full budget is `space.epochs`. Once `stopping()`, nothing goes on.

    What is decided at the rungs of successive halving is emitted. It goes on from the `past` of the run.
    """

    spec: ExperimentSpec
    space: Space
    stopping: Callable[[], bool]
    emit: Emit = lambda _: None
    past: Past = NOTHING

    @property
    def goal(self) -> dict[str, Any]:
        """Return what Ray's schedulers call it: by which metric trials are compared, and after which time."""
        metric = self.spec.search.metric[0]
        return {"metric": metric, "mode": Metric(metric).mode, "time_attr": TIME}

    @property
    def grace(self) -> int:
        """Return the epoch before which no trial is stopped.

        Unless the experiment names it, the learning rate falls by then: no built-in schedule rises for more than half
        of a training. Before that, the order of trials says little of the end (docs/decisions/0034).
        """
        return self.spec.search.grace_epochs or max(1, math.ceil(self.space.epochs / 2))


@dataclass(frozen=True, eq=False)
class _StandIn:
    """What stands in a scheduler's books for a trial of an earlier driver."""

    trial_id: str


class _NoController:
    """What a scheduler may ask of Tune while it is told of the past: there was nobody waiting."""

    def get_live_trials(self) -> list[Any]:
        """Return none."""
        return []


def resumed(trial: Any) -> str:
    """Return under which name a trial is known that goes on, or "" where it is new.

    That is Tune's name for it while it had the worker that it has lost, or ours where an earlier driver had it.
    """
    return "" if isinstance(trial, _StandIn) else json.loads(trial.config["task"]).get("resumes", "")


def replay(scheduler: TrialScheduler, past: Past) -> None:
    """Tell a fresh scheduler what Tune told those before it, in the same order."""
    stand_ins: dict[str, Any] = {}
    nobody: Any = _NoController()
    for step in past.steps:
        one = past.trials[step.trial]
        trial = stand_ins.setdefault(one.name, _StandIn(one.name))
        last = max(one.history, default=0)
        result = {TIME: step.epoch or last, **one.history.get(step.epoch or last, {})}
        if step.kind == "started":
            scheduler.on_trial_add(nobody, trial)
        elif step.kind == "ended" and one.state != "failed":
            scheduler.on_trial_complete(nobody, trial, result)
        elif step.kind == "epoch" and not (one.state == "complete" and step.epoch == last):  # that one ends it
            scheduler.on_trial_result(nobody, trial, result)
