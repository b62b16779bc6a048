"""From the results of a run to ranked rows: pure functions.

"Best" has one meaning. Confirmed plans come first, by the mean of the run's metric over their fresh seeds; then
complete trials by the metric at the last epoch of the full budget; then pruned ones by (epochs reached, metric).
Failed trials are listed and not ranked. Confirmed plans whose difference is within noise share a rank, because
ordering them would be a claim that the numbers do not carry.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from mnistlab.labels import NAMES, counted, listed, metric_text, names, settings, settings_text, shortened, varying
from mnistlab.results import ReplicateResult, RunRecord, TrialResult, higher_is_better
from mnistlab.statistics import (
    Difference,
    Interval,
    MeanSd,
    mean_sd,
    paired_difference,
    paired_mean_difference,
    tie_groups,
    wilson,
)

STATES = ("confirmed", "complete", "pruned", "failed")
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
    where it failed.
    `seconds` is the time of one training, the mean over the seeds where confirmed. `objectives` holds the trial's own
    value of each of the run's metrics, on which the Pareto front rests: one training each, so on equal terms.
    `lost` counts the seeds of the confirmation that came to nothing and so are missing in the means.
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
    plugin: str
    run: str
    objectives: Mapping[str, float] = field(default_factory=dict[str, float])
    front: bool = False
    lost: int = 0
    cause: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """The ranking of one run. `tied` names the confirmed trials that can't be told from the champion."""

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
    failures: Mapping[str, int]

    @property
    def metric(self) -> str:
        """Return the metric that ranks."""
        return self.metrics[0]


@dataclass(frozen=True)
class _Entry:
    """A trial with its good replicates and the count of the others; `value` is None without a finite number."""

    trial: TrialResult
    state: str
    value: float | None
    replicates: tuple[ReplicateResult, ...]
    lost: int


def rank(record: RunRecord) -> Leaderboard:
    """Return the ranking of a run, which may be unfinished or hold nothing yet.

    Raises:
        KeyError: if run.json lacks `metric` or `dataset`.
    """
    metric = str(record.run["metric"])
    metrics = tuple(dict.fromkeys((metric, *record.run.get("metrics", ()))))
    entries = sorted((_entry(trial, record.replicates, metric) for trial in record.trials), key=_order(metric))

    @cache
    def tied(a: int, b: int) -> bool:
        return _difference(entries[a], entries[b], metric).tied

    rows = _rows(record, entries, _ranks(entries, tied), metrics)
    champion = rows[0] if entries and entries[0].state in {"confirmed", "complete"} else None
    rivals = [i for i, entry in enumerate(entries) if i and entry.state == "confirmed"]
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
        tied=tuple(entries[i].trial.trial for i in rivals if tied(0, i)),
        failures=dict(Counter(entry.trial.cause or "unknown" for entry in entries if entry.state == "failed")),
    )


def verdict(board: Leaderboard) -> str:
    """Return one honest sentence: who won, by how much, tied with whom, and how often the test set was opened."""
    if board.champion is None:
        return _nothing_succeeded(board)
    winner = board.champion
    who = f"trial {winner.trial} ({shortened(f'{winner.model} {winner.settings}'.strip(), 80)})"
    if winner.state == "complete":
        value = metric_text(board.metric, winner.validation.mean if winner.validation else None)
        luck = "one training that no fresh seed has confirmed, so part of it may be luck"
        return f"On {board.dataset}, {who} is ahead with {board.metric} {value}: {luck}; {_openings(board)}."
    return f"On {board.dataset}, {who} {_score(board, winner)}; {_ties(board)}; {_openings(board)}."


# --- values and order ---------------------------------------------------------------------------------------------


def _entry(trial: TrialResult, replicates: Sequence[ReplicateResult], metric: str) -> _Entry:
    mine = [r for r in replicates if r.trial == trial.trial]
    good = tuple(r for r in mine if not r.cause and _value(r, metric) is not None)
    if good:
        return _Entry(trial, "confirmed", _summary(good, metric).mean, good, len(mine) - len(good))
    return _Entry(trial, trial.state, _value(trial, metric), (), len(mine))


def _value(result: TrialResult | ReplicateResult, metric: str) -> float | None:
    value = result.metrics.get(metric)
    return float(value) if value is not None and math.isfinite(value) else None


def _summary(replicates: Sequence[ReplicateResult], metric: str) -> MeanSd:
    return mean_sd([value for r in replicates if (value := _value(r, metric)) is not None])


def _order(metric: str) -> Callable[[_Entry], tuple[float, ...]]:
    """Return the sort key: state, epochs reached (of pruned trials), metric, and of equals the smaller, the earlier."""
    sign = -1 if higher_is_better(metric) else 1

    def key(entry: _Entry) -> tuple[float, ...]:
        epochs = -len(entry.trial.history) if entry.state == "pruned" else 0
        value = math.inf if entry.value is None else sign * entry.value
        if entry.state == "failed":
            return (STATES.index(entry.state), entry.trial.number)
        size = _value(entry.trial, "parameters")
        return (STATES.index(entry.state), epochs, value, math.inf if size is None else size, entry.trial.number)

    return key


# --- ranks and ties -----------------------------------------------------------------------------------------------


