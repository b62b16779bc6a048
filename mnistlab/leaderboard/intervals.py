"""Intervals of one number, and the one rule for values that say nothing of their own spread. Pure functions.

An interval of width zero would claim certainty. Values that are all equal, or a single value, give no such certainty:
their interval is unknown, unless the images that they were measured on have a spread of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtri, stdtrit

ROUNDING = 1e-12  # relative: what the sums of float64 numbers leave of a spread that is zero


@dataclass(frozen=True)
class Interval:
    """The closed interval from low to high."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        """Return whether `value` lies in the interval, its ends included."""
        return self.low <= value <= self.high

    @property
    def known(self) -> bool:
        """Return whether both ends are finite. An unknown interval is all of the real line."""
        return math.isfinite(self.low) and math.isfinite(self.high)


UNKNOWN = Interval(-math.inf, math.inf)


@dataclass(frozen=True)
class MeanSd:
    """A mean with its sample standard deviation (`ddof=1`), which is None for a single value, and the count."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """A mean difference a - b with its interval, which is all of the real line where nothing can be said.

    `p` is the two-sided p-value that belongs to the interval: 1 minus the greatest confidence at which it lacks 0.
    `images` is the number of images whose choice the interval covers beside that of the seeds; where it is 0, the
    interval covers other seeds on the same images only.
    """

    mean: float
    interval: Interval
    p: float = 1.0
    images: int = 0

    @property
    def exact(self) -> bool:
        """Return whether the difference is known without any doubt (see `exact_difference` in `paired.py`)."""
        return self.interval.low == self.interval.high

    @property
    def tied(self) -> bool:
        """Return whether the interval contains 0: a and b can't be told apart."""
        return 0.0 in self.interval


def wilson(correct: float, n: int, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a proportion (E. B. Wilson, 1927, JASA 22:209).

    `correct` need not be whole: with the mean count over several seeds the interval says how far the accuracy on
    *other images* may lie from the mean accuracy on these n. It does not cover the spread between seeds. Its width is
    never zero. (scipy's `binomtest` gives the same numbers, for whole counts only.)

    Raises:
        ValueError: unless n >= 1, 0 <= correct <= n and 0 < confidence < 1.
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"n >= 1 and 0 <= correct <= n must hold, but correct={correct} and n={n}")
    check_confidence(confidence)
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


def mean_interval(
    values: Sequence[float], confidence: float = 0.95, *, on_images: Interval | None = None, overlap: float = 0.0
) -> Interval | None:
    """Return the interval of a mean over other seeds, or None where the values say nothing of other seeds.

    That is Student's t interval of `values`, one for each seed. `on_images` is the interval of the same mean for just
    these seeds on other images; given that, the result covers other seeds and other images: the reaches of both are
    joined by their root sum of squares, each end for itself (G. Y. Zou and A. Donner, 2008, Stat. Med. 27:1693).

    Where each seed has drawn its own split, the values hold what other images change already, and `overlap` is that of
    such splits (see `standard_error`).

    Fewer than two values say nothing of other seeds, and neither do equal values without `on_images`: their
    interval would have width zero, as if the next seed could only give the same.

    Raises:
        ValueError: if a value is not finite, or unless 0 < confidence < 1.
    """
    check_confidence(confidence)
    if len(values) < 2:
        return None
    summary = mean_sd(values)
    error = standard_error(summary, scale=max(map(abs, values)), overlap=overlap)
    if not error and (on_images is None or on_images.low >= on_images.high):
        return None
    reach = student(summary.n, confidence) * error
    if on_images is None:
        return Interval(summary.mean - reach, summary.mean + reach)
    below, above = max(summary.mean - on_images.low, 0.0), max(on_images.high - summary.mean, 0.0)
    return Interval(summary.mean - math.hypot(reach, below), summary.mean + math.hypot(reach, above))


def on_other_images(mean: float, sd: float, images: int, confidence: float = 0.95) -> Interval | None:
    """Return the normal interval of a mean over `images` images with the standard deviation `sd` (`ddof=0`).

    It is of these trainings on other images. One image says nothing of others, and neither do images that are all
    equal: None.

    Raises:
        ValueError: unless 0 < confidence < 1.
    """
    check_confidence(confidence)
    if images < 2 or not sd > 0:
        return None
    reach = float(ndtri((1 + confidence) / 2)) * sd / math.sqrt(images - 1)
    return Interval(mean - reach, mean + reach)


def standard_error(summary: MeanSd, scale: float, overlap: float = 0.0) -> float:
    """Return the standard error of a mean, exactly 0 where its values are equal but for the rounding of their sums.

    `scale` is the largest absolute value among the numbers that were measured (for differences: before subtracting).
    `overlap` is added to 1 / n where the values are of splits of one set of images, and so depend on one another: the
    images that a split validates on for each of the others (C. Nadeau and Y. Bengio, 2003, Mach. Learn. 52:239).
    """
    sd = summary.sd or 0.0
    return sd * math.sqrt(1 / summary.n + overlap) if sd > ROUNDING * scale else 0.0


def student(n: int, confidence: float) -> float:
    """Return Student's factor for the mean of n >= 2 values: 12.7 for two values at 95 %, 2.8 for five."""
    return float(stdtrit(n - 1, (1 + confidence) / 2))


def check_confidence(confidence: float) -> None:
    """Refuse what is no confidence.

    Raises:
        ValueError: unless 0 < confidence < 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"0 < confidence < 1 must hold, but confidence={confidence}")
