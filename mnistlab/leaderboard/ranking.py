"""From the results of runs to ranked rows: pure functions.

"Best" has one meaning. Confirmed plans come first, by the mean of the run's metric over their fresh seeds; then
complete trials by the metric at the last epoch of the full budget; then those that ended early, pruned or interrupted,
by (epochs reached, metric). Failed trials are listed and not ranked. Confirmed plans of which none is surely better
than another share a rank, because ordering them would be a claim that the numbers do not carry; `family` decides.

A confirmed plan without all of its seeds ranks below those that have theirs: a seed that failed speaks against the
plan, and a mean over the seeds that happened to go well is no match for a mean over all. Among such plans those with
fewer failed seeds come first, and means are compared over the seeds that all plans with as many failures share. A plan
that left a race, because it could no longer win, lacks seeds by design: it ranks above those of which one failed.

Only what is comparable is ranked together: runs of one dataset (to the byte), one split and one metric.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mnistlab.leaderboard.entries import Entry, difference_of
from mnistlab.leaderboard.family import Standings, standings
from mnistlab.leaderboard.gain import Gain, gain_of
from mnistlab.leaderboard.racing import images_of, own_splits
from mnistlab.leaderboard.rows import Place, Row, dataset_text, make_row, pareto, run_name, run_names, splits_of
from mnistlab.leaderboard.selection_bias import Luck, chances, luck_of
from mnistlab.leaderboard.ties import Tie, reference_of, tie_of
from mnistlab.store.metric import FIXED
from mnistlab.store.results import EnsembleResult, ReplicateResult, RunRecord
from mnistlab.util.text import counted, varying_settings


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """The ranking of one run, or of several that can be compared: `runs`.

    `tied` names the confirmed trials that share the champion's rank. Two kinds rank below it only because they lack
    seeds, and no plan is surely better than they are: `better` names those that beat the champion by more than noise on
    the seeds they share, `lacking` the others. If all three are empty, the champion is surely better than every other
    confirmed plan. A trial is named `0007`, of one of several runs `RUN:0007`, and runs of one name in two folders by
    their paths. `doubtful` counts the test images whose labels are known to be doubtful. `refit` is the champion
    trained once more, on training and validation images, and `ensemble` its seeds' models together; neither is ranked.
    `seeds_only` says that what is claimed of
    confirmed plans holds for other seeds on the same images only, because the metric is not known of each image.
    `gain` is what the champion's search has gained over the plan of all defaults.
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
    lacking: tuple[str, ...]
    failures: Mapping[str, int]
    runs: tuple[str, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict[str, str])  # of `runs`: the directory of each
    split: str = ""
    luck: Luck | None = None
    refit: ReplicateResult | None = None
    ensemble: EnsembleResult | None = None
    openings: tuple[int, ...] = ()  # of the test set, by each of `runs`
    runs_before: int | None = None  # that had opened it on its machine before this one run; None: not known, or several
    seeds_only: bool = False
    gain: Gain | None = None

    @property
    def metric(self) -> str:
        """Return the metric that ranks."""
        return self.metrics[0]

    def name(self, row: Row) -> str:
        """Return what names a row's trial: `0007`, or `RUN:0007` where there are several runs."""
        return f"{row.run}:{row.trial}" if len(self.runs) > 1 else row.trial

    def front(self) -> tuple[Row, ...]:
        """Return the rows on the Pareto front of the metrics, or of the metric and the parameters."""
        metrics = self.metrics if len(self.metrics) > 1 else (self.metric, "parameters")
        return tuple(row for row, on in zip(self.rows, pareto(self.rows, metrics), strict=True) if on)


def rank(record: RunRecord) -> Leaderboard:
    """Return the ranking of a run, which may be unfinished or hold nothing yet.

    Raises:
        KeyError: if run.json lacks `metric` or `dataset`.
    """
    return rank_together([record])