def _ranks(entries: Sequence[_Entry], tied: Callable[[int, int], bool]) -> tuple[str, ...]:
    """Return `1`, or `1=` where it is shared; ties by noise among confirmed plans, by equal value among the others."""
    ranked = [i for i, entry in enumerate(entries) if entry.state != "failed"]

    def shares(leader: int, other: int) -> bool:
        a, b = entries[leader], entries[other]
        if a.state != b.state:
            return False
        if a.state == "confirmed":
            return tied(leader, other)
        return a.value == b.value and (a.state == "complete" or len(a.trial.history) == len(b.trial.history))

    ranks = tie_groups(ranked, shares)
    size = Counter(ranks)
    text = [f"{r}=" if size[r] > 1 else str(r) for r in ranks]
    return (*text, *[UNRANKED] * (len(entries) - len(ranked)))


def _difference(a: _Entry, b: _Entry, metric: str) -> Difference:
    """Return a - b over the seeds both were confirmed on, image by image where that is what the metric counts."""
    ours, theirs = ({r.seed: r for r in entry.replicates} for entry in (a, b))
    seeds = sorted(ours.keys() & theirs.keys())
    outcomes = [(ours[seed].val_correct, theirs[seed].val_correct) for seed in seeds]
    lengths = {len(text) for pair in outcomes for text in pair}
    if metric == "val_accuracy" and len(lengths) == 1 and lengths != {0}:
        return paired_difference(_bits([x for x, _ in outcomes]), _bits([y for _, y in outcomes]))
    return paired_mean_difference(
        [ours[seed].metrics[metric] for seed in seeds], [theirs[seed].metrics[metric] for seed in seeds]
    )


def _bits(texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return "0110" strings of one length as bool (seeds, images)."""
    return np.array([np.frombuffer(text.encode("ascii"), dtype=np.uint8) for text in texts]) == ord("1")


# --- rows ---------------------------------------------------------------------------------------------------------


def _rows(
    record: RunRecord, entries: Sequence[_Entry], ranks: Sequence[str], metrics: Sequence[str]
) -> tuple[Row, ...]:
    searched = varying([entry.trial.plan for entry in entries])
    rows = [_row(record, entry, place, metrics, searched) for entry, place in zip(entries, ranks, strict=True)]
    return tuple(replace(row, front=len(metrics) > 1 and _on_front(row, rows, metrics)) for row in rows)


def _row(record: RunRecord, entry: _Entry, place: str, metrics: Sequence[str], searched: Sequence[str]) -> Row:
    trial, model = entry.trial, entry.trial.plan.get("model", {})
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
        plugin=f"{model.get('plugin', '')} {model.get('version', '')}".strip(),
        run=_run_name(record),
        objectives={m: value for m in metrics if (value := _value(trial, m)) is not None},
        lost=entry.lost,
        cause=trial.cause,
        message=trial.message,
    )


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


# --- the verdict's clauses ----------------------------------------------------------------------------------------


def _score(board: Leaderboard, winner: Row) -> str:
    if winner.test is None:
        means = winner.validation or MeanSd(math.nan, None, 0)
        return f"leads with mean {board.metric} {metric_text(board.metric, means.mean)} over {_seeds(means)}"
    means, interval = winner.test.accuracy, winner.test.interval
    spread = f"95 % interval {interval_text(interval)} for {counted(winner.test.images, 'image')}"
    return f"leads with mean test accuracy {metric_text('test_accuracy', means.mean)} over {_seeds(means)} ({spread})"


def interval_text(interval: Interval) -> str:
    """Return an interval of accuracies in per cent, for example `99.47-99.71 %`."""
    return f"{100 * interval.low:.2f}-{100 * interval.high:.2f} %"


def _seeds(means: MeanSd) -> str:
    return counted(means.n, "fresh seed")


def _ties(board: Leaderboard) -> str:
    rivals = sum(row.state == "confirmed" for row in board.rows) - 1
    if board.tied:
        trials = "trial" if len(board.tied) == 1 else "trials"
        return f"on validation it can't be told from {trials} {listed(board.tied)}"
    if not rivals:
        return "no other plan was confirmed"
    return f"on validation it is ahead of {_others(rivals)} by more than noise"


def _others(rivals: int) -> str:
    return "the other confirmed plan" if rivals == 1 else f"the {rivals} other confirmed plans"


def _openings(board: Leaderboard) -> str:
    if board.test_openings == 0:
        return "the test set has not been opened"
    if board.test_openings == 1:
        return "the test set was opened once"
    return f"the test set was opened {board.test_openings} times, so its numbers are no longer untouched by choice"


def _nothing_succeeded(board: Leaderboard) -> str:
    if not board.rows:
        return "No trial has ended yet: there is no champion."
    counts = Counter(row.state for row in board.rows)
    causes = ", ".join(f"{cause} {count}" for cause, count in sorted(board.failures.items()))
    parts = [f"{counts['pruned']} pruned"] * bool(counts["pruned"])
    parts += [f"{counts['failed']} failed ({causes})"] * bool(counts["failed"])
    reason = "No trial succeeded" if not counts["pruned"] else "No trial has used its full budget"
    return f"{reason}: {listed(parts)}; there is no champion."
