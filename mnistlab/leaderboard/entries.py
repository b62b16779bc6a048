"""A trial as the ranking sees it: its class, its value, its order among others, and whom it is tied with."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mnistlab.labels import Scalar, settings
from mnistlab.racing import difference
from mnistlab.results import ReplicateResult, RunRecord, TrialResult, higher_is_better
from mnistlab.statistics import Difference, MeanSd, holm, mean_sd, tie_groups

# Lower stands below. Pruned and interrupted trials are in one class: neither has used its full budget, and that is all
# that a ranking may hold against them. That a scheduler gave one up is in its few epochs already, and to put the other
# above it would reward a trial for having been in the way of a Ctrl-C.
CLASS = {"confirmed": 0, "complete": 1, "pruned": 2, "interrupted": 2, "failed": 3}
EARLY = CLASS["pruned"]
UNRANKED = "-"
ALPHA = 0.05  # the chance of one false claim or more that a ranking of equal plans may take

Differ = Callable[[int, int], Difference]


@dataclass(frozen=True)
class Entry:
    """A trial with its good replicates and the counts of the others; `value` is None without a finite number.

    `settings` are those of its plan, as `labels.settings` gives them; `left` says that it left a race.
    """

    record: RunRecord
    trial: TrialResult
    state: str
    value: float | None
    replicates: tuple[ReplicateResult, ...]
    lost: int
    untried: int
    settings: Mapping[str, Scalar]
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


def entries(records: Sequence[RunRecord], metric: str) -> list[Entry]:
    """Return every trial of `records`, best first. They are of one dataset, split and metric."""
    found = [entry for record in records for entry in _entries(record, metric)]
    return sorted(_on_shared_seeds(found, metric), key=_order(metric))


def _entries(record: RunRecord, metric: str) -> list[Entry]:
    by_trial: dict[str, list[ReplicateResult]] = defaultdict(list)
    for replicate in sorted(record.replicates, key=lambda r: (r.replicate, r.seed)):
        by_trial[replicate.trial].append(replicate)
    planned, left = _planned(record), _left_the_race(record)
    return [
        _entry(record, trial, by_trial.get(trial.trial, []), metric, planned, left=trial.trial in left)
        for trial in record.trials
    ]


def _planned(record: RunRecord) -> int:
    """Return how many seeds a confirmed plan is held to; of a run that does not say so, the most that one has.

    Where a later confirmation gave more seeds to some plans only, all are held to what every one of them was to get.
    """
    planned = [entry for entry in record.confirmations if entry.get("type") == "planned"]
    asked = {trial: int(entry["seeds"]) for entry in planned for trial in entry["trials"]}
    if asked:
        left = _left_the_race(record)
        return min([seeds for trial, seeds in asked.items() if trial not in left] or asked.values())
    said = record.run.get("experiment", {}).get("confirm", {}).get("seeds")
    return int(said or max(Counter(r.trial for r in record.replicates).values(), default=0))


def _left_the_race(record: RunRecord) -> frozenset[str]:
    """Return the plans that got no more seeds because they could no longer win."""
    return frozenset(str(entry["trial"]) for entry in record.confirmations if entry.get("type") == "dropped")


def _entry(
    record: RunRecord, trial: TrialResult, mine: Sequence[ReplicateResult], metric: str, planned: int, *, left: bool
) -> Entry:
    good = tuple(r for r in mine if not r.cause and value_of(r, metric) is not None)
    lost, untried = len(mine) - len(good), max(0, planned - len(mine))
    flat = settings(trial.plan)
    if good:
        out = left and untried > 0
        mean = summary(good, metric).mean
        return Entry(record, trial, "confirmed", mean, good, lost, 0 if out else untried, flat, out)
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
    sign = -1 if higher_is_better(metric) else 1

    def key(entry: Entry) -> tuple[object, ...]:
        before = {CLASS["confirmed"]: entry.standing, EARLY: (-len(entry.trial.history), 0)}
        value = math.inf if entry.value is None else sign * entry.value
        last = (entry.trial.number, entry.trial.trial, entry.record.path)
        if entry.state == "failed":
            return (entry.place, *last)
        size = value_of(entry.trial, "parameters")
        return (entry.place, *before.get(entry.place, (0, 0)), value, math.inf if size is None else size, *last)

    return key


# --- ranks and ties -----------------------------------------------------------------------------------------------


def ranks(found: Sequence[Entry], tied: Callable[[int, int], bool]) -> tuple[str, ...]:
    """Return `1`, or `1=` where it is shared; ties by noise among confirmed plans, by equal value among the others."""
    ranked = [i for i, entry in enumerate(found) if entry.state != "failed"]

    def shares(leader: int, other: int) -> bool:
        a, b = found[leader], found[other]
        if a.place != b.place:
            return False
        if a.state == "confirmed":
            return a.standing == b.standing and tied(leader, other)
        return a.value == b.value and (a.place != EARLY or len(a.trial.history) == len(b.trial.history))

    places = tie_groups(ranked, shares)
    size = Counter(places)
    text = [f"{r}=" if size[r] > 1 else str(r) for r in places]
    return (*text, *[UNRANKED] * (len(found) - len(ranked)))


def tied_with(leader: int, found: Sequence[Entry], differ: Differ) -> frozenset[int]:
    """Return the confirmed entries below `leader` that can't be told from it.

    The leader was found by looking at all of them, so Holm's correction is for every pair there is, though only those
    with the leader are tested: with equal plans the leader is told from one or more in at most one ranking of twenty.
    """
    others = [i for i, entry in enumerate(found) if entry.state == "confirmed"]
    below = [i for i in others if i > leader]
    pairs = len(others) * (len(others) - 1) // 2
    corrected = holm([differ(leader, i).p for i in below], pairs)
    return frozenset(i for i, p in zip(below, corrected, strict=True) if p > ALPHA)


def difference_of(a: Entry, b: Entry, metric: str) -> Difference:
    """Return a - b over the seeds both were confirmed on, image by image where that is what the metric counts."""
    return difference(a.replicates, b.replicates, metric)