def group(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Return the runs in groups that can be ranked together, in the order of each group's first run.

    That is one dataset (by name, plugin and the digests of its parts), one split (or one of each seed) and one metric.
    A run that does not say how its data was split stands alone.
    """
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[_comparable(record)].append(record)
    return list(groups.values())


def _comparable(record: RunRecord) -> str:
    dataset, metric = record.run["dataset"], record.run["metric"]
    if not dataset.get("split_sha256"):
        return record.path
    splits = splits_of(record)
    same = (dataset["name"], dataset.get("plugin"), dataset.get("sha256"), dataset["split_sha256"], metric, splits)
    return json.dumps(same, sort_keys=True)


def rank_together(records: Sequence[RunRecord]) -> Leaderboard:
    """Return one ranking of runs that are of one group, as `group` makes them.

    Raises:
        ValueError: if there are none.
        KeyError: if a run.json lacks `metric` or `dataset`.
    """
    if not records:
        raise ValueError("a ranking is made of one run or more")
    records = sorted(records, key=lambda record: (run_name(record), record.path))
    metrics = _metrics(records)
    judged = standings(records, metrics[0])
    names = dict(zip((record.path for record in records), run_names(records), strict=True))
    ranked = zip(_rows(judged, metrics), judged.found, strict=True)
    rows = tuple(replace(row, run=names[entry.record.path]) for row, entry in ranked)
    return _board(records, metrics, judged, rows)


def _board(
    records: Sequence[RunRecord], metrics: tuple[str, ...], judged: Standings, rows: tuple[Row, ...]
) -> Leaderboard:
    first, found = records[0], judged.found
    champion = rows[0] if found and found[0].state in {"confirmed", "complete"} else None
    board = Leaderboard(
        path=first.path if len(records) == 1 else "",
        run=run_name(first) if len(records) == 1 else counted(len(records), "run"),
        rule="; ".join(dict.fromkeys(text for record in records if (text := str(record.run.get("rule", ""))))),
        metrics=metrics,
        dataset=dataset_text(first.run["dataset"]),
        fallback=str(first.run["dataset"].get("fallback", "")),
        test_openings=sum(record.test_openings for record in records),
        openings=tuple(record.test_openings for record in records),
        runs_before=first.runs_before if len(records) == 1 else None,
        rows=rows,
        champion=champion,
        tied=(),
        better=(),
        lacking=(),
        failures=dict(Counter(entry.trial.cause or "unknown" for entry in found if entry.state == "failed")),
        runs=(names := run_names(records)),
        paths={name: record.path for name, record in zip(names, records, strict=True)},
        split=str(first.run["dataset"].get("split_sha256", "")),
        luck=luck_of(found, metrics[0]) if champion else None,
        refit=_refit(found[0]) if champion else None,
        ensemble=_ensemble(found[0]) if champion else None,
        seeds_only=_seeds_only(found, metrics[0]),
        gain=gain_of(judged, metrics[0]) if champion else None,
    )
    return _with_rivals(board, judged) if champion and champion.state == "confirmed" else board


def _with_rivals(board: Leaderboard, judged: Standings) -> Leaderboard:
    """Return the board with the names of those plans that the champion is not surely better than."""
    confirmed = [i for i, row in enumerate(board.rows) if row.state == "confirmed"][1:]
    shares = [i for i in confirmed if board.rows[i].rank == board.rows[0].rank]
    unbeaten = [i for i in confirmed if i not in shares and not judged.family.above[i]]
    beat = {better for better, worse in judged.family.overruled if worse == 0}
    return replace(
        board,
        tied=tuple(board.name(board.rows[i]) for i in shares),
        better=tuple(board.name(board.rows[i]) for i in unbeaten if i in beat),
        lacking=tuple(board.name(board.rows[i]) for i in unbeaten if i not in beat),
    )


def _seeds_only(found: Sequence[Entry], metric: str) -> bool:
    """Return whether what is claimed of confirmed plans leaves out what other images would change."""
    ones = [one for entry in found if entry.state == "confirmed" for one in entry.replicates]
    return bool(ones) and metric not in FIXED and not (own_splits(ones) or images_of(ones, metric))


def _refit(winner: Entry) -> ReplicateResult | None:
    refits = (one for one in winner.record.refits if one.trial == winner.trial.trial and not one.cause)
    return next(refits, None)


def _ensemble(winner: Entry) -> EnsembleResult | None:
    """Return the champion's ensemble; one of a plan that no longer leads is none of it."""
    found = winner.record.ensemble
    return found if found and found.trial == winner.trial.trial else None


def _metrics(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the metric that ranks, then the others that all runs searched for."""
    metric = str(records[0].run["metric"])
    lists = [list(record.run.get("metrics", ())) for record in records]
    return tuple(dict.fromkeys((metric, *(m for m in lists[0] if all(m in others for others in lists)))))


def _rows(judged: Standings, metrics: Sequence[str]) -> tuple[Row, ...]:
    found = judged.found
    searched = set(varying_settings([entry.settings for entry in found]))
    best, ties = chances(found, metrics[0]), _ties(judged, metrics[0])
    rows = [make_row(entry, _place(judged, i, ties), metrics, searched, best.get(i)) for i, entry in enumerate(found)]
    if len(metrics) < 2:
        return tuple(rows)
    return tuple(replace(row, front=on) for row, on in zip(rows, pareto(rows, metrics), strict=True))


def _place(judged: Standings, i: int, ties: Mapping[int, Tie]) -> Place:
    low, high = judged.family.span(i) if judged.found[i].state == "confirmed" else (None, None)
    return Place(judged.places[i], low, high, ties.get(i))


def _ties(judged: Standings, metric: str) -> Mapping[int, Tie]:
    """Return for each confirmed plan that shares a rank, but for the first of it, what its tie with that could show."""
    if metric in FIXED:  # equal values are equal: nothing was left to be seen
        return {}
    plans = [entry for entry in judged.found if entry.state == "confirmed"]
    reference = reference_of(plans, metric)
    made: dict[int, Tie] = {}
    leader = 0
    for i, entry in enumerate(plans):
        if judged.places[i] != judged.places[leader]:
            leader = i
        elif i != leader:
            gap, level = difference_of(plans[leader], entry, metric), judged.family.level_of(leader, i)
            made[i] = tie_of(plans[leader], entry, metric, gap, level, reference)
    return made
