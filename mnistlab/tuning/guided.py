"""Known plans and plans near the defaults, beside those that a sampler proposes.

A default is its author's guess at what is good. The idea is PriorBand's (N. Mallik and others 2023, arXiv:2306.12370):
draw near the guess with a probability that fades as evidence comes. Here the evidence is who does better, so that a bad
guess costs little: known plans go on only while they beat the sampler's own, and plans near the defaults by their share
among those that did well.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from mnistlab.tuning.scores import scores

GOOD = 1 / 3  # share of the trials that count as good
SPREAD = 0.15  # standard deviation of a setting near its default, as a share of its range
STAYS = 0.7  # probability that a choice stays at its default
EVIDENCE = 4.0  # one known plan for each of the sampler's own; this times as many with each of these that is worse


class Guided(BaseSampler):
    """Proposes known plans, then plans near the defaults, or lets another sampler propose, by who has done better."""

    def __init__(
        self,
        inner: BaseSampler,
        searched: Mapping[str, BaseDistribution],
        defaults: Mapping[str, Any],
        seed: int,
        has_ended: Callable[[FrozenTrial], bool],
        known: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Ask `inner` for the others. `defaults` are drawn near to; a choice between branches has none, and is free.

        `known` are plans, the first of which somebody else enqueues.
        """
        self._inner, self._searched, self._defaults, self._ended = inner, searched, defaults, has_ended
        self._draw = random.Random(seed)
        self._known = [dict(plan) for plan in known]
        self._looks: dict[int, dict[str, Any]] = {}  # the known plan that a trial was to have
        self._near: set[int] = set()
        self._plan: dict[str, Any] | None = None  # that is proposed next, None where `inner` proposes

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Decide who proposes this trial, and return what that one proposes."""
        self._plan = None if "fixed_params" in trial.system_attrs else self._proposal(study, trial.number)
        return self._inner.infer_relative_search_space(study, trial) if self._plan is None else dict(self._searched)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the plan."""
        return self._inner.sample_relative(study, trial, search_space) if self._plan is None else self._plan

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Let the other sampler draw what neither has proposed."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Reseed the other sampler."""
        self._inner.reseed_rng()

    def _proposal(self, study: optuna.Study, number: int) -> dict[str, Any] | None:
        """Return the plan of a trial, or None where `inner` is to propose it."""
        trials = [one for one in study.get_trials(deepcopy=False) if one.number != number]
        looks = [one for one in trials if self._is_look(one)]
        own = [one for one in trials if not (self._is_look(one) or one.number in self._near or _is_no_trial(one))]
        tried, lead = [self._known_as(one) for one in looks], self._lead(study, looks, own)
        due = next((plan for plan in self._known if plan not in tried), None)
        if due is not None and len(tried) <= EVIDENCE**lead * len(own):
            self._looks[number] = due
            return due
        compared = due is not None and lead >= 0  # then what known plans are compared with must not be near them
        if not compared and self._draw.random() < self._share(study, trials):
            self._near.add(number)
            return {name: self._close(name, one) for name, one in self._searched.items()}
        return None

    def _known_as(self, trial: FrozenTrial) -> dict[str, Any]:
        return self._looks.get(trial.number) or trial.system_attrs.get("fixed_params", trial.params)

    def _is_look(self, trial: FrozenTrial) -> bool:
        """Return whether a trial has a known plan; where an earlier driver had another one, this one is not tried."""
        return self._known_as(trial) in self._known and "replaced" not in trial.user_attrs

    def _lead(self, study: optuna.Study, looks: Sequence[FrozenTrial], own: Sequence[FrozenTrial]) -> int:
        """Return how many more of the sampler's `own` are worse than the middle one of the known plans than better."""
        found = self._scores(study, [*looks, *own])
        known, others = ([found[one.number] for one in some if one.number in found] for some in (looks, own))
        if not known:
            return 0
        middle = median(known)
        return sum(other < middle for other in others) - sum(other > middle for other in others)

    def _scores(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[int, float]:
        """Return a value for each trial of which something is known, by number; the larger, the better."""
        sign = 1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1.0
        ended = [one for one in trials if self._ended(one) and one.state != TrialState.FAIL]
        return {number: sign * value for number, (value,) in scores(ended, study.directions).items()}

    def _share(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> float:
        """Return the probability of a plan near the defaults: a half, and later by how many of either kind are good."""
        found = self._scores(study, trials)
        ranked = sorted(found, key=lambda number: -found[number])
        good = set(ranked[: math.ceil(GOOD * len(ranked))])

        def rate(numbers: set[int]) -> float:
            return (len(numbers & good) + 1) / (len(numbers) + 2)

        mine = (self._near | {one.number for one in trials if self._is_look(one)}) & set(ranked)
        near, others = rate(mine), rate(set(ranked) - mine)
        return near / (near + others)

    def _close(self, name: str, distribution: BaseDistribution) -> Any:
        """Return a value near the default of a setting, any value of one that has none."""
        if name in self._defaults:
            return _near(distribution, self._defaults[name], self._draw)
        return _anywhere(distribution, self._draw)


def _is_no_trial(trial: FrozenTrial) -> bool:
    """Return whether a proposal was not taken: its plan had been tried, or an earlier driver had another one."""
    return not trial.user_attrs.keys().isdisjoint({"repeats", "replaced"})


def _near(distribution: BaseDistribution, default: Any, draw: random.Random) -> Any:
    """Return a value near the default; at a distance of a normal draw, cut off at the ends of the range."""
    if isinstance(distribution, CategoricalDistribution):
        return default if draw.random() < STAYS else draw.choice(distribution.choices)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    return _value(distribution, min(1.0, max(0.0, draw.gauss(_share(distribution, default), SPREAD))))


def _anywhere(distribution: BaseDistribution, draw: random.Random) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return draw.choice(distribution.choices)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    return _value(distribution, draw.random())


def _share(distribution: FloatDistribution | IntDistribution, value: float) -> float:
    """Return where in its range a value lies, from 0 to 1."""
    low, high = distribution.low, distribution.high
    if distribution.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _value(distribution: FloatDistribution | IntDistribution, share: float) -> float | int:
    """Return the value at that place of a range, on a step where there are steps."""
    low, high = distribution.low, distribution.high
    value = low * (high / low) ** share if distribution.log else low + (high - low) * share
    if distribution.step:
        value = low + round((value - low) / distribution.step) * distribution.step
    value = min(max(value, low), high)
    return round(value) if isinstance(distribution, IntDistribution) else value
