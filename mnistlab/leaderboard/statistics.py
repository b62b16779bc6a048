"""How sure a number is: intervals, paired tests, tie groups, luck. Pure functions over numpy and scipy.

On MNIST nearly the whole top of any search lies within the noise of 10,000 test images, so a ranking without these
is a ranking of luck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, log_ndtr

from mnistlab.leaderboard.intervals import (
    UNKNOWN,
    Difference,
    Interval,
    MeanSd,
    check_confidence,
    mean_interval,
    mean_sd,
    on_other_images,
    wilson,
)
from mnistlab.leaderboard.paired import (
    Noise,
    exact_difference,
    paired_bootstrap,
    paired_difference,
    paired_mean_difference,
)

__all__ = [
    "Difference",
    "Interval",
    "McNemar",
    "MeanSd",
    "exact_difference",
    "expected_maximum",
    "holm",
    "mcnemar",
    "mean_interval",
    "mean_sd",
    "on_other_images",
    "p_best",
    "paired_bootstrap",
    "paired_difference",
    "paired_mean_difference",
    "selection_gap",
    "tie_groups",
    "wilson",
    "winners_curse",
]

T = TypeVar("T")


@dataclass(frozen=True)
class McNemar:
    """How many images only a got right, how many only b did, and the exact two-sided p-value."""

    only_a: int
    only_b: int
    p: float


def mcnemar(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> McNemar:
    """Return the exact test of two models on the same images (Q. McNemar, 1947, Psychometrika 12:153).

    a and b, bool (images,), tell what each got right. It judges these two models, not the plans they came from.

    Raises:
        ValueError: if the shapes differ or are not one-dimensional.
    """
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"two arrays of one shape (images,) are needed, but got {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return McNemar(only_a, only_b, min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))))


def holm(p_values: Sequence[float], comparisons: int = 0) -> tuple[float, ...]:
    """Return p-values corrected for the number of comparisons (S. Holm, 1979, Scand. J. Stat. 6:65), in their order.

    Whatever is at most alpha is told with a chance of at most alpha of one or more false claims among all of them.
    `comparisons` is how many were made where that is more than those given, of which the others told nothing.

    Raises:
        ValueError: if one is not between 0 and 1.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values from 0 to 1 are needed, but got {list(p_values)}")
    corrected, reached = [0.0] * len(p_values), 0.0
    made = max(comparisons, len(p_values))
    for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        reached = max(reached, min(1.0, (made - step) * p_values[index]))
        corrected[index] = reached
    return tuple(corrected)


# --- luck ---------------------------------------------------------------------------------------------------------


def p_best(values: npt.NDArray[np.float64], rng: np.random.Generator, *, resamples: int = 10_000) -> tuple[float, ...]:
    """Return for each plan the share of resamples of the seeds in which its mean is the greatest.

    `values` is (plans, seeds): column s was trained with the same seed in every row. Plans that are equally good in a
    resample share it.

    Raises:
        ValueError: if `values` is not two-dimensional, holds nothing, or holds what is not finite.
    """
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"finite values (plans, seeds) are needed, but got {values.shape}")
    seeds = values.shape[1]
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    means = drawn @ values.T / seeds
    best = np.isclose(means, means.max(axis=1, keepdims=True), rtol=0.0, atol=1e-12)
    return tuple(float(share) for share in (best / best.sum(axis=1, keepdims=True)).mean(axis=0))


def selection_gap(
    validation: npt.NDArray[np.bool_],
    test: npt.NDArray[np.bool_],
    confidence: float = 0.95,
    *,
    overlap: float | None = None,
) -> Difference:
    """Return validation minus test accuracy of one plan, with its interval over other seeds and other images.

    bool (seeds, images) and (seeds, other images), row s of both from the same model. What is above 0 is what
    choosing by validation has cost, or a test set that is harder. The reaches of the seeds (Student's t) and of both
    sets of images (normal) are joined by their root sum of squares. One seed says nothing of others. Where each row of
    `validation` is of other images, as each seed has drawn its own split, the seeds tell of these images too, and
    `overlap` is that of such splits (see `intervals.standard_error`).

    Raises:
        ValueError: if there are not as many seeds in both, or there is nothing.
    """
    if len(validation) != len(test) or validation.ndim != 2 or test.ndim != 2 or not (validation.size and test.size):
        raise ValueError(f"(seeds, images) of the same seeds are needed, but got {validation.shape} and {test.shape}")
    check_confidence(confidence)
    by_seed = validation.mean(axis=1) - test.mean(axis=1)
    mean, seeds = float(by_seed.mean()), len(by_seed)
    if seeds < 2:
        return Difference(mean, UNKNOWN)
    images = _variance_of_share(test) + (_variance_of_share(validation) if overlap is None else 0.0)
    noise = Noise(seeds - 1, float(by_seed.var(ddof=1)) * (1 / seeds + (overlap or 0.0)), images, 0.0, 0.0)
    reach = noise.reach(confidence)
    there = validation.shape[1] + test.shape[1]
    return Difference(mean, Interval(mean - reach, mean + reach), noise.p_value(mean), there)


def _variance_of_share(right: npt.NDArray[np.bool_]) -> float:
    """Return the variance that the choice of images gives to the mean of `right` (seeds, images); it is never 0.

    One image that is right and one that is wrong with every seed are added (A. Agresti and B. Caffo, 2000, Am. Stat.
    54:280), because a set on which nothing is wrong does not mean that nothing ever will be.
    """
    by_image = np.append(right.mean(axis=0), (0.0, 1.0))
    return float(by_image.var()) / len(by_image)


def expected_maximum(n: int) -> float:
    """Return the expected maximum of n independent standard normals: how good the best of n equals looks, in SDs.

    Raises:
        ValueError: unless n >= 1.
    """
    if n < 1:
        raise ValueError(f"n >= 1 must hold, but n={n}")
    x = np.linspace(0.0, 12.0, 4_801)
    above, below = -np.expm1(n * log_ndtr(x)), np.exp(n * log_ndtr(-x))
    return float(np.trapezoid(above - below, x))


def winners_curse(trials: int, spread: float) -> float:
    """Return by how much the best of `trials` equal plans looks better than it is; `spread` is one training's SD."""
    return expected_maximum(trials) * spread


# --- ranks --------------------------------------------------------------------------------------------------------


def tie_groups(order: Sequence[T], is_tied: Callable[[T, T], bool]) -> tuple[int, ...]:
    """Return the competition rank (1, 1, 3, ...) of each of `order`, which is sorted best first.

    A plan shares the rank of its group's leader when `is_tied(leader, plan)`; otherwise it leads the next group. The
    leader, not the neighbour, is compared with, so that a long chain of small steps does not end up as one tie.
    """
    ranks: list[int] = []
    for place, plan in enumerate(order, start=1):
        shares = bool(ranks) and is_tied(order[ranks[-1] - 1], plan)
        ranks.append(ranks[-1] if shares else place)
    return tuple(ranks)
