"""The rows of a ranking: what is known of each trial, in numbers and words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from mnistlab.leaderboard.entries import Entry, summary, value_of
from mnistlab.leaderboard.label_errors import known_label_errors, without
from mnistlab.leaderboard.racing import images_of, own_splits
from mnistlab.leaderboard.statistics import Interval, MeanSd, mean_interval, mean_sd, on_other_images, wilson
from mnistlab.leaderboard.ties import Tie
from mnistlab.store.metric import FIXED, Metric
from mnistlab.store.results import Cost, ReplicateResult, RunRecord, TrialResult, epochs_of
from mnistlab.util.text import ACCURACIES, NAMES, Scalar, chosen_text, few_images, names


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

    `validation` is the run's metric: over the fresh seeds where confirmed, else the one value of the trial, None where
    it failed; `validation_interval` covers other seeds, and other images where the metric is known of each
    image; it is None where nothing is known of its width. `test_clean` is the test accuracy without the images
    whose labels are known to be doubtful, where any are. `plugins` names every plugin of the plan with its version.
    `seconds` is the time of one training, the mean over the seeds where confirmed. `objectives` holds the trial's own
    value of each of the run's metrics, on which the Pareto front rests: one training each, so on equal terms; of
    a confirmed plan whose trial ended early it is its first fresh seed. `cost` is
    what one prediction takes, the median over the seeds, and `macs` its multiply-accumulates, which are known of trials
    that were not confirmed as well. `seeds` counts those that the means are over, `lost` the seeds of the confirmation
    that failed, `untried` those of a confirmed plan that were not trained because the run was cut short; both are
    missing in the means. `best` is the chance that the plan is the best of those confirmed, by resampling the seeds.
    `created` says when the run began, `values` is every setting. `repeats` names the trial that tried the same plan
    first: one plan, another seed. `left_race` says that it got no more seeds because it could no longer win. `baseline`
    marks the plan of all defaults, which is confirmed to tell what searching has gained.

    A confirmed plan may have any rank from `rank_low` to `rank_high` of the confirmed ones. Where it shares a rank and
    is not the first of it, `tie` says what the comparison with the first could have shown.
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
    part: float = 1.0  # of the images that its epochs had, where it waited at a rung of less than one
    cause: str = ""
    message: str = ""
    validation_interval: Interval | None = None
    test_clean: TestEstimate | None = None
    cost: Cost | None = None
    macs: int | None = None
    seeds: int = 0
    best: float | None = None
    created: str = ""
    values: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])
    repeats: str = ""
    left_race: bool = False
    baseline: bool = False
    rank_low: int | None = None
    rank_high: int | None = None
    tie: Tie | None = None

    @property
    def ranks(self) -> str:
        """Return the ranks that a confirmed plan may have, for example `1-3`; "" where that is its rank alone."""
        return "" if self.rank_low == self.rank_high else f"{self.rank_low}-{self.rank_high}"


@dataclass(frozen=True)
class Place:
    """Where a trial ranks: the `rank`, the ranks that it may have, and what its tie could have shown."""

    rank: str
    low: int | None
    high: int | None
    tie: Tie | None


def make_row(entry: Entry, place: Place, metrics: Sequence[str], searched: Collection[str], best: float | None) -> Row:
    """Return the row of an entry that ranks as `place`; `searched` are the settings to be shown."""
    trial, run = entry.trial, entry.record.run
    one = _whole(entry)
    parameters, epochs = value_of(one, "parameters"), _epochs(one)
    times = [r.seconds for r in entry.replicates] or [trial.seconds]
    return Row(
        rank=place.rank,
        trial=trial.trial,
        state=entry.state,
        model=names(trial.plan),
        settings=chosen_text(entry.settings, searched or entry.settings.keys() - NAMES),
        validation=_validation(entry, metrics[0]),
        test=_test(entry.replicates),
        parameters=None if parameters is None else int(parameters),
        epochs=math.ceil(epochs),
        part=epochs / max(1, math.ceil(epochs)),
        budget=int(trial.plan.get("training", {}).get("epochs", len(trial.history))),
        seconds=math.fsum(times) / len(times),
        dataset=dataset_text(run["dataset"]),
        plugins=_plugins(trial.plan),
        run=run_name(entry.record),
        objectives={m: value for m in metrics if (value := value_of(one, m)) is not None},
        lost=entry.lost,
        untried=entry.untried,
        cause=trial.cause,
        message=trial.message,
        validation_interval=_validation_interval(entry, metrics[0]),
        test_clean=_clean(entry.replicates, run["dataset"]),
        cost=(cost := _cost(entry.replicates)),
        macs=_macs(trial, cost),
        seeds=len(entry.replicates),
        best=best,
        created=str(run.get("created", "")),
        values=entry.settings,
        repeats=trial.repeats,
        left_race=entry.left is not None,
        baseline=trial.trial == entry.record.baseline,
        rank_low=place.low,
        rank_high=place.high,
        tie=place.tie,
    )


def _whole(entry: Entry) -> TrialResult | ReplicateResult:
    """Return the trial, or in place of one that did not use its full budget the first of its plan's fresh seeds."""
    short = entry.trial.state != "complete" and entry.replicates
    return entry.replicates[0] if short else entry.trial


def _epochs(one: TrialResult | ReplicateResult) -> float:
    return epochs_of(one) if isinstance(one, TrialResult) else len(one.history)


