"""Paired comparisons of two plans that were trained on the same seeds and judged on the same images. Pure functions.

Every one of them keeps the rule of `intervals`: outcomes that say nothing of their own spread give an unknown interval
and p = 1, never an interval of width zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from mnistlab.leaderboard.intervals import (
    UNKNOWN,
    Difference,
    Interval,
    check_confidence,
    mean_sd,
    standard_error,
    student,
)

Outcomes = npt.NDArray[np.bool_] | npt.NDArray[np.floating[Any]]

BLOCK = 4_000_000  # numbers that a resampling holds at once


def paired_difference(a: Outcomes, b: Outcomes, *, confidence: float = 0.95) -> Difference:
    """Return the difference of two plans' means, with its interval over other seeds and other images.

    a and b, (seeds, images), hold what each plan got right (bool) or a number for each image (float: its loss, say);
    row s of both was trained with the same seed and column i is the same image. Seeds and images are both samples of
    what might have been, so the outcomes a - b are a two-way random layout without replication, judged by its mean
    squares. What the seeds add gets Student's t, because a few seeds tell little of their own spread; what the images
    add on top gets the normal quantile. The two reaches are joined by their root sum of squares (G. Y. Zou and
    A. Donner, 2008, Stat. Med. 27:1693).

    The result is never narrower than Student's interval of the seeds' differences, nor than the interval for just
    these seeds on other images. The latter is the normal form of McNemar's and of the sign-flip test, whose squares are
    taken about 0, with A. L. Edwards' correction (1948, Psychometrika 13:185) of one image: where plans differ on few
    images, seeds agree by chance. For floats the correction is the smallest difference that any image shows.

    One seed says nothing of others, however many images it was judged on, and neither do numbers that are the same
    for every seed and image: the interval is all of the real line.

    Raises:
        ValueError: if the shapes differ, are not two-dimensional, or hold nothing or what is not finite.
    """
    _check_pair(a, b)
    check_confidence(confidence)
    gain = np.subtract(a, b, dtype=np.float64)
    mean, images = float(gain.mean()), gain.shape[1]
    noise = noise_of(gain, one_image=_smallest(a, gain) / images)
    if noise is None:
        return Difference(mean, UNKNOWN, images=images)
    reach = noise.reach(confidence)
    return Difference(mean, Interval(mean - reach, mean + reach), noise.p_value(mean), images)


def _smallest(a: Outcomes, gain: npt.NDArray[np.float64]) -> float:
    """Return the smallest difference that one image can make: of outcomes 1, of numbers the smallest that is there."""
    if a.dtype == np.bool_:
        return 1.0
    there = np.abs(gain[gain != 0])
    return float(there.min()) if there.size else 0.0


@dataclass(frozen=True)
class Noise:
    """The variances of a mean difference: of the seeds, of the images on top, and for just these seeds."""

    degrees: int
    seeds: float
    images: float
    these_seeds: float
    one_image: float

    def reach(self, confidence: float) -> float:
        """Return half the width of the interval."""
        z = float(ndtri((1 + confidence) / 2))
        return max(self._both(1 - confidence), z * math.sqrt(self.these_seeds) + self.one_image)

    def p_value(self, mean: float) -> float:
        """Return the p-value at which the interval around `mean` just reaches 0."""
        beyond = max(abs(mean) - self.one_image, 0.0)
        just_these = 2 * float(ndtr(-_ratio(beyond, math.sqrt(self.these_seeds))))
        return max(just_these, self._p_both(abs(mean)))

    def _both(self, alpha: float) -> float:
        t, z = float(stdtrit(self.degrees, alpha / 2)), float(ndtri(alpha / 2))
        return math.sqrt(t * t * self.seeds + z * z * self.images)

    def _p_both(self, mean: float) -> float:
        """Return the alpha at which `_both` is `mean`, which it passes from above: by halving its logarithm's range."""
        low, high = -300.0, 0.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self._both(10.0**middle) > mean else (low, middle)
        return 10.0**high


def noise_of(gain: npt.NDArray[np.float64], one_image: float) -> Noise | None:
    """Return the noise of the mean of `gain` (seeds, images), or None where it says nothing of other seeds or images.

    That is one seed, or an interval of width zero.
    """
    if len(gain) < 2:
        return None
    by_seed, by_image, rest = _mean_squares(gain)
    about_zero = len(gain) * float((gain.mean(axis=0) ** 2).mean())  # >= by_image, and not 0 where all gains are equal
    noise = Noise(
        degrees=len(gain) - 1,
        seeds=by_seed / gain.size,
        images=max(by_image - rest, 0.0) / gain.size,
        these_seeds=max(by_image, about_zero) / gain.size,
        one_image=one_image,
    )
    return noise if noise.reach(0.5) > 0 else None


