"""Successive halving by whole short trainings: which trial is trained next, and with what budget.

The beginning of a long training says little of its end while the rate is near its peak; a short training whose schedule
ends says nearly as much as the full one (see docs/decisions). So a trial is trained from scratch at each rung, with a
schedule that ends there, and then waits. Nothing is ever stopped for good: a trial that waits is promoted as soon as it
is among the best of its rung (K. Jamieson and A. Talwalkar 2016; pause and promote as in L. Li and others 2020).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import cast

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from mnistlab.api import Choice
from mnistlab.experiment.space import Branch, Space
from mnistlab.experiment.spec import MOST_OF_BUDGET, ExperimentSpec
from mnistlab.store.metric import Metric
from mnistlab.store.results import RunRecord
from mnistlab.store.schedulers import traits_of
from mnistlab.tuning.history import Past
from mnistlab.tuning.schedulers.common import Wanted

FACTOR = 4  # budgets grow by about so much from rung to rung, unless the experiment says otherwise
STEPS = 45  # of the optimizer, in a training that says something of its plan
RUNGS = 3  # at most, unless the experiment says how small the smallest budget is


def build(_wanted: Wanted) -> TrialScheduler:
    """Return what lets each training go on: at rungs nothing is stopped, and a `Ladder` says who is promoted."""
    return FIFOScheduler()


@dataclass(frozen=True)
class Rung:
    """A rung: its number from 0, and the budget of a training there, in epochs (below 1: that share of the images).

    The `last` one is that of the full budget.
    """

    number: int
    budget: float
    last: bool = False


def budgets(epochs: int, factor: int, smallest: float) -> list[float]:
    """Return the budgets of a search, from the smallest to the full one: each is about `factor` times the one before.

    They are whole epochs, or halves of one that are halved again.
    """
    if smallest > MOST_OF_BUDGET * epochs:
        return [float(epochs)]
    steps = max(1, round(math.log(epochs / smallest, factor)))
    found = [_rounded(smallest * (epochs / smallest) ** (step / steps)) for step in range(steps)]
    return [*dict.fromkeys(found), float(epochs)]


def numbered(budgets: Sequence[float]) -> tuple[Rung, ...]:
    """Return the rungs with these budgets."""
    return tuple(Rung(number, budget, number == len(budgets) - 1) for number, budget in enumerate(budgets))


def found_rungs(record: RunRecord) -> tuple[Rung, ...]:
    """Return the rungs that a run has written down."""
    return numbered(record.run.get("rungs", []))


def promotes(rungs: tuple[Rung, ...], spec: ExperimentSpec, past: Past) -> bool:
    """Return whether a trial that waits since an earlier driver of a run would be promoted now."""
    ladder = Ladder(rungs, factor_of(spec))
    ladder.take_up(past, spec.search.metric[0])
    return ladder.next(more=False, live=()) is not None


def rungs_of(spec: ExperimentSpec, space: Space, images: int) -> tuple[Rung, ...]:
    """Return the rungs of a search that trains on so many images; none where its scheduler has no such rungs.

    Unless the experiment says so, the smallest budget is one of `STEPS` steps or more at the usual batch size, and not
    far below the full one; and there is no rung between from which all trials would go up.
    """
    search = spec.search
    if not traits_of(search.scheduler).retrains:
        return ()
    factor, trials = factor_of(spec), search.trials
    if trials <= finalists(trials):
        return numbered([float(space.epochs)])
    enough = max(STEPS * _batch(space.training) / images, space.epochs / factor ** (RUNGS - 1))
    found = budgets(space.epochs, factor, search.min_budget or (math.ceil(enough) if enough > 1 else enough))
    selects = search.min_budget is not None or trials // factor > finalists(trials)
    return numbered(found if selects else [found[0], *found[1:][-1:]])


def trainings(rungs: Sequence[Rung], spec: ExperimentSpec, workers: int) -> tuple[int, ...]:
    """Return how many trials `workers` train at each rung, if the search is not cut short; nothing where it has none.

    They may be a few more: who is among the best early is promoted, and others may turn out to be better.
    """
    counts = [spec.search.trials] * bool(rungs)
    for _ in rungs[:-2]:
        counts.append(max(counts[-1] // factor_of(spec), finalists(counts[-1], workers)))
    return tuple(counts + [finalists(count, workers) for count in counts[-1:]] * (len(rungs) > 1))


def factor_of(spec: ExperimentSpec) -> int:
    """Return how many trials there are for each that is promoted."""
    return spec.search.reduction_factor or FACTOR


def _batch(training: Branch) -> float:
    """Return the batch size, or where it is searched the middle of its range on a logarithmic scale."""
    searched = next((one for one in training.parameters if one.field == "batch_size"), None)
    if searched is None:
        return float(cast("int", training.fixed["batch_size"]))
    domain = searched.domain
    sizes = [float(size) for size in (domain.options if isinstance(domain, Choice) else domain.corners())]
    return math.sqrt(min(sizes) * max(sizes))


def finalists(trials: int, workers: int = 1) -> int:
    """Return how many of so many trials are trained in full: the best by a short training is seldom the best of all.

    They are as many as keep all `workers` busy to the end, which costs no time, but not more than the better half.
    """
    few = 1 + math.ceil(math.sqrt(trials))
    filled = min(workers * math.ceil(few / workers), trials // 2)
    return min(trials, max(few, filled))


def _rounded(budget: float) -> float:
    return float(round(budget)) if budget > 0.75 else 2.0 ** round(math.log2(budget))


@dataclass
class _Step:
    """What is known of a rung: the value of each trial that has ended there, and who was promoted from it."""

    values: dict[str, float] = field(default_factory=dict[str, float])
    promoted: set[str] = field(default_factory=set[str])

    def due(self, places: int) -> str | None:
        """Return the best trial that waits here, if it is among the best so many."""
        best = sorted(self.values, key=lambda trial: -self.values[trial])[:places]
        return next((trial for trial in best if trial not in self.promoted), None)


class Ladder:
    """The trials that wait at rungs. A value is the better the larger it is."""

    def __init__(self, rungs: tuple[Rung, ...], factor: int, workers: int = 1) -> None:
        """Promote about one in `factor`, and in the end as many as keep `workers` busy."""
        self.rungs, self._factor, self._workers = rungs, factor, workers
        self._steps = [_Step() for _ in rungs[:-1]]

    def waits(self, trial: str, rung: int, value: float) -> None:
        """Take note that a trial has ended its training at a rung below the last."""
        self._steps[rung].values[trial] = value

    def told(self, rung: int) -> tuple[int, int, float]:
        """Return how many trials have come to a rung, how many were promoted, and the value of the last in line."""
        step = self._steps[rung]
        places = max(1, len(step.promoted))
        return len(step.values), len(step.promoted), sorted(step.values.values(), reverse=True)[:places][-1]

    def goes_up(self, trial: str, rung: int) -> None:
        """Take note that a trial is trained at `rung`: it no longer waits at the one below."""
        self._steps[rung - 1].promoted.add(trial)

    def fails(self, trial: str) -> None:
        """Take note that a trial has come to nothing: it takes no place from another one."""
        for step in self._steps:
            step.values.pop(trial, None)
            step.promoted.discard(trial)

    def take_up(self, past: Past, metric: str) -> None:
        """Know who waits, who was promoted and who has failed, under earlier drivers of a run."""
        for step in past.steps:
            if step.kind == "paused":
                value = past.trials[step.trial].rungs[step.rung].metrics[metric]
                self.waits(step.trial, step.rung, Metric(metric).worth(value))
            elif step.kind == "promoted":
                self.goes_up(step.trial, step.rung)
            elif step.kind == "ended" and past.trials[step.trial].state == "failed":
                self.fails(step.trial)

    def next(self, *, more: bool, live: Collection[int]) -> tuple[str, Rung] | None:
        """Return the trial that is promoted next, and to which rung, or None.

        `more`: whether new trials are still to come. `live` are the rungs of the trials that are being trained: as long
        as one is below, who is the best there is not known. Once nobody else comes, more of each rung are promoted than
        one in the factor, those of the lowest rung first: they may be among the best of the next one.
        """
        for number in reversed(range(len(self._steps))):
            if (trial := self._steps[number].due(self._places(number))) is not None:
                return trial, self.rungs[number + 1]
        for number, step in enumerate(self._steps):
            if more or any(rung <= number for rung in live):
                return None
            if (trial := step.due(max(self._places(number), finalists(len(step.values), self._workers)))) is not None:
                return trial, self.rungs[number + 1]
        return None

    def _places(self, number: int) -> int:
        """Return how many of a rung's best are promoted while others are still to come."""
        reached = len(self._steps[number].values)
        places = reached // self._factor
        return min(places, finalists(reached)) if number == len(self._steps) - 1 else places