def splits_of(record: RunRecord) -> str:
    """Return `fresh` where each seed of a run's confirmation draws its own split, else `same`."""
    return str(record.run.get("experiment", {}).get("confirm", {}).get("splits", "same"))


def state_text(row: Row) -> str:
    """Return the state of a row, with a mark where it is the plan of all defaults."""
    return f"{row.state} (defaults)" if row.baseline else row.state


def run_name(record: RunRecord) -> str:
    """Return the run's own name, or that of its directory."""
    return str(record.run.get("run") or PurePath(record.path).name)


def run_names(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return what tells each of several runs from the others: its name, or its path where another has the same name."""
    names = [run_name(record) for record in records]
    return tuple(record.path if names.count(name) > 1 else name for record, name in zip(records, names, strict=True))


def dataset_text(dataset: Mapping[str, Any]) -> str:
    """Return the dataset's name, the one that was asked for where it is another, and how few images were trained on."""
    asked = f" (fallback for {dataset['requested']})" if dataset.get("fallback") else ""
    return f"{dataset['name']}{asked}{few_images(dataset.get('train', 0), dataset.get('left_out', 0))}"


def _plugins(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """Return `distribution:name version` of everything that a plan is made of, the model first."""
    parts = [plan.get("model", {}), plan.get("optimizer", {}), *plan.get("transforms", ())]
    return tuple(dict.fromkeys(f"{part['plugin']} {part['version']}" for part in parts if part.get("plugin")))


def _validation(entry: Entry, metric: str) -> MeanSd | None:
    if entry.replicates:
        return summary(entry.replicates, metric)
    return None if entry.value is None or entry.state == "failed" else mean_sd([entry.value])


def _validation_interval(entry: Entry, metric: str) -> Interval | None:
    """Return the interval of the mean over other seeds and, where the metric is known of each image, other images.

    No metric is below 0, and no accuracy above 1.
    """
    values = [value for r in entry.replicates if (value := value_of(r, metric)) is not None]
    if len(values) < 2 or metric in FIXED:
        return None
    if own := own_splits(entry.replicates):
        found = mean_interval(values, overlap=own.get("overlap", 0.0))
    else:
        found = mean_interval(values, on_images=_on_images(entry.replicates, metric, math.fsum(values) / len(values)))
    most = 1.0 if metric in ACCURACIES else math.inf
    return found and Interval(max(found.low, 0.0), min(found.high, most))


def _on_images(replicates: Sequence[ReplicateResult], metric: str, mean: float) -> Interval | None:
    """Return the interval of a mean for these seeds on other images, from what the results say: no file is read."""
    images = images_of(replicates, metric)
    if metric == "val_accuracy":
        return wilson(min(mean, 1.0) * images, images) if images else None
    spreads = [one.per_image.sd[metric] for one in replicates if one.per_image] if images else []
    return on_other_images(mean, math.hypot(*spreads) / math.sqrt(len(spreads)), images) if spreads else None


def _test(replicates: Sequence[ReplicateResult]) -> TestEstimate | None:
    scores = [r.test for r in replicates if r.test is not None]
    return _estimate([score.accuracy for score in scores], scores[0].images) if scores else None


def _clean(replicates: Sequence[ReplicateResult], dataset: Mapping[str, Any]) -> TestEstimate | None:
    """Return the estimate without the images of known label errors; None where none or no outcomes are known."""
    outcomes = [r.test_correct for r in replicates if r.test is not None]
    errors = known_label_errors(dataset) if outcomes else ()
    if not errors or any(len(text) <= max(errors) for text in outcomes):
        return None
    counts = [without(text, errors) for text in outcomes]
    return _estimate([right / images for right, images in counts], counts[0][1])


def _estimate(accuracies: Sequence[float], images: int) -> TestEstimate:
    accuracy = mean_sd(accuracies)
    return TestEstimate(accuracy, wilson(min(accuracy.mean, 1.0) * images, images), images)


def _macs(trial: TrialResult, cost: Cost | None) -> int | None:
    if cost is not None:
        return cost.macs
    counted = value_of(trial, "macs")
    return None if counted is None else int(counted)


def _cost(replicates: Sequence[ReplicateResult]) -> Cost | None:
    """Return the cost of the seed with the median latency of a single image, so that its figures belong together."""
    costs = sorted((r.cost for r in replicates if r.cost), key=lambda cost: (cost.latency_1, cost.latency_256))
    return costs[(len(costs) - 1) // 2] if costs else None


# --- the front ----------------------------------------------------------------------------------------------------


def pareto(rows: Sequence[Row], metrics: Sequence[str]) -> tuple[bool, ...]:
    """Return for each row whether no trial that used its full budget is as good in all of `metrics`, better in one."""
    costs = [_costs(row, metrics) for row in rows]
    rivals = {mine for mine in costs if mine}
    return tuple(bool(mine) and not any(_dominates(other, mine) for other in rivals) for mine in costs)


def _dominates(other: Sequence[float], mine: Sequence[float]) -> bool:
    return other != mine and all(o <= m for o, m in zip(other, mine, strict=True))


def _costs(row: Row, metrics: Sequence[str]) -> tuple[float, ...]:
    """Return the objectives, the smaller the better, or () where one is missing or the budget was not used."""
    known = dict(row.objectives)
    if row.parameters is not None:
        known.setdefault("parameters", float(row.parameters))
    if row.state not in {"confirmed", "complete"} or any(metric not in known for metric in metrics):
        return ()
    return tuple(Metric(name).cost(known[name]) for name in metrics)
