"""What a run's results and events come to, in plain rows that charts and tables are made of. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import rankdata, spearmanr

from mnistlab import events
from mnistlab.events import Stamped
from mnistlab.leaderboard import Leaderboard
from mnistlab.store.ends import TrialEnd
from mnistlab.store.metric import Metric
from mnistlab.store.results import RunRecord, TrialResult
from mnistlab.util.text import ACCURACIES, Scalar, names, settings, varying

COMPARABLE = 8  # trials that a comparison at one epoch should rest on, where there are so many
JUDGED = 10  # trials below which the importance of settings is not even estimated
GROUPS = 2  # branches of the space whose own settings are judged besides those that all plans share


@dataclass(frozen=True)
class Measure:
    """How a metric is drawn: accuracies as the error in per cent on a logarithmic axis, where differences can be seen.

    `floor` is what stands for an error of 0: half an image.
    """

    metric: str
    title: str
    log: bool
    floor: float = 0.0

    def of(self, value: float) -> float:
        """Return what is drawn for a value of the metric."""
        if self.metric in ACCURACIES:
            return max(100 * (1 - value), self.floor)
        return value

    def cost(self, value: float) -> float:
        """Return what is drawn for a value of the metric, such that less is better."""
        return self.of(value) if self.log else -self.of(value)


@dataclass(frozen=True)
class Ending:
    """A trial at the time it ended, with the best value of the trials at their full budget until then."""

    order: int
    trial: str
    state: str
    value: float | None
    best: float | None
    minutes: float | None


@dataclass(frozen=True)
class Rung:
    """What a scheduler has decided at a rung by the end of the run."""

    bracket: int
    epoch: float
    reached: int
    kept: int
    cutoff: float


@dataclass(frozen=True)
class Forecast:
    """The ranks of the trials at their full budget after the first epoch and after the last, and how they agree.

    `early` says in words when the first ranking was taken.
    """

    pairs: tuple[tuple[str, float, float], ...]  # trial, early rank, late rank
    rho: float | None
    early: str


@dataclass(frozen=True)
class Comparison:
    """The trials that reached `epoch`, each with its value after it: the widest comparison on equal terms."""

    epoch: int
    values: Mapping[str, float]


def measure(metric: str, images: int = 0) -> Measure:
    """Return how `metric` is drawn, for a validation set of `images`."""
    if metric in ACCURACIES:
        title = metric.replace("_", " ").replace("accuracy", "error").replace("val ", "validation ")
        return Measure(metric, f"{title} (%)", log=True, floor=50 / images if images else 0.005)
    return Measure(metric, metric.replace("_", " "), log=not Metric(metric).higher_is_better)


def value_at(trial: TrialResult, metric: str, epoch: int) -> float | None:
    """Return a trial's metric after an epoch (1 is the first), or None where there is no finite number."""
    if not 1 <= epoch <= len(trial.history):
        return None
    value = trial.history[epoch - 1].get(metric, trial.metrics.get(metric))
    return float(value) if value is not None and math.isfinite(value) else None


def last_value(trial: TrialResult, metric: str) -> float | None:
    """Return a trial's metric after its last epoch, or None where there is no finite number."""
    return value_at(trial, metric, len(trial.history))


# --- the course of the search -------------------------------------------------------------------------------------


def endings(record: RunRecord, stream: Sequence[Stamped], metric: str) -> list[Ending]:
    """Return the trials in the order in which they ended; by their number where the events do not tell."""
    ended = {one.event.trial: one.t for one in stream if isinstance(one.event, TrialEnd)}
    trials = sorted(record.trials, key=lambda trial: (ended.get(trial.trial, math.inf), trial.number))
    made: list[Ending] = []
    best: float | None = None
    for order, trial in enumerate(trials, 1):
        value = None if trial.state == "failed" else last_value(trial, metric)
        if value is not None and trial.state == "complete":
            best = value if best is None else Metric(metric).best((best, value))
        minutes = ended[trial.trial] / 60 if trial.trial in ended else None
        made.append(Ending(order, trial.trial, trial.state, value, best, minutes))
    return made


def rungs(stream: Sequence[Stamped]) -> list[Rung]:
    """Return the last word of the scheduler on each rung, by bracket and epoch."""
    last = {(e.bracket, e.epoch): e for one in stream if isinstance(e := one.event, events.RungDecided)}
    return [Rung(e.bracket, e.epoch, e.reached, e.kept, e.cutoff) for _, e in sorted(last.items())]


