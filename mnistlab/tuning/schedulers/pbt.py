"""Population-based training (Jaderberg 2017): trials that do badly take up the weights of good ones and move on."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.schedulers.pbt import (
    _PBTTrialState,  # pyright: ignore[reportPrivateUsage] - what `on_trial_add` keeps, and Ray has no other name for it
)

from mnistlab.api import Choice, Int, Scalar
from mnistlab.experiment.points import closest, place, values
from mnistlab.experiment.space import Parameter, Space
from mnistlab.training.loop import optimizer_at
from mnistlab.tuning.history import NOTHING, Past
from mnistlab.tuning.schedulers.common import Wanted, resumed
from mnistlab.tuning.tune_compat import Unsaved

RESAMPLE = 0.25  # share of the changes that draw anew instead of moving nearby (Jaderberg 2017, section 4)
FACTORS = (0.8, 1.25)
COMPARISONS = 4  # in a training of that many epochs or more


def build(wanted: Wanted) -> TrialScheduler:
    """Return a population that is compared at regular intervals."""
    every = max(1, wanted.space.epochs // COMPARISONS)
    made = Population(wanted.space, wanted.spec.seed, wanted.stopping, perturbation_interval=every, **wanted.goal)
    made.take_up(wanted.past)
    return made


class Population(Unsaved, PopulationBasedTraining):
    """Population-based training (Jaderberg 2017) whose population our own Searcher proposes.

    Ray refuses to combine the two because a searcher would be told values of settings that have changed meanwhile;
    here the search is random (`spec` sees to it), so nothing is learnt from them. A trial that does badly takes up the
    weights and the plan of one that does well and goes on with changed optimizer settings.
    """

    def __init__(self, space: Space, seed: int, stopping: Callable[[], bool], **options: Any) -> None:
        """Change the optimizer parameters of `space`, with draws set by `seed`."""
        self._stopping = stopping
        super().__init__(custom_explore_fn=self._explore, log_config=False, quantile_fraction=0.25, **options)
        self._parameters = {p.path: p for branch in space.optimizers for p in branch.parameters}
        self._draw = random.Random(seed)
        self._past: Past = NOTHING
        self._reports = 0
        self._last_report: dict[Any, int] = {}  # for each trial: how many reports of all trials there had been by then
        random.seed(seed)  # Ray draws the one to copy from the module's generator

    def take_up(self, past: Past) -> None:
        """Know when the trials of earlier drivers that go on were last compared, and how they did."""
        self._past = past

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002 - Tune's signature
        """Take a trial into the population; one that has lost its worker takes its own place again."""
        for other in list(self._trial_state):
            if other.trial_id == resumed(trial):
                self._trial_state[trial] = self._trial_state.pop(other)
                self._last_report[trial] = self._last_report.pop(other, 0)
                return
        state = self._trial_state[trial] = _PBTTrialState(trial)
        before = self._past.trials.get(resumed(trial))
        if before is None:
            return
        last = max(before.history, default=0)
        compared = last - last % int(self._perturbation_interval)
        known = [epoch for epoch in before.history if epoch <= compared]  # with gaps, where it took up another's state
        if known:
            score = before.history[max(known)][str(self._metric)]
            state.last_score = score * (self._metric_op or 1)
            state.last_perturbation_time = state.last_train_time = compared

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide as Ray does, and remember who has reported last."""
        self._reports += 1
        self._last_report[trial] = self._reports
        return super().on_trial_result(tune_controller, trial, result)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return the waiting trial that has come least far, of several the one that has waited longest.

        By Ray's own choice, of several the first one, two that do badly train the same epoch for ever: each takes up
        the state of one that does well and waits, and so has come as far as that one. None once the search is to stop.
        """
        if self._stopping():
            return None
        waiting = [one for one in tune_controller.get_trials() if one.status in {Trial.PENDING, Trial.PAUSED}]
        return min(waiting, key=lambda one: (self._trained(one), self._last_report.get(one, 0)), default=None)

    def _trained(self, trial: Any) -> int:
        """Return at which epoch a trial was last compared."""
        return self._trial_state[trial].last_train_time

    def _explore(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the copied trial's task with changes to the optimizer settings that it has now, under `optimizer`.

        What says how the copied trial itself was resumed, and on what share of a device, is left out.
        """
        task = json.loads(config["task"])
        part = task.get("optimizer") or optimizer_at(task["plan"], math.inf)
        changed = {key: self._change(part["name"], key, value) for key, value in part["config"].items()}
        copied = {key: value for key, value in task.items() if key not in {"resumes", "room"}}
        return {**config, "task": json.dumps({**copied, "optimizer": {**part, "config": changed}}), "state": None}

    def _change(self, optimizer: str, key: str, value: Scalar) -> Scalar:
        parameter = self._parameters.get(f"optimizer.{optimizer}.{key}")
        if parameter is None:
            return value
        if self._draw.random() < RESAMPLE:
            return _sample(parameter, self._draw)
        return _neighbour(parameter, value, self._draw)


def _sample(parameter: Parameter, draw: random.Random) -> Scalar:
    domain, finite = parameter.domain, values(parameter.domain)
    if finite is not None:
        return draw.choice(finite)
    assert not isinstance(domain, Choice)
    u = draw.random()
    drawn = domain.low * (domain.high / domain.low) ** u if domain.log else domain.low + (domain.high - domain.low) * u
    return closest(domain, drawn)


def _neighbour(parameter: Parameter, value: Scalar, draw: random.Random) -> Scalar:
    """Return a value beside `value`: the one before or after it, or the number times one of `FACTORS`.

    At an end of the domain it may be the same value. An option that the domain does not hold has no neighbours.
    """
    domain, finite = parameter.domain, values(parameter.domain)
    if finite is not None:
        here = place(domain, value)
        if here is None:
            return draw.choice(finite)
        return finite[min(max(here + draw.choice((-1, 1)), 0), len(finite) - 1)]
    assert not isinstance(domain, Choice)
    factor = draw.choice(FACTORS)
    moved = closest(domain, float(value) * factor)
    if isinstance(domain, Int) and moved == value:  # a small number, which was rounded back
        moved = closest(domain, moved + (1 if factor > 1 else -1))
    return moved
