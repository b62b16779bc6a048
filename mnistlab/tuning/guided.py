"""Plans near the defaults, beside those that a sampler proposes: a default is its author's guess at what is good.

The idea is PriorBand's (N. Mallik and others 2023, arXiv:2306.12370): draw near the guess with a probability that fades
as evidence comes. Here it is the share of such plans among those that did well, so that a bad guess costs little.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from mnistlab.tuning.scores import scores

GOOD = 1 / 3  # share of the trials that count as good
SPREAD = 0.15  # standard deviation of a setting near its default, as a share of its range
STAYS = 0.7  # probability that a choice stays at its default


class Guided(BaseSampler):
    """Proposes plans near the defaults or lets another sampler propose, by which of the two has done better."""

    def __init__(
        self,
        inner: BaseSampler,
        searched: Mapping[str, BaseDistribution],
        defaults: Mapping[str, Any],
        seed: int,
        has_ended: Callable[[FrozenTrial], bool],
    ) -> None:
        """Ask `inner` for the others. `defaults` are drawn near to; a choice between branches has none, and is free."""
        self._inner, self._searched, self._defaults, self._ended = inner, searched, defaults, has_ended
        self._draw = random.Random(seed)
        self._mine: set[int] = set()
        self._near = False

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Decide who proposes this trial, and return what that one proposes."""
        self._near = self._draw.random() < self._share(study)
        if self._near:
            self._mine.add(trial.number)
            return dict(self._searched)
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the plan."""
        if not self._near:
            return self._inner.sample_relative(study, trial, search_space)
        return {
            name: _near(one, self._defaults[name], self._draw) if name in self._defaults else _anywhere(one, self._draw)
            for name, one in search_space.items()
        }

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Let the other sampler draw what neither has proposed."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Reseed the other sampler."""
        self._inner.reseed_rng()

    def _share(self, study: optuna.Study) -> float:
        """Return the probability of a plan near the defaults: a half, and later by how many of either kind are good."""
        ended = [one for one in study.get_trials(deepcopy=False) if self._ended(one) and one.state != TrialState.FAIL]
        found = scores(ended, study.directions)
        sign = 1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1.0
        ranked = sorted(found, key=lambda number: -sign * found[number][0])
        good = set(ranked[: math.ceil(GOOD * len(ranked))])

        def rate(numbers: set[int]) -> float:
            return (len(numbers & good) + 1) / (len(numbers) + 2)

        mine = self._mine & set(ranked)
        near, others = rate(mine), rate(set(ranked) - mine)
        return near / (near + others)


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