def paired_bootstrap(
    a: npt.NDArray[np.bool_],
    b: npt.NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> Difference:
    """Return the difference of mean accuracies with the percentile interval over resampled seeds and resampled images.

    a and b are bool (seeds, images), as for `paired_difference`. Seeds and images are drawn with replacement,
    independently of each other (A. B. Owen, 2007, Ann. Appl. Stat. 1:386). It takes the spread of the seeds at face
    value, so with fewer than about ten it may be too narrow; where errors are accidents of one seed and image it is up
    to 1.7 times too wide. Ties rest on `paired_difference`. Only images on
    which a and b differ are looked at, in blocks, so that memory stays bounded.

    One seed can't be resampled, and neither can differences that are all the same: the interval is all of the real
    line.

    Raises:
        ValueError: if the shapes differ, are not two-dimensional, or hold nothing.
    """
    _check_pair(a, b)
    check_confidence(confidence)
    gain = a.astype(np.float64) - b
    seeds, images = gain.shape
    mean = float(gain.mean())
    if seeds < 2 or gain.min() == gain.max():
        return Difference(mean, UNKNOWN, images=images)
    told = gain[:, gain.any(axis=0)]
    chances = np.append(np.full(told.shape[1], 1 / images), max(0.0, 1 - told.shape[1] / images))
    means: list[npt.NDArray[np.float64]] = []
    block = max(1, BLOCK // len(chances))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=size)
        by_image = rng.multinomial(images, chances, size=size)[:, :-1]
        means.append(((by_seed @ told) * by_image).sum(axis=1) / gain.size)
    drawn = np.concatenate(means)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    if low == high:
        return Difference(mean, UNKNOWN, images=images)
    p = 2 * min(float((drawn <= 0).mean()), float((drawn >= 0).mean()))
    return Difference(mean, Interval(float(low), float(high)), min(1.0, p), images)


def paired_mean_difference(
    a: Sequence[float], b: Sequence[float], confidence: float = 0.95, *, overlap: float = 0.0, images: int = 0
) -> Difference:
    """Return the mean of a - b over the seeds they share, with Student's t interval: it covers other seeds only.

    For metrics of which only one number per seed is known, and for seeds each of which has drawn its own split: these
    numbers hold what other images change too. Such splits share most of their images, so that the mean is less sure
    than one of as many independent numbers: `overlap`, the validation images for each of the others, is
    added to 1 / seeds (C. Nadeau and Y. Bengio, 2003, Mach. Learn. 52:239). `images` is what the interval then covers.

    Fewer than two pairs say nothing of other seeds, and neither do differences that are the same with every seed: the
    interval is all of the real line.

    Raises:
           ValueError: if a and b differ in length, or hold what is not finite.
    """
    check_confidence(confidence)
    gains = [x - y for x, y in zip(a, b, strict=True)]
    if len(gains) < 2:
        return Difference(math.fsum(gains), UNKNOWN, images=images)
    summary = mean_sd(gains)
    error = standard_error(summary, scale=max(map(abs, (*a, *b))), overlap=overlap)
    if not error:
        return Difference(summary.mean, UNKNOWN, images=images)
    reach = student(summary.n, confidence) * error
    p = 2 * float(stdtr(summary.n - 1, -abs(summary.mean) / error))
    return Difference(summary.mean, Interval(summary.mean - reach, summary.mean + reach), p, images)


def exact_difference(a: Sequence[float], b: Sequence[float]) -> Difference | None:
    """Return the difference of a property of two plans that no seed and no image changes, such as their parameters.

    a and b, one number for each seed of a plan, are then all equal. One seed of each is enough, the plans need not
    share it, and the interval of width zero is what is known. Where the numbers of one plan differ, or there are none,
    this is no such property: None.
    """
    if len({*a}) != 1 or len({*b}) != 1:
        return None
    gain = a[0] - b[0]
    return Difference(gain, Interval(gain, gain), 0.0 if gain else 1.0)


def _mean_squares(gain: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean squares of `gain` (seeds, images) between seeds, between images, and of what is left.

    With one image there is nothing between images and nothing left: both are 0.
    """
    seeds, images = gain.shape
    centred = gain - gain.mean()
    rows, columns = centred.mean(axis=1), centred.mean(axis=0)
    by_seed, by_image = images * float(np.square(rows).sum()), seeds * float(np.square(columns).sum())
    if images == 1:
        return by_seed / (seeds - 1), 0.0, 0.0
    left = max(float(np.square(centred).sum()) - by_seed - by_image, 0.0)
    return by_seed / (seeds - 1), by_image / (images - 1), left / ((seeds - 1) * (images - 1))


def _ratio(distance: float, error: float) -> float:
    """Return how many errors a distance is, also where there is no error at all."""
    return distance / error if error else math.inf if distance else 0.0


def _check_pair(a: Outcomes, b: Outcomes) -> None:
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(f"two arrays of one shape (seeds, images) are needed, but got {a.shape} and {b.shape}")
    if a.dtype != np.bool_ and not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("finite numbers are needed for every seed and image")
