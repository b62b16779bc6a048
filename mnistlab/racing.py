"""Paired comparisons of confirmed plans, and a race of them: which can no longer win. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mnistlab.results import ReplicateResult, higher_is_better
from mnistlab.statistics import Difference, paired_difference, paired_mean_difference

LEAST = 3  # seeds before the first look: two say next to nothing of their own spread
RISK = 0.05  # of all races of a run, over all of their looks and comparisons

Replicates = Sequence[ReplicateResult]


@dataclass(frozen=True)
class Beaten:
    """A plan that can no longer win: `difference` is the leader's metric minus its own, over `seeds` shared seeds."""

    trial: str
    leader: str
    seeds: int
    difference: Difference
    confidence: float


def difference(ours: Replicates, theirs: Replicates, metric: str, confidence: float = 0.95) -> Difference:
    """Return ours - theirs over the seeds both have, image by image where that is what the metric counts."""
    a, b = ({one.seed: one for one in side} for side in (ours, theirs))
    seeds = sorted(a.keys() & b.keys())
    outcomes = [(a[seed].val_correct, b[seed].val_correct) for seed in seeds]
    lengths = {len(text) for pair in outcomes for text in pair}
    if metric == "val_accuracy" and len(lengths) == 1 and lengths != {0}:
        mine, others = bits([x for x, _ in outcomes]), bits([y for _, y in outcomes])
        return paired_difference(mine, others, confidence=confidence)
    return paired_mean_difference(
        [a[seed].metrics[metric] for seed in seeds], [b[seed].metrics[metric] for seed in seeds], confidence
    )


def bits(texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return "0110" strings of one length as bool (seeds, images)."""
    return (np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8) == ord("1")).reshape(len(texts), -1)


def races_before(entries: Iterable[Mapping[str, Any]], trials: Iterable[str], seeds: int) -> int:
    """Return how many races a run has begun before the first beginning of that of `trials` over `seeds` seeds.

    `entries` are those of `confirmation.jsonl`. A race that was cut off and is gone on with is planned anew, but looks
    at the same trainings: it is one race, and judged as if it had not been cut.
    """
    planned = (entry for entry in entries if entry.get("type") == "planned")
    begun = list(dict.fromkeys((frozenset(entry["trials"]), int(entry["seeds"])) for entry in planned))
    this = (frozenset(trials), seeds)
    return begun.index(this) if this in begun else len(begun)


def left_a_race(entries: Iterable[Mapping[str, Any]], seeds: int) -> frozenset[str]:
    """Return the plans that have left a race over at least so many seeds; over more, they may run again.

    `entries` are those of `confirmation.jsonl`.
    """
    found, over = set[str](), 0
    for entry in entries:
        if entry.get("type") == "planned":
            over = int(entry["seeds"])
        elif entry.get("type") == "dropped" and over >= seeds:
            found.add(str(entry["trial"]))
    return frozenset(found)


def confidence_of(plans: int, seeds: int, earlier: int = 0) -> float:
    """Return the confidence of one comparison in a race of `plans` plans over `seeds` seeds, after `earlier` races.

    The truly best plan falls out only if some rival seems better at some look. There are at most plans - 1 rivals and
    seeds - LEAST looks, so by Bonferroni the chance of that is at most half of what is spent here, as only one side
    counts. The first race of a run spends RISK, each later one half of what the one before it has spent, so that the
    chance over any number of races is at most RISK.
    """
    return 1 - RISK / 2**earlier / (max(1, plans - 1) * max(1, seeds - LEAST))


def beaten(alive: Mapping[str, Replicates], metric: str, confidence: float) -> list[Beaten]:
    """Return which of the plans that are `alive` the leading one beats by more than noise.

    The leader has the best mean over the seeds that all of them share. A plan with fewer than LEAST good seeds is not
    judged: it may have had bad luck only.
    """
    judged = {trial: ones for trial, ones in alive.items() if len(ones) >= LEAST}
    if len(judged) < 2:
        return []
    shared = set[int].intersection(*({one.seed for one in ones} for ones in judged.values()))
    if len(shared) < LEAST:
        return []
    sign = 1 if higher_is_better(metric) else -1
    means = {t: np.mean([one.metrics[metric] for one in ones if one.seed in shared]) for t, ones in judged.items()}
    leader = max(judged, key=lambda trial: sign * means[trial])
    found: list[Beaten] = []
    for trial, ones in judged.items():
        gap = difference(judged[leader], ones, metric, confidence)
        if trial != leader and not gap.tied and sign * gap.mean > 0:
            both = {one.seed for one in ones} & {one.seed for one in judged[leader]}
            found.append(Beaten(trial, leader, len(both), gap, confidence))
    return found
