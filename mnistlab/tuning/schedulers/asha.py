"""Asynchronous successive halving (L. Li and others 2020): at each rung all but the best are stopped for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from mnistlab import events
from mnistlab.events import Emit
from mnistlab.tuning.history import Past
from mnistlab.tuning.schedulers.common import Wanted, replay, resumed
from mnistlab.tuning.tune_compat import Unsaved

FACTOR = 3  # one trial in so many goes on, unless the experiment says otherwise


def build(wanted: Wanted) -> TrialScheduler:
    """Return it with one bracket, so that all trials meet at the same rungs."""
    return in_brackets(wanted, lambda _span, _factor: 1)


def in_brackets(wanted: Wanted, count: Callable[[float, int], int]) -> TrialScheduler:
    """Return it with as many brackets as `count(span, factor)` says, where the longest training is `span` graces."""
    grace, factor = wanted.grace, wanted.spec.search.reduction_factor or FACTOR
    longest = max(wanted.space.epochs, grace)
    made = AsyncHalving(
        wanted.emit,
        max_t=longest,
        grace_period=grace,
        reduction_factor=factor,
        brackets=count(longest / grace, factor),
        **wanted.goal,
    )
    made.take_up(wanted.past)
    return made


class AsyncHalving(Unsaved, AsyncHyperBandScheduler):
    """Asynchronous successive halving that tells what it decides at each rung."""

    def __init__(self, emit: Emit, **options: Any) -> None:
        """Emit a RungDecided for every trial that comes to a rung."""
        super().__init__(**options)
        self._emit = emit
        self._stopped: Counter[tuple[int, float]] = Counter()
        self._told: set[tuple[int, float, int]] = set()  # by earlier drivers: bracket, epoch, trials that came there

    def take_up(self, past: Past) -> None:
        """Fill brackets and rungs as earlier drivers of the run have; what they have told is not told again."""
        self._told = set(past.rungs)
        replay(self, past)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Give a trial its bracket: a new one by lot, one that goes on the one it had, with what is recorded of it."""
        name = resumed(trial)
        if name not in self._trial_info:
            super().on_trial_add(tune_controller, trial)
            return
        bracket: Any = self._trial_info.pop(name)
        self._trial_info[trial.trial_id] = bracket
        for _, recorded in bracket._rungs:
            if name in recorded:
                recorded[trial.trial_id] = recorded.pop(name)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide as Ray does. A rung has decided when it has recorded one trial more than before."""
        number, bracket = self._bracket_of(trial)
        before = [len(recorded) for _, recorded in bracket._rungs]
        decision = super().on_trial_result(tune_controller, trial, result)
        for (epoch, recorded), count in zip(bracket._rungs, before, strict=True):
            if len(recorded) > count:
                self._stopped[number, epoch] += decision == TrialScheduler.STOP
                self._tell(number, epoch, len(recorded), float(bracket.cutoff(recorded)))
        return decision

    def _bracket_of(self, trial: Any) -> tuple[int, Any]:
        bracket = self._trial_info[trial.trial_id]
        return self._brackets.index(bracket), bracket

    def _tell(self, bracket: int, epoch: float, reached: int, cutoff: float) -> None:
        kept, value = reached - self._stopped[bracket, epoch], cutoff * (self._metric_op or 1)
        rung = events.RungDecided(bracket=bracket, epoch=round(epoch), reached=reached, kept=kept, cutoff=value)
        if (rung.bracket, rung.epoch, rung.reached) not in self._told:
            self._emit(rung)
