"""How large a difference a paired comparison can show, and how many seeds show a given one. Pure functions.

A comparison that finds no difference says little unless it could have found one. These are plans made from a spread
that few seeds have measured, so every figure is an "about".
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import gammaincinv, ndtr, ndtri, stdtrit

POWER = 0.8  # the chance to see a true difference that a plan asks for (J. Cohen, 1988)
MOST = 1000  # seeds, beyond which to ask for more is no advice
_QUANTILES = (np.arange(1_000) + 0.5) / 1_000


def chance_to_tell(difference: float, spread: float, seeds: int, level: float) -> float:
    """Return the power of a two-sided paired t-test: the chance that it tells a true `difference` from 0.

    `spread` is the standard deviation of the differences between seeds, in the same unit, and `level` is the p-value
    that the test must reach. The statistic has the noncentral t distribution; we average over the quantiles of the
    spread that the test will measure, which holds also where scipy's `nctdtr` does not end (two seeds, tiny levels).

    Raises:
        ValueError: unless seeds >= 2, spread > 0 and 0 < level < 1.
    """
    if seeds < 2 or not spread > 0 or not 0 < level < 1:
        raise ValueError(f"seeds >= 2, spread > 0, 0 < level < 1 must hold, but {seeds=}, {spread=} and {level=}")
    return _chance(abs(difference) / spread * math.sqrt(seeds), seeds, level)


def smallest_difference(
    spread: float,
    seeds: int,
    level: float,
    *,
    images: float = 0.0,
    one_image: float = 0.0,
    overlap: float = 0.0,
    power: float = POWER,
) -> float:
    """Return the smallest true difference that a comparison over `seeds` seeds tells from 0 with the chance `power`.

    `images` is the standard error that the choice of the images adds to the mean difference: more seeds do not lower
    it. Both parts are joined by their root sum of squares, as the interval joins them (`paired_difference` in
    `paired.py`), which is also wider by `one_image` than what the images say. `overlap` is that of the splits that
    seeds have drawn for themselves, which is added to 1 / seeds (`standard_error` in `intervals.py`).

    Raises:
        ValueError: unless seeds >= 2, spread > 0, images >= 0, 0 < level < 1 and level < power < 1.
    """
    if seeds < 2 or not spread > 0 or images < 0 or not 0 < level < power < 1:
        raise ValueError(
            f"seeds >= 2, spread > 0, images >= 0, 0 < level < power < 1 must hold, but {seeds=}, {spread=}, "
            f"{images=}, {level=} and {power=}"
        )
    by_images = _by_images(images, level, power)
    by_seeds = _size(seeds, level, power) * spread * math.sqrt(1 + seeds * overlap)
    return max(math.hypot(by_seeds, by_images), by_images + one_image)


def seeds_to_tell(
    difference: float,
    spread: float,
    level: float,
    *,
    images: float = 0.0,
    one_image: float = 0.0,
    overlap: float = 0.0,
    power: float = POWER,
) -> int | None:
    """Return how many seeds tell a true `difference` from 0 with the chance `power`, or None if MOST are too few.

    Raises:
        ValueError: as `smallest_difference` does.
    """
    about = {"images": images, "one_image": one_image, "overlap": overlap, "power": power}
    if smallest_difference(spread, MOST, level, **about) > abs(difference):
        return None
    low, high = 1, MOST
    while high - low > 1:
        middle = (low + high) // 2
        enough = smallest_difference(spread, middle, level, **about) <= abs(difference)
        low, high = (low, middle) if enough else (middle, high)
    return high


def images_suffice(
    difference: float, level: float, *, images: float, one_image: float = 0.0, power: float = POWER
) -> bool:
    """Return whether any number of seeds could tell a true `difference`, as far as the images go.

    `images` is as of `smallest_difference`, or where seeds draw their own splits what these have in common: the spread
    times the root of their overlap.
    """
    return _by_images(images, level, power) + one_image < abs(difference)


def _by_images(images: float, level: float, power: float) -> float:
    return images * float(ndtri(1 - level / 2) + ndtri(power))


def _chance(shift: float, seeds: int, level: float) -> float:
    """Return the chance that |t| exceeds its limit where the mean lies `shift` standard errors from 0."""
    limit = -float(stdtrit(seeds - 1, level / 2)) * _measured(seeds - 1)
    return float(np.mean(ndtr(shift - limit) + ndtr(-shift - limit)))


@lru_cache(maxsize=256)
def _measured(degrees: int) -> np.ndarray:
    """Return quantiles of a measured standard deviation of `degrees` degrees of freedom, whose true value is 1."""
    return np.sqrt(2 * gammaincinv(degrees / 2, _QUANTILES) / degrees)


@lru_cache(maxsize=4096)
def _size(seeds: int, level: float, power: float) -> float:
    """Return the smallest difference in standard deviations between seeds, by halving the range of its logarithm."""
    low, high = -2.0, 6.0
    for _ in range(24):
        middle = (low + high) / 2
        enough = _chance(10.0**middle * math.sqrt(seeds), seeds, level) >= power
        low, high = (low, middle) if enough else (middle, high)
    return float(10.0**high)
