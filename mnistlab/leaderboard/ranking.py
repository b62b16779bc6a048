"""From the results of runs to ranked rows: pure functions.

"Best" has one meaning. Confirmed plans come first, by the mean of the run's metric over their fresh seeds; then
complete trials by the metric at the last epoch of the full budget; then those that ended early, pruned or interrupted,
by (epochs reached, metric). Failed trials are listed and not ranked. Confirmed plans whose difference is within noise
share a rank, because ordering them would be a claim that the numbers do not carry.

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
from functools import cache

from mnistlab.labels import counted, varying_settings
from mnistlab.leaderboard.entries import Differ, Entry, difference_of, entries, ranks, tied_with
from mnistlab.leaderboard.luck import Luck, chances, luck_of
from mnistlab.leaderboard.rows import Row, dataset_text, make_row, pareto, run_name, run_names
from mnistlab.results import ReplicateResult, RunRecord, higher_is_better


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """The ranking of one run, or of several that can be compared: `runs`.

    `tied` names the confirmed trials that can't be told from the champion; `better` those that beat it by more than
    noise on the seeds they share, but lack seeds and so rank below it. A trial is named `0007`, of one of several
    runs `RUN:0007`, and runs of one name in two folders by their paths. `doubtful` counts the test images whose
    labels are known to be doubtful. `refit` is the champion trained once more, on training and validation images;
    it is not ranked.
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
    runs: tuple[str, ...] = ()
    paths: Mapping[str, str] = field(default_factory=dict[str, str])  # of `runs`: the directory of each
    split: str = ""
    luck: Luck | None = None
    refit: ReplicateResult | None = None
    openings: tuple[int, ...] = ()  # of the test set, by each of `runs`

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

    That is one dataset (by name, plugin and the digests of its parts), one split and one metric. A run that does not
    say how its data was split stands alone.
    """
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[_comparable(record)].append(record)
    return list(groups.values())


def _comparable(record: RunRecord) -> str:
    dataset, metric = record.run["dataset"], record.run["metric"]
    if not dataset.get("split_sha256"):
        return record.path
    same = (dataset["name"], dataset.get("plugin"), dataset.get("sha256"), dataset["split_sha256"], metric)
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
    found = entries(records, metrics[0])

    @cache
    def difference(a: int, b: int):  # noqa: ANN202 - Difference, as Differ says
        return difference_of(found[a], found[b], metrics[0])

    names = dict(zip((record.path for record in records), run_names(records), strict=True))
    ranked = zip(_rows(found, metrics, difference), found, strict=True)
    rows = tuple(replace(row, run=names[entry.record.path]) for row, entry in ranked)
    champion = rows[0] if found and found[0].state in {"confirmed", "complete"} else None
    return _board(records, metrics, found, rows, champion, difference)


def _board(
    records: Sequence[RunRecord],
    metrics: tuple[str, ...],
    found: Sequence[Entry],
    rows: tuple[Row, ...],
    champion: Row | None,
    difference: Differ,
) -> Leaderboard:
    first = records[0]
    board = Leaderboard(
        path=first.path if len(records) == 1 else "",
        run=run_name(first) if len(records) == 1 else counted(len(records), "run"),
        rule="; ".join(dict.fromkeys(text for record in records if (text := str(record.run.get("rule", ""))))),
        metrics=metrics,
        dataset=dataset_text(first.run["dataset"]),
        fallback=str(first.run["dataset"].get("fallback", "")),
        test_openings=sum(record.test_openings for record in records),
        openings=tuple(record.test_openings for record in records),
        rows=rows,
        champion=champion,
        tied=(),
        better=(),
        failures=dict(Counter(entry.trial.cause or "unknown" for entry in found if entry.state == "failed")),
        runs=(names := run_names(records)),
        paths={name: record.path for name, record in zip(names, records, strict=True)},
        split=str(first.run["dataset"].get("split_sha256", "")),
        luck=luck_of(found, metrics[0]) if champion else None,
        refit=_refit(found[0]) if champion else None,
    )
    sign = 1 if higher_is_better(metrics[0]) else -1
    close = tied_with(0, found, difference) if found and found[0].state == "confirmed" else frozenset[int]()
    far = [i for i, entry in enumerate(found) if i and entry.state == "confirmed" and i not in close]
    return replace(
        board,
        tied=tuple(board.name(rows[i]) for i in sorted(close)),
        better=tuple(board.name(rows[i]) for i in far if sign * difference(0, i).mean < 0),
    )


def _refit(winner: Entry) -> ReplicateResult | None:
    refits = (one for one in winner.record.refits if one.trial == winner.trial.trial and not one.cause)
    return next(refits, None)


def _metrics(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the metric that ranks, then the others that all runs searched for."""
    metric = str(records[0].run["metric"])
    lists = [list(record.run.get("metrics", ())) for record in records]
    return tuple(dict.fromkeys((metric, *(m for m in lists[0] if all(m in others for others in lists)))))


def _rows(found: Sequence[Entry], metrics: Sequence[str], difference: Differ) -> tuple[Row, ...]:
    @cache
    def close(leader: int) -> frozenset[int]:
        return tied_with(leader, found, difference)

    searched = set(varying_settings([entry.settings for entry in found]))
    places, best = ranks(found, lambda a, b: b in close(a)), chances(found, metrics[0])
    rows = [
        make_row(entry, place, metrics, searched, best.get(i))
        for i, (entry, place) in enumerate(zip(found, places, strict=True))
    ]
    if len(metrics) < 2:
        return tuple(rows)
    return tuple(replace(row, front=on) for row, on in zip(rows, pareto(rows, metrics), strict=True))
