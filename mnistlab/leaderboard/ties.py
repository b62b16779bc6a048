"""What a tie could have shown: how large a difference would have been seen, and how many more seeds would show one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtri, stdtrit

from mnistlab.leaderboard.entries import Entry, value_of
from mnistlab.leaderboard.intervals import ROUNDING
from mnistlab.leaderboard.power import MOST, POWER, images_suffice, seeds_to_tell, smallest_difference
from mnistlab.leaderboard.racing import own_splits
from mnistlab.leaderboard.statistics import Difference, mean_sd
from mnistlab.store.results import ReplicateResult
from mnistlab.util.text import ACCURACIES, counted

POINT_TENTH = 0.001  # the difference of accuracies that a tie names the seeds for
MEDIUM = 0.5  # of a standard deviation between seeds: that of other metrics, Cohen's "medium" (1988)
FEWEST = 3  # shared seeds, below which a spread says nothing of what more seeds would show


@dataclass(frozen=True)
class Tie:
    """What the comparison of two plans that are tied could have shown, with a chance of 80 %.

    `seeds` are those that both have, and `detectable` is the smallest true difference that they could have shown, None
    where they are too few to say. `more` further seeds would show one of `reference`; None where that is not known,
    where the images do not suffice (`images` is False), or where it would take more than 1,000 seeds. `own_splits` says
    that each seed has validated on images that it drew for itself. Differences are in the metric's own unit, of
    accuracies as shares. All of it is planned from a spread that few seeds have measured.
    """

    seeds: int
    detectable: float | None
    reference: float | None
    more: int | None
    images: bool = True
    own_splits: bool = False


def tie_of(a: Entry, b: Entry, metric: str, gap: Difference, level: float, reference: float | None) -> Tie:
    """Return what the comparison `gap` of two plans could have shown at a p-value of `level`."""
    ours, theirs = ({r.seed: v for r in one.replicates if (v := value_of(r, metric)) is not None} for one in (a, b))
    gains = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    spread = (mean_sd(gains).sd or 0.0) if gains else 0.0
    scale = max(map(abs, (*ours.values(), *theirs.values())), default=0.0)
    reach = (gap.interval.high - gap.interval.low) / 2
    if len(gains) < FEWEST or not spread > ROUNDING * scale or not math.isfinite(reach):
        return Tie(len(gains), None, reference, None)
    overlap = own_splits([*a.replicates, *b.replicates]).get("overlap", 0.0)
    about = {"images": 0.0, "one_image": 0.0}
    if not overlap:
        about = {"images": _images(reach, spread, len(gains)), "one_image": _one_image(a, metric)}
    detectable = smallest_difference(spread, len(gains), level, overlap=overlap, **about)
    if reference is None:
        return Tie(len(gains), detectable, None, None)
    needed = seeds_to_tell(reference, spread, level, overlap=overlap, **about)
    more = None if needed is None else max(0, needed - len(gains))
    about["images"] += math.sqrt(overlap) * spread  # what the splits have in common
    return Tie(len(gains), detectable, reference, more, images_suffice(reference, level, **about), overlap > 0)


def _images(reach: float, spread: float, seeds: int) -> float:
    """Return the standard error that images add: what the 95 % interval has on top of Student's of the seeds."""
    by_seeds = float(stdtrit(seeds - 1, 0.975)) * spread / math.sqrt(seeds)
    return math.sqrt(max(reach**2 - by_seeds**2, 0.0)) / float(ndtri(0.975))


def _one_image(plan: Entry, metric: str) -> float:
    """Return what one image adds to an accuracy that is judged image by image; 0 for other metrics."""
    images = len(plan.replicates[0].val_correct) if metric == "val_accuracy" else 0
    return 1 / images if images else 0.0


def reference_of(plans: Sequence[Entry], metric: str) -> float | None:
    """Return the difference that ties name the seeds for, in the metric's unit.

    That is 0.1 points of an accuracy; of another metric half of the standard deviation between seeds of one plan, or
    None where there is no such spread.
    """
    if metric in ACCURACIES:
        return POINT_TENTH
    spread = pooled_spread([one.replicates for one in plans], metric)
    return None if spread is None else MEDIUM * spread


def pooled_spread(plans: Sequence[Sequence[ReplicateResult]], metric: str) -> float | None:
    """Return the standard deviation between seeds within a plan, pooled over plans, None where it is not known.

    That is so with one degree of freedom, and where each plan has the same value with all of its seeds.
    """
    values = [[v for r in replicates if (v := value_of(r, metric)) is not None] for replicates in plans]
    several = [(mean_sd(mine).sd or 0.0, len(mine) - 1) for mine in values if len(mine) > 1]
    degrees = sum(n for _, n in several)
    if degrees < 2:
        return None
    spread = math.sqrt(sum(n * sd**2 for sd, n in several) / degrees)
    return spread if spread > ROUNDING * max(abs(v) for mine in values for v in mine) else None


def weakest(ties: Sequence[Tie]) -> Tie | None:
    """Return the tie that could have shown least, or None of none."""
    return max(ties, key=lambda tie: (math.inf if tie.detectable is None else tie.detectable, -tie.seeds), default=None)


# --- in words -----------------------------------------------------------------------------------------------------


def size_text(metric: str, value: float) -> str:
    """Return the size of a difference to two digits, of accuracies in points: `0.16 points`, `1,200`, `3.4e-05`."""
    size = float(f"{100 * value if metric in ACCURACIES else value:.2g}")
    return f"{size:,.10g}" + " points" * (metric in ACCURACIES)


def seen_text(metric: str, tie: Tie) -> str:
    """Return how large a difference could have been seen."""
    if tie.detectable is not None and metric in ACCURACIES and tie.detectable >= 1:
        return f"{counted(tie.seeds, 'seed')} could hardly show any difference"
    if tie.detectable is not None:
        return f"{counted(tie.seeds, 'seed')} could show a difference of about {size_text(metric, tie.detectable)}"
    if tie.seeds < FEWEST:
        few = f"{counted(tie.seeds, 'shared seed')} {'is' if tie.seeds == 1 else 'are'} too few"
        return f"{few} to say how large a difference could have been seen"
    return "how large a difference could have been seen is not known, as the seeds show no spread"


def tie_text(metric: str, tie: Tie) -> str:
    """Return how large a difference could have been seen, and how many more seeds would show the one of reference."""
    seen = seen_text(metric, tie)
    if tie.detectable is None:
        return seen
    seen = f"{seen} ({100 * POWER:.0f} % power)"
    if tie.reference is None:
        return seen
    wanted = size_text(metric, tie.reference) + " (half of the deviation between seeds)" * (metric not in ACCURACIES)
    if tie.more == 0:
        return f"{seen}, so also one of {wanted}"
    if tie.more is not None:
        return f"{seen}; about {tie.more} more would show one of {wanted}"
    if not tie.images:
        where = "by such splits of these images" if tie.own_splits else "on these validation images"
        return f"{seen}; no number of seeds would show one of {wanted} {where}"
    return f"{seen}; one of {wanted} would take more than {MOST:,} seeds"
