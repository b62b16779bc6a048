"""A trial as the ranking sees it: its class, its value, and its order among others before they are compared."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from mnistlab.leaderboard.racing import Drop, difference, drops
from mnistlab.leaderboard.statistics import Difference, MeanSd, mean_sd
from mnistlab.store.metric import Metric
from mnistlab.store.results import ReplicateResult, RunRecord, TrialResult, epochs_of
from mnistlab.util.text import Scalar, settings

# Lower stands below. Pruned and interrupted trials are in one class: neither has used its full budget, and that is all
# that a ranking may hold against them. That a scheduler gave one up is in its few epochs already, and to put the other
# above it would reward a trial for having been in the way of a Ctrl-C.
CLASS = {"confirmed": 0, "complete": 1, "pruned": 2, "interrupted": 2, "failed": 3}
EARLY = CLASS["pruned"]
UNRANKED = "-"


@dataclass(frozen=True)
class Entry:
    """A trial with its good replicates and the counts of the others; `value` is None without a finite number.

    `settings` are those of its plan, as `labels.settings` gives them. `left` says how it left a race, and `behind` how
    many seeds of the plan that beat it there failed.
    """

    record: RunRecord
    trial: TrialResult
    state: str
    value: float | None
    replicates: tuple[ReplicateResult, ...]
    lost: int
    untried: int
    settings: Mapping[str, Scalar]
    left: Drop | None = None
    behind: int = 0

    @property
    def place(self) -> int:
        """Return the class of the state, the better the lower."""
        return CLASS[self.state]

    @property
    def standing(self) -> tuple[bool, int, bool]:
        """Return what orders confirmed plans before their means do.

        That is whether seeds are missing, how many failed, and whether it left a race: the one that beat it there may
        lack seeds too, if the run was cut short or seeds failed, and stays above it.
        """
        out = self.left is not None
        return (self.lost + self.untried > 0 or out, max(self.lost, self.behind), out)


def entries(records: Sequence[RunRecord], metric: str) -> list[Entry]:
    """Return every trial of `records`, best first. They are of one dataset, split and metric."""
    found = [entry for record in records for entry in _entries(record, metric)]
    return sorted(_on_shared_seeds(found, metric), key=_order(metric))


def _entries(record: RunRecord, metric: str) -> list[Entry]:
    by_trial: dict[str, list[ReplicateResult]] = defaultdict(list)
    for replicate in sorted(record.replicates, key=lambda r: (r.replicate, r.seed)):
        by_trial[replicate.trial].append(replicate)
    left = drops(record.confirmations)
    planned = _planned(record, left.keys())
    made = [_entry(record, trial, by_trial.get(trial.trial, []), metric, planned) for trial in record.plans]
    by_name = {entry.trial.trial: entry for entry in made}
    out = {name: left[name] for name, entry in by_name.items() if name in left and _is_out(entry, left[name], by_name)}
    return [_out_of_the_race(entry, out, by_name) if entry.trial.trial in out else entry for entry in made]


def _is_out(entry: Entry, drop: Drop, by_name: Mapping[str, Entry]) -> bool:
    """Return whether a plan that left a race still lacks seeds for that reason: no later race has gone on with it."""
    if entry.state != "confirmed" or not entry.untried:
        return False
    leader = by_name.get(drop.leader)
    theirs = {r.seed for r in leader.replicates} if leader else set[int]()
    return not drop.again or len({r.seed for r in entry.replicates} & theirs) <= drop.seeds


def _out_of_the_race(entry: Entry, out: Mapping[str, Drop], by_name: Mapping[str, Entry]) -> Entry:
    """Return a plan as one that left a race: it lacks no seeds that it was due, and stands below what beat it."""
    drop, behind, seen = out[entry.trial.trial], 0, {entry.trial.trial}
    leader = by_name.get(drop.leader)
    while leader is not None and leader.trial.trial not in seen:  # the one that beat it may have been beaten, and so on
        behind = max(behind, leader.lost)
        seen.add(leader.trial.trial)
        next_up = out.get(leader.trial.trial)
        leader = by_name.get(next_up.leader) if next_up else None
    return replace(entry, untried=0, left=drop, behind=behind)


def _planned(record: RunRecord, left: Collection[str]) -> int:
    """Return how many seeds a confirmed plan is held to; of a run that does not say so, the most that one has.

    Where a later confirmation gave more seeds to some plans only, all are held to what every one of them was to get.
    """
    planned = [entry for entry in record.confirmations if entry.get("type") == "planned"]
    asked = {trial: int(entry["seeds"]) for entry in planned for trial in entry["trials"]}
    if asked:
        return min([seeds for trial, seeds in asked.items() if trial not in left] or asked.values())
    said = record.run.get("experiment", {}).get("confirm", {}).get("seeds")
    return int(said or max(Counter(r.trial for r in record.replicates).values(), default=0))


def _entry(record: RunRecord, trial: TrialResult, mine: Sequence[ReplicateResult], metric: str, planned: int) -> Entry:
    good = tuple(r for r in mine if not r.cause and value_of(r, metric) is not None)
    lost, untried = len(mine) - len(good), max(0, planned - len(mine))
    flat = settings(trial.plan)
    if good:
        return Entry(record, trial, "confirmed", summary(good, metric).mean, good, lost, untried, flat)
    return Entry(record, trial, trial.state, value_of(trial, metric), (), lost, 0, flat)


def _on_shared_seeds(found: Sequence[Entry], metric: str) -> list[Entry]:
    """Return the entries; those that lack seeds with their mean over what all of the same standing share, if any."""
    peers: dict[tuple[bool, int, bool], list[set[int]]] = {}
    for entry in found:
        if entry.replicates:
            peers.setdefault(entry.standing, []).append({r.seed for r in entry.replicates})
    common = {standing: set[int].intersection(*seeds) for standing, seeds in peers.items()}

    def shared(entry: Entry) -> list[ReplicateResult]:
        return [r for r in entry.replicates if r.seed in common[entry.standing]]

    return [replace(e, value=summary(both, metric).mean) if (both := shared(e)) else e for e in found]


def value_of(result: TrialResult | ReplicateResult, metric: str) -> float | None:
    """Return the metric of a result, or None where it is not known or not finite."""
    value = result.metrics.get(metric)
    return float(value) if value is not None and math.isfinite(value) else None


def summary(replicates: Sequence[ReplicateResult], metric: str) -> MeanSd:
    """Return mean and deviation of the metric over the seeds on which it is known."""
    return mean_sd([value for r in replicates if (value := value_of(r, metric)) is not None])


def _order(metric: str) -> Callable[[Entry], tuple[object, ...]]:
    """Return the sort key: class, what comes before the metric, metric, and of equals the smaller, the earlier.

    Before the metric come the standing of confirmed plans and the epochs that trials reached which ended early.
    """
    cost = Metric(metric).cost

    def key(entry: Entry) -> tuple[object, ...]:
        before = {CLASS["confirmed"]: entry.standing, EARLY: (-epochs_of(entry.trial), 0)}
        value = math.inf if entry.value is None else cost(entry.value)
        last = (entry.trial.number, entry.trial.trial, entry.record.path)
        if entry.state == "failed":
            return (entry.place, *last)
        size = value_of(entry.trial, "parameters")
        return (entry.place, *before.get(entry.place, (0, 0)), value, math.inf if size is None else size, *last)

    return key


def difference_of(a: Entry, b: Entry, metric: str) -> Difference:
    """Return a - b over the seeds both were confirmed on, image by image where that is what the metric counts."""
    return difference(a.replicates, b.replicates, metric)
