"""From the results of a run to ranked rows: pure functions.

"Best" has one meaning. Confirmed plans come first, by the mean of the run's metric over their fresh seeds; then
complete trials by the metric at the last epoch of the full budget; then those that ended early, pruned or interrupted,
by (epochs reached, metric). Failed trials are listed and not ranked. Confirmed plans whose difference is within noise
share a rank, because ordering them would be a claim that the numbers do not carry.

A confirmed plan without all of its seeds ranks below those that have theirs: a seed that failed speaks against the
plan, and a mean over the seeds that happened to go well is no match for a mean over all. Among such plans those with
fewer failed seeds come first, and means are compared over the seeds that all plans with as many failures share. A plan
that left a race, because it could no longer win, lacks seeds by design: it ranks above those of which one failed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import PurePath
from typing import Any

from mnistlab.labels import NAMES, names, settings, settings_text, varying
from mnistlab.racing import difference as paired
from mnistlab.results import ReplicateResult, RunRecord, TrialResult, higher_is_better
from mnistlab.statistics import (
    Difference,
    Interval,
    MeanSd,
    mean_sd,
    tie_groups,
    wilson,
)

# Lower stands below. Pruned and interrupted trials are in one class: neither has used its full budget, and that is all
# that a ranking may hold against them. That a scheduler gave one up is in its few epochs already, and to put the other
# above it would reward a trial for having been in the way of a Ctrl-C.
CLASS = {"confirmed": 0, "complete": 1, "pruned": 2, "interrupted": 2, "failed": 3}
EARLY = CLASS["pruned"]
UNRANKED = "-"


@dataclass(frozen=True)
class TestEstimate:
    """Mean test accuracy over the seeds; `interval` is Wilson's for that mean over `images` test images."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    accuracy: MeanSd
    interval: Interval
    images: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial of the ranking.

    `validation` is the run's metric: over the fresh seeds where confirmed, else the one value of the trial, None
    where it failed. `plugins` names every plugin of the plan with its version.
    `seconds` is the time of one training, the mean over the seeds where confirmed. `objectives` holds the trial's own
    value of each of the run's metrics, on which the Pareto front rests: one training each, so on equal terms.
    `lost` counts the seeds of the confirmation that failed, `untried` those of a confirmed plan that were not trained
    because the run was cut short; both are missing in the means. `repeats` names the trial that tried the same plan
    first: one plan, another seed. `left_race` says that it got no more seeds because it could no longer win.
    """

    rank: str
    trial: str
    state: str
    model: str
    settings: str
    validation: MeanSd | None
    test: TestEstimate | None
    parameters: int | None
    epochs: int
    budget: int
    seconds: float
    dataset: str
    plugins: tuple[str, ...]
    run: str
    objectives: Mapping[str, float] = field(default_factory=dict[str, float])
    front: bool = False
    lost: int = 0
    untried: int = 0
    cause: str = ""
    message: str = ""
    repeats: str = ""
    left_race: bool = False


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """The ranking of one run.

    `tied` names the confirmed trials that can't be told from the champion; `better` those that beat it by more than
    noise on the seeds they share, but lack seeds and so rank below it. `refit` is the champion trained once more, on
    training and validation images; it is not ranked.
    """

    path: str
    run: str
    rule: str
    metrics: tuple[str, ...]
    dataset: str
    fallback: str
    test_openings: int
    rows: tuple[Row, ...]
    champion: Row | None
    tied: tuple[str, ...]
    better: tuple[str, ...]
    failures: Mapping[str, int]
    refit: ReplicateResult | None = None

    @property
    def metric(self) -> str:
        """Return the metric that ranks."""
        return self.metrics[0]


@dataclass(frozen=True)
class _Entry:
    """A trial with its good replicates and the counts of the others; `value` is None without a finite number."""

    trial: TrialResult
    state: str
    value: float | None
    replicates: tuple[ReplicateResult, ...]
    lost: int
    untried: int = 0
    left: bool = False

    @property
    def place(self) -> int:
        """Return the class of the state, the better the lower."""
        return CLASS[self.state]

    @property
    def standing(self) -> tuple[bool, int, bool]:
        """Return what orders confirmed plans before their means do.

        That is whether seeds are missing, how many failed, and whether it left a race: the one that it could no longer
        beat may lack seeds too, if the run was cut short, and stays above it.
        """
        return (self.lost + self.untried > 0 or self.left, self.lost, self.left)


def rank(record: RunRecord) -> Leaderboard:
    """Return the ranking of a run, which may be unfinished or hold nothing yet.

    Raises:
        KeyError: if run.json lacks `metric` or `dataset`.
    """
    metric = str(record.run["metric"])
    metrics = tuple(dict.fromkeys((metric, *record.run.get("metrics", ()))))
    planned = _planned(record)
    left = _left_the_race(record)
    found = [_entry(t, record.replicates, metric, planned, left=t.trial in left) for t in record.trials]
    entries = sorted(_on_shared_seeds(found, metric), key=_order(metric))

    @cache
    def difference(a: int, b: int) -> Difference:
        return paired(entries[a].replicates, entries[b].replicates, metric)

    rows = _rows(record, entries, _ranks(entries, lambda a, b: difference(a, b).tied), metrics)
    champion = rows[0] if entries and entries[0].state in {"confirmed", "complete"} else None
    rivals = {e.trial.trial: difference(0, i) for i, e in enumerate(entries) if i and e.state == "confirmed"}
    sign = 1 if higher_is_better(metric) else -1
    return Leaderboard(
        path=record.path,
        run=_run_name(record),
        rule=str(record.run.get("rule", "")),
        metrics=metrics,
        dataset=_dataset_text(record.run["dataset"]),
        fallback=str(record.run["dataset"].get("fallback", "")),
        test_openings=record.test_openings,
        rows=rows,
        champion=champion,
        tied=tuple(name for name, rival in rivals.items() if rival.tied),
        better=tuple(name for name, rival in rivals.items() if not rival.tied and sign * rival.mean < 0),
        refit=next((one for one in record.refits if champion and one.trial == champion.trial and not one.cause), None),
        failures=dict(Counter(entry.trial.cause or "unknown" for entry in entries if entry.state == "failed")),
    )


# --- values and order ---------------------------------------------------------------------------------------------


def _planned(record: RunRecord) -> int:
    """Return how many seeds a confirmed plan is held to; of a run that does not say so, the most that one has.

    Where a later confirmation gave more seeds to some plans only, all are held to what every one of them was to get.
    """
    entries = [entry for entry in record.confirmations if entry.get("type") == "planned"]
    asked = {trial: int(entry["seeds"]) for entry in entries for trial in entry["trials"]}
    if asked:
        left = _left_the_race(record)
        return min([seeds for trial, seeds in asked.items() if trial not in left] or asked.values())
    said = record.run.get("experiment", {}).get("confirm", {}).get("seeds")
    return int(said or max(Counter(r.trial for r in record.replicates).values(), default=0))


def _left_the_race(record: RunRecord) -> frozenset[str]:
    """Return the plans that got no more seeds because they could no longer win."""
    return frozenset(str(entry["trial"]) for entry in record.confirmations if entry.get("type") == "dropped")


def _entry(
    trial: TrialResult, replicates: Sequence[ReplicateResult], metric: str, planned: int, *, left: bool
) -> _Entry:
    mine = [r for r in replicates if r.trial == trial.trial]
    good = tuple(r for r in mine if not r.cause and _value(r, metric) is not None)
    lost, untried = len(mine) - len(good), max(0, planned - len(mine))
    if good:
        out = left and untried > 0
        return _Entry(trial, "confirmed", _summary(good, metric).mean, good, lost, 0 if out else untried, out)
    return _Entry(trial, trial.state, _value(trial, metric), (), lost)


def _on_shared_seeds(entries: Sequence[_Entry], metric: str) -> list[_Entry]:
    """Return the entries; those that lack seeds with their mean over what all of the same standing share, if any."""
    peers: dict[tuple[bool, int, bool], list[set[int]]] = {}
    for entry in entries:
        if entry.replicates:
            peers.setdefault(entry.standing, []).append({r.seed for r in entry.replicates})

    def shared(entry: _Entry) -> list[ReplicateResult]:
        seeds = set[int].intersection(*peers[entry.standing]) if entry.replicates else set[int]()
        return [r for r in entry.replicates if r.seed in seeds]

    return [replace(e, value=_summary(both, metric).mean) if (both := shared(e)) else e for e in entries]


def _value(result: TrialResult | ReplicateResult, metric: str) -> float | None:
    value = result.metrics.get(metric)
    return float(value) if value is not None and math.isfinite(value) else None


def _summary(replicates: Sequence[ReplicateResult], metric: str) -> MeanSd:
    return mean_sd([value for r in replicates if (value := _value(r, metric)) is not None])


def _order(metric: str) -> Callable[[_Entry], tuple[float, ...]]:
    """Return the sort key: class, what comes before the metric, metric, and of equals the smaller, the earlier.

    Before the metric come the standing of confirmed plans and the epochs that trials reached which ended early.
    """
    sign = -1 if higher_is_better(metric) else 1

    def key(entry: _Entry) -> tuple[float, ...]:
        before = {CLASS["confirmed"]: entry.standing, EARLY: (-len(entry.trial.history), 0)}
        value = math.inf if entry.value is None else sign * entry.value
        if entry.state == "failed":
            return (entry.place, entry.trial.number)
        size = _value(entry.trial, "parameters")
        return (
            entry.place,
            *before.get(entry.place, (0, 0)),
            value,
            math.inf if size is None else size,
            entry.trial.number,
        )

    return key


# --- ranks and ties -----------------------------------------------------------------------------------------------


def _ranks(entries: Sequence[_Entry], tied: Callable[[int, int], bool]) -> tuple[str, ...]:
    """Return `1`, or `1=` where it is shared; ties by noise among confirmed plans, by equal value among the others."""
    ranked = [i for i, entry in enumerate(entries) if entry.state != "failed"]

    def shares(leader: int, other: int) -> bool:
        a, b = entries[leader], entries[other]
        if a.place != b.place:
            return False
        if a.state == "confirmed":
            return a.standing == b.standing and tied(leader, other)
        return a.value == b.value and (a.place != EARLY or len(a.trial.history) == len(b.trial.history))

    ranks = tie_groups(ranked, shares)
    size = Counter(ranks)
    text = [f"{r}=" if size[r] > 1 else str(r) for r in ranks]
    return (*text, *[UNRANKED] * (len(entries) - len(ranked)))


# --- rows ---------------------------------------------------------------------------------------------------------


def _rows(
    record: RunRecord, entries: Sequence[_Entry], ranks: Sequence[str], metrics: Sequence[str]
) -> tuple[Row, ...]:
    searched = varying([entry.trial.plan for entry in entries])
    rows = [_row(record, entry, place, metrics, searched) for entry, place in zip(entries, ranks, strict=True)]
    return tuple(replace(row, front=len(metrics) > 1 and _on_front(row, rows, metrics)) for row in rows)


def _row(record: RunRecord, entry: _Entry, place: str, metrics: Sequence[str], searched: Sequence[str]) -> Row:
    trial = entry.trial
    parameters = _value(trial, "parameters")
    times = [r.seconds for r in entry.replicates] or [trial.seconds]
    return Row(
        rank=place,
        trial=trial.trial,
        state=entry.state,
        model=names(trial.plan),
        settings=settings_text(trial.plan, searched or settings(trial.plan).keys() - NAMES),
        validation=_validation(entry, metrics[0]),
        test=_test(entry.replicates),
        parameters=None if parameters is None else int(parameters),
        epochs=len(trial.history),
        budget=int(trial.plan.get("training", {}).get("epochs", len(trial.history))),
        seconds=math.fsum(times) / len(times),
        dataset=_dataset_text(record.run["dataset"]),
        plugins=_plugins(trial.plan),
        run=_run_name(record),
        objectives={m: value for m in metrics if (value := _value(trial, m)) is not None},
        lost=entry.lost,
        untried=entry.untried,
        cause=trial.cause,
        message=trial.message,
        repeats=trial.repeats,
        left_race=entry.left,
    )


def _plugins(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """Return `distribution:name version` of everything that a plan is made of, the model first."""
    parts = [plan.get("model", {}), plan.get("optimizer", {}), *plan.get("transforms", ())]
    return tuple(dict.fromkeys(f"{part['plugin']} {part['version']}" for part in parts if part.get("plugin")))


def _validation(entry: _Entry, metric: str) -> MeanSd | None:
    if entry.replicates:
        return _summary(entry.replicates, metric)
    return None if entry.value is None or entry.state == "failed" else mean_sd([entry.value])


def _test(replicates: Sequence[ReplicateResult]) -> TestEstimate | None:
    scores = [r.test for r in replicates if r.test is not None]
    if not scores:
        return None
    accuracy, images = mean_sd([score.accuracy for score in scores]), scores[0].images
    return TestEstimate(accuracy, wilson(min(accuracy.mean, 1.0) * images, images), images)


def _run_name(record: RunRecord) -> str:
    return str(record.run.get("run") or PurePath(record.path).name)


def _dataset_text(dataset: Mapping[str, Any]) -> str:
    return f"{dataset['name']} (fallback for {dataset['requested']})" if dataset.get("fallback") else dataset["name"]


def _on_front(row: Row, rows: Sequence[Row], metrics: Sequence[str]) -> bool:
    """Return whether no trial that used its full budget is as good in every metric and better in one."""
    rivals = [costs for other in rows if (costs := _costs(other, metrics))]
    mine = _costs(row, metrics)
    return bool(mine) and not any(all(o <= m for o, m in zip(r, mine, strict=True)) and r != mine for r in rivals)


def _costs(row: Row, metrics: Sequence[str]) -> tuple[float, ...]:
    """Return the objectives, the smaller the better, or () where one is missing or the budget was not used."""
    if row.state not in {"confirmed", "complete"} or len(row.objectives) < len(metrics):
        return ()
    return tuple(-row.objectives[m] if higher_is_better(m) else row.objectives[m] for m in metrics)