def forecast(record: RunRecord, metric: str) -> Forecast:
    """Return how an early order agrees with the last one, of trials that had both.

    The early one is that after the first epoch, or that of the first training where trials are trained at rungs.
    """
    full = [trial for trial in record.trials if trial.state == "complete" and (len(trial.history) > 1 or trial.rungs)]
    both = [(t.trial, _early_value(t, metric), last_value(t, metric)) for t in full]
    known = [(trial, early, late) for trial, early, late in both if early is not None and late is not None]
    early, late = _ranks([pair[1] for pair in known], metric), _ranks([pair[2] for pair in known], metric)
    pairs = zip([pair[0] for pair in known], early, late, strict=True)
    told = len(set(early)) > 1 and len(set(late)) > 1 and len(known) > 2
    found: Any = spearmanr(early, late) if told else None
    rho = None if found is None else float(found.statistic)
    return Forecast(tuple(pairs), rho, "at the first rung" if any(t.rungs for t in full) else "after epoch 1")


def _early_value(trial: TrialResult, metric: str) -> float | None:
    return trial.rungs[0].metrics.get(metric) if trial.rungs else value_at(trial, metric, 1)


def _ranks(values: Sequence[float], metric: str) -> list[float]:
    """Return the rank of each value, 1 for the best, the mean of those they share for equal ones."""
    return rankdata([Metric(metric).cost(value) for value in values]).tolist()


# --- the space ----------------------------------------------------------------------------------------------------


def comparison(record: RunRecord, metric: str) -> Comparison:
    """Return the values after the last epoch that half of all trials reached, and `COMPARABLE` if there are so many."""
    trials = [trial for trial in record.trials if trial.state != "failed" and last_value(trial, metric) is not None]
    wanted = max(math.ceil(len(trials) / 2), min(COMPARABLE, len(trials)))
    reached = Counter(epoch for trial in trials for epoch in range(1, len(trial.history) + 1))
    epoch = max((epoch for epoch, count in reached.items() if count >= wanted), default=0)
    found = {trial.trial: value for trial in trials if (value := value_at(trial, metric, epoch)) is not None}
    return Comparison(epoch, found)


def points(record: RunRecord) -> dict[str, dict[str, Scalar]]:
    """Return the settings that vary, and model and optimizer, by trial."""
    plans = {trial.trial: settings(trial.plan) for trial in record.trials}
    keys = ["model", "optimizer", *varying([trial.plan for trial in record.trials])]
    wanted = [key for key in keys if len({str(plan.get(key)) for plan in plans.values()}) > 1]
    return {trial: {key: plan[key] for key in wanted if key in plan} for trial, plan in plans.items()}


def branches(record: RunRecord, trials: Mapping[str, float]) -> list[tuple[str, list[str]]]:
    """Return (title, trials) of what is judged apart: all plans, then the commonest pairs of model and optimizer."""
    mine = {trial.trial: names(trial.plan) for trial in record.trials if trial.trial in trials}
    counts = Counter(mine.values())
    common = [name for name, count in counts.most_common() if count >= JUDGED][:GROUPS] if len(counts) > 1 else []
    return [("all plans", list(mine)), *((name, [t for t in mine if mine[t] == name]) for name in common)]


def shared_points(
    found: Mapping[str, Mapping[str, Scalar]], trials: Sequence[str]
) -> tuple[list[str], list[dict[str, Scalar]]]:
    """Return the settings that all of `trials` have and that vary among them, and each trial's point of these."""
    keys = [key for key in found[trials[0]] if all(key in found[trial] for trial in trials)] if trials else []
    keys = [key for key in keys if len({str(found[trial][key]) for trial in trials}) > 1]
    return keys, [{key: found[trial][key] for key in keys} for trial in trials]


# --- costs --------------------------------------------------------------------------------------------------------


def pareto(costs: Sequence[tuple[float, float]]) -> list[bool]:
    """Return which of the points (cost, error), both the smaller the better, no other one dominates."""
    return [not any(a <= x and b <= y and (a, b) != (x, y) for a, b in costs) for x, y in costs]


def states(board: Leaderboard) -> dict[str, str]:
    """Return the state of each trial as the ranking has it: a confirmed one is more than complete."""
    return {row.trial: row.state for row in board.rows}
