"""How sure a number is: intervals, paired differences, tie groups. Pure functions over numpy and scipy.

On MNIST nearly the whole top of any search lies within the noise of 10,000 test images, so a ranking without these
is a ranking of luck.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

T = TypeVar("T")


@dataclass(frozen=True)
class Interval:
    """The closed interval from low to high."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        """Return whether `value` lies in the interval, its ends included."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class MeanSd:
    """A mean with its sample standard deviation (`ddof=1`), which is None for a single value, and the count."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """A mean difference a - b with its interval, which is all of the real line where nothing can be said."""

    mean: float
    interval: Interval

    @property
    def tied(self) -> bool:
        """Return whether the interval contains 0: a and b can't be told apart."""
        return 0.0 in self.interval


def wilson(correct: float, n: int, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a proportion (E. B. Wilson, 1927, JASA 22:209).

    `correct` need not be whole: with the mean count over several seeds the interval says how far the accuracy on
    *other images* may lie from the mean accuracy on these n. It does not cover the spread between seeds. (scipy's
    `binomtest` gives the same numbers, for whole counts only.)

    Raises:
        ValueError: unless n >= 1, 0 <= correct <= n and 0 < confidence < 1.
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"n >= 1 and 0 <= correct <= n must hold, but correct={correct} and n={n}")
    _check_confidence(confidence)
    z, p = float(ndtri((1 + confidence) / 2)), correct / n
    centre = p + z * z / (2 * n)
    reach = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if correct == 0 else (centre - reach) / scale
    high = 1.0 if correct == n else (centre + reach) / scale
    return Interval(max(0.0, low), min(1.0, high))


def mean_sd(values: Sequence[float]) -> MeanSd:
    """Return mean, sample standard deviation and count. One value has no standard deviation: None, not 0.

    Raises:
        ValueError: if there is no value, or one is not finite.
    """
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"one or more finite values are needed, but got {list(values)}")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return MeanSd(mean, None, 1)
    return MeanSd(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)), len(values))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Return Student's t interval of the mean over other seeds, or None for fewer than two values.

    Raises:
        ValueError: if not 0 < confidence < 1.
    """
    _check_confidence(confidence)
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    half = (
        float(stdtrit(len(values) - 1, (1 + confidence) / 2)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    )
    return Interval(mean - half, mean + half)


def paired_difference(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_], *, confidence: float = 0.95) -> Difference:
    """Return the difference of two plans' mean accuracies, with its interval over other seeds and other images.

    a and b, bool (seeds, images), tell what each plan got right; row s of both was trained with the same seed and
    column i is the same image. Seeds and images are both samples of what might have been, so the outcomes a - b are
    a two-way random layout without replication, judged by its mean squares. What the seeds add gets Student's t,
    because a few seeds tell little of their own spread; what the images add on top gets the normal quantile. The two
    reaches are joined by their root sum of squares (G. Y. Zou and A. Donner, 2008, Stat. Med. 27:1693). The result is
    never narrower than Student's interval of the seeds' differences, nor than the normal interval for just these
    seeds on other images, with A. L. Edwards' correction (1948, Psychometrika 13:185) of one image: where plans differ
    on few images, seeds agree by chance.

    One seed says nothing of others, however many images it was judged on: the interval is all of the real line.

    Raises:
        ValueError: if the shapes differ, are not two-dimensional, or hold nothing.
    """
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(f"two arrays of one shape (seeds, images) are needed, but got {a.shape} and {b.shape}")
    _check_confidence(confidence)
    gain = a.astype(np.float64) - b  # (seeds, images), each -1, 0 or 1
    mean = float(gain.mean())
    if len(gain) < 2:
        return Difference(mean, Interval(-math.inf, math.inf))
    by_seed, by_image, rest = _mean_squares(gain)
    t = float(stdtrit(len(gain) - 1, (1 + confidence) / 2))
    z = float(ndtri((1 + confidence) / 2))
    both = math.sqrt((t * t * by_seed + z * z * max(by_image - rest, 0.0)) / gain.size)
    these_seeds = z * math.sqrt(by_image / gain.size) + 1 / gain.shape[1]
    reach = max(both, these_seeds)
    return Difference(mean, Interval(mean - reach, mean + reach))


def paired_mean_difference(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Difference:
    """Return the mean of a - b over the seeds they share, with Student's t interval.

    For metrics of which only one number per seed is known. Fewer than two pairs say nothing: the interval is all of
    the real line.

    Raises:
        ValueError: if a and b differ in length.
    """
    _check_confidence(confidence)
    gains = [x - y for x, y in zip(a, b, strict=True)]
    if len(gains) < 2:
        return Difference(math.fsum(gains), Interval(-math.inf, math.inf))
    summary = mean_sd(gains)
    t = float(stdtrit(summary.n - 1, (1 + confidence) / 2))
    reach = t * (summary.sd or 0.0) / math.sqrt(summary.n)
    return Difference(summary.mean, Interval(summary.mean - reach, summary.mean + reach))


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


def _mean_squares(gain: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean squares of `gain` (seeds, images) between seeds, between images, and of what is left.

    With one image there is nothing between images and nothing left: both are 0.
    """
    seeds, images = gain.shape
    rows, columns = gain.mean(axis=1, keepdims=True), gain.mean(axis=0, keepdims=True)
    by_seed = images * float(rows.var(ddof=1))
    if images == 1:
        return by_seed, 0.0, 0.0
    left = gain - rows - columns + gain.mean()
    return by_seed, seeds * float(columns.var(ddof=1)), float(np.square(left).sum()) / ((seeds - 1) * (images - 1))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"0 < confidence < 1 must hold, but confidence={confidence}")
