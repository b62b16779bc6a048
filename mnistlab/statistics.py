"""How sure a number is: intervals, paired tests, tie groups, luck. Pure functions over numpy and scipy.

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
from scipy.special import bdtr, log_ndtr, ndtr, ndtri, stdtr, stdtrit

T = TypeVar("T")

BLOCK = 4_000_000  # numbers that a resampling holds at once


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
    """A mean difference a - b with its interval, which is all of the real line where nothing can be said.

    `p` is the two-sided p-value that belongs to the interval: 1 minus the greatest confidence at which it lacks 0.
    """

    mean: float
    interval: Interval
    p: float = 1.0

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
    _check_pair(a, b)
    _check_confidence(confidence)
    gain = a.astype(np.int8) - b.astype(np.int8)  # (seeds, images), each -1, 0 or 1
    mean = float(gain.mean())
    if len(gain) < 2:
        return Difference(mean, Interval(-math.inf, math.inf))
    by_seed, by_image, rest = _mean_squares(gain)
    noise = _Noise(
        degrees=len(gain) - 1,
        seeds=by_seed / gain.size,
        images=max(by_image - rest, 0.0) / gain.size,
        these_seeds=by_image / gain.size,
        one_image=1 / gain.shape[1],
    )
    reach = noise.reach(confidence)
    return Difference(mean, Interval(mean - reach, mean + reach), noise.p_value(mean))


@dataclass(frozen=True)
class _Noise:
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

    Raises:
        ValueError: if the shapes differ, are not two-dimensional, or hold nothing.
    """
    _check_pair(a, b)
    _check_confidence(confidence)
    gain = a.astype(np.float64) - b
    seeds, images = gain.shape
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
    p = 2 * min(float((drawn <= 0).mean()), float((drawn >= 0).mean()))
    return Difference(float(gain.mean()), Interval(float(low), float(high)), min(1.0, p))


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
    error = (summary.sd or 0.0) / math.sqrt(summary.n)
    reach = float(stdtrit(summary.n - 1, (1 + confidence) / 2)) * error
    p = 2 * float(stdtr(summary.n - 1, -_ratio(abs(summary.mean), error)))
    return Difference(summary.mean, Interval(summary.mean - reach, summary.mean + reach), p)


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
    validation: npt.NDArray[np.bool_], test: npt.NDArray[np.bool_], confidence: float = 0.95
) -> Difference:
    """Return validation minus test accuracy of one plan, with its interval over other seeds and other images.

    bool (seeds, images) and (seeds, other images), row s of both from the same model. What is above 0 is what
    choosing by validation has cost, or a test set that is harder. The reaches of the seeds (Student's t) and of both
    sets of images (normal) are joined by their root sum of squares. One seed says nothing of others.

    Raises:
        ValueError: if there are not as many seeds in both, or there is nothing.
    """
    if len(validation) != len(test) or validation.ndim != 2 or test.ndim != 2 or not (validation.size and test.size):
        raise ValueError(f"(seeds, images) of the same seeds are needed, but got {validation.shape} and {test.shape}")
    _check_confidence(confidence)
    by_seed = validation.mean(axis=1) - test.mean(axis=1)
    mean, seeds = float(by_seed.mean()), len(by_seed)
    if seeds < 2:
        return Difference(mean, Interval(-math.inf, math.inf))
    images = sum(float(part.mean(axis=0).var()) / part.shape[1] for part in (validation, test))
    noise = _Noise(seeds - 1, float(by_seed.var(ddof=1)) / seeds, images, 0.0, 0.0)
    reach = noise.reach(confidence)
    return Difference(mean, Interval(mean - reach, mean + reach), noise.p_value(mean))


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


def _mean_squares(gain: npt.NDArray[np.int8]) -> tuple[float, float, float]:
    """Return the mean squares of `gain` (seeds, images) between seeds, between images, and of what is left.

    With one image there is nothing between images and nothing left: both are 0. The sums are of whole numbers.
    """
    seeds, images = gain.shape
    rows, columns = gain.sum(axis=1, dtype=np.int64), gain.sum(axis=0, dtype=np.int64)
    middle = float(rows.sum()) ** 2 / gain.size
    between_rows, between_columns = float(rows @ rows) / images - middle, float(columns @ columns) / seeds - middle
    by_seed = max(between_rows, 0.0) / (seeds - 1)
    if images == 1:
        return by_seed, 0.0, 0.0
    left = np.count_nonzero(gain) - middle - between_rows - between_columns
    return by_seed, max(between_columns, 0.0) / (images - 1), max(left, 0.0) / ((seeds - 1) * (images - 1))


def _ratio(distance: float, error: float) -> float:
    """Return how many errors a distance is, also where there is no error at all."""
    return distance / error if error else math.inf if distance else 0.0


def _check_pair(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> None:
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(f"two arrays of one shape (seeds, images) are needed, but got {a.shape} and {b.shape}")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"0 < confidence < 1 must hold, but confidence={confidence}")
