"""Paired comparisons of confirmed plans, and a race of them: which can no longer win. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from mnistlab.leaderboard.paired import Outcomes
from mnistlab.leaderboard.statistics import Difference, exact_difference, paired_difference, paired_mean_difference
from mnistlab.store.metric import FIXED, Metric
from mnistlab.store.results import ReplicateResult

LEAST = 3  # seeds before the first look: two say next to nothing of their own spread
ALPHA = 0.05  # the chance of one false claim or more that all comparisons of a ranking of equal plans may take
RISK = ALPHA / 2  # the part of it that all races of a run may take, over all of their looks and comparisons
LATER = 0.2  # what a race may take of what the race before it could: the first of a run takes four fifths of RISK

Replicates = Sequence[ReplicateResult]


@dataclass(frozen=True)
class Beaten:
    """A plan that can no longer win: `difference` is the leader's metric minus its own, over `seeds` shared seeds.

    `seeds_only` says that other images might have told otherwise: the metric is not known of each image.
    """

    trial: str
    leader: str
    seeds: int
    difference: Difference
    confidence: float
    seeds_only: bool = False


@dataclass(frozen=True)
class Drop:
    """How a plan left a race of `trials`: `leader` beat it over `seeds` shared seeds, at a p-value of at most `level`.

    The `level` holds for every pair of the race at every look, so that it also judges the plan against those that went
    on beside the leader. `again` says that a later confirmation has asked for more seeds of the plan.
    """

    leader: str
    seeds: int
    level: float
    trials: frozenset[str]
    again: bool = False


def difference(ours: Replicates, theirs: Replicates, metric: str, confidence: float = 0.95) -> Difference:
    """Return ours - theirs over the seeds that both have.

    Where the metric is known of each image, in all of those trainings, its interval covers other seeds and other
    images; elsewhere other seeds only (`Difference.images` is 0). Where each seed has drawn its own split, images of
    two seeds are different ones: each seed is one number then, which holds what other images change. What is fixed by
    the plan has an exact difference, whether they share seeds or not.

    Raises:
        RunDirectoryError: if a file with values for each image can't be read, or is damaged.
    """
    if metric in FIXED:
        every = ([one.metrics[metric] for one in side] for side in (ours, theirs))
        if exact := exact_difference(*every):
            return exact
    a, b = ({one.seed: one for one in side} for side in (ours, theirs))
    seeds = sorted(seed for seed in a.keys() & b.keys() if a[seed].split == b[seed].split)
    mine, others = [a[seed] for seed in seeds], [b[seed] for seed in seeds]
    own = own_splits([*mine, *others])
    if not own and images_of([*mine, *others], metric):
        return paired_difference(outcomes(mine, metric), outcomes(others, metric), confidence=confidence)
    x, y = ([one.metrics[metric] for one in side] for side in (mine, others))
    return paired_mean_difference(x, y, confidence, **own)


class OwnSplits(TypedDict, total=False):
    """Of seeds that have drawn their own splits: how these overlap, and how many images the smallest validates on."""

    overlap: float
    images: int


def own_splits(replicates: Replicates) -> OwnSplits:
    """Return what `paired_mean_difference` is to know of splits that seeds have drawn for themselves; else nothing."""
    splits = [one.split for one in replicates if one.split]
    if not splits:
        return {}
    return {"overlap": max(one.overlap for one in splits), "images": min(one.validation for one in splits)}


def images_of(replicates: Replicates, metric: str) -> int:
    """Return on how many images `outcomes` can tell the metric of all these trainings; 0 where it can't.

    No file is read for that.
    """
    counts = {_images(one, metric) for one in replicates}
    return counts.pop() if len(counts) == 1 else 0


def _images(one: ReplicateResult, metric: str) -> int:
    if metric == "val_accuracy":
        return len(one.val_correct)
    about = one.per_image
    return about.images if about and about.read and metric in about.sd else 0


def outcomes(replicates: Replicates, metric: str) -> Outcomes:
    """Return the metric of each training on each image, (seeds, images): bool for the accuracy, else float32.

    Raises:
        ValueError: if it is not known of all of them, on equally many images (see `images_of`).
        RunDirectoryError: if a file with values for each image can't be read, or is damaged.
    """
    if not images_of(replicates, metric):
        raise ValueError(f"{metric} is not known of each image")
    if metric == "val_accuracy":
        return bits([one.val_correct for one in replicates])
    reads = [one.per_image.read for one in replicates if one.per_image and one.per_image.read]
    return np.stack([read()[metric] for read in reads])


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


def drops(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Drop]:
    """Return the plans that left a race, by their trials, and how they left it; the newest race counts.

    `entries` are those of `confirmation.jsonl`. A race of an older version took another share of the risk: its own
    decisions stand, but its level judges no other pair more generously than today's.
    """
    found, over = dict[str, tuple[Drop, int]](), 0
    race, today = frozenset[str](), 0.0
    for place, entry in enumerate(entries):
        if entry.get("type") == "planned":
            race, over = frozenset(map(str, entry["trials"])), int(entry["seeds"])
            today = 1 - confidence_of(len(race), over, races_before(entries[:place], race, over))
            for trial in race & found.keys():
                drop, then = found[trial]
                found[trial] = (replace(drop, again=drop.again or over > then), then)
        elif entry.get("type") == "dropped":
            level = min(today, 1 - float(entry.get("confidence", 1.0)))
            drop = Drop(str(entry.get("leader", "")), int(entry.get("seeds", 0)), level, race)
            found[str(entry["trial"])] = (drop, over)
    return {trial: drop for trial, (drop, _) in found.items()}


def level_of(run: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> float:
    """Return what is left of ALPHA for a run's final comparisons: all of it, unless a race has taken its part.

    `run` is run.json, `entries` those of `confirmation.jsonl`.
    """
    confirm = run.get("experiment", {}).get("confirm", {})
    asked = [int(entry["seeds"]) for entry in entries if entry.get("type") == "planned"] or [confirm.get("seeds") or 0]
    looked = bool(confirm.get("racing")) and max(asked) > LEAST
    return ALPHA - RISK if looked or any(entry.get("type") == "dropped" for entry in entries) else ALPHA


def confidence_of(plans: int, seeds: int, earlier: int = 0) -> float:
    """Return the confidence of one comparison in a race of `plans` plans over `seeds` seeds, after `earlier` races.

    A race makes a false claim only if some pair of equal plans seems unlike at some look, whichever of them leads. By
    Bonferroni over all pairs and looks the chance of that is at most what the race may take: of RISK four fifths, and
    each later race of a run a fifth of what the one before it could, so that all of them together take at most RISK.
    """
    pairs, looks = max(1, plans * (plans - 1) // 2), max(1, seeds - LEAST)
    return 1 - RISK * (1 - LATER) * LATER**earlier / (pairs * looks)


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
    worth = Metric(metric).worth
    means = {t: np.mean([one.metrics[metric] for one in ones if one.seed in shared]) for t, ones in judged.items()}
    leader = max(judged, key=lambda trial: worth(float(means[trial])))
    found: list[Beaten] = []
    for trial, ones in judged.items():
        gap = difference(judged[leader], ones, metric, confidence)
        if trial != leader and not gap.tied and worth(gap.mean) > 0:
            both = {one.seed for one in ones} & {one.seed for one in judged[leader]}
            narrow = not gap.images and metric not in FIXED
            found.append(Beaten(trial, leader, len(both), gap, confidence, narrow))
    return found
