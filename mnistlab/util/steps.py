"""The points of a range with a step: low, low + step, low + 2 step, ..., each in one representation.

No binary float is 0.1, so `3 * 0.1`, `0.1 + 0.2` and `0.3` are unlike floats. Here a float stands for the number that
it is written as. Points are computed as fractions, and each is rounded to a float once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import final, overload

TOLERANCE = 1e-9  # of a step: a value this near to a point is that point
_ROUNDING = 4  # so many units in the last place may come from arithmetic in floats
_LEAST_STEP = 16  # in the same units: points that lie closer together could be mistaken for each other
_DIGITS = 15  # a float can hold any decimal number with so many digits
_SIMPLE = 1000  # the largest denominator that is looked for in a float with more digits


def exact(number: float) -> Fraction:
    """Return the number that a finite float stands for: the decimal that it prints as, or a fraction such as 1/3."""
    decimal = Decimal(repr(float(number)))
    if len(decimal.as_tuple().digits) > _DIGITS:
        simple = Fraction(number).limit_denominator(_SIMPLE)
        if float(simple) == number:
            return simple
    return Fraction(decimal)


def check_range(low: float, high: float, step: float, *, log: bool) -> None:
    """Check the numbers of a domain.

    Raises:
        ValueError: saying which rule they break.
    """
    if not all(map(math.isfinite, (low, high, step))):
        raise ValueError(f"bounds and step must be finite, but low={low}, high={high} and step={step}")
    if not low <= high:
        raise ValueError(f"low <= high must hold, but low={low} and high={high}")
    if not step > 0:
        raise ValueError(f"step > 0 must hold, but step={step}")
    if log and low <= 0:
        raise ValueError(f"`log` needs low > 0, but low={low}")


def check_step(low: float, high: float, step: float) -> None:
    """Check that the points of a range can be told apart as floats.

    Raises:
        ValueError: if they can't.
    """
    least = _LEAST_STEP * _unit(low, high)
    if low < high and step < least:
        raise ValueError(f"step={step} is too small for floats of this size: it must be at least {least}")


def whole(number: float) -> int:
    """Return a finite number as an integer.

    Raises:
        ValueError: if it is none.
    """
    if number != int(number):
        raise ValueError(f"an Int takes whole numbers, but got {number}")
    return int(number)


def alike(numbers: Iterable[float]) -> bool:
    """Return whether two of the numbers are equal up to rounding."""
    return any(math.isclose(one, next_one, rel_tol=TOLERANCE) for one, next_one in pairwise(sorted(numbers)))


def _unit(low: float, high: float) -> float:
    return math.ulp(max(abs(low), abs(high)))


@final
class Steps(Sequence[float]):
    """The points from `low` to `high`, computed when they are asked for: there may be very many.

    The first point is `low`. The last one is `high` where the steps meet it, up to rounding.
    """

    def __init__(self, low: float, high: float, step: float) -> None:
        """Take finite numbers: low <= high, and a step that `check_step` lets through."""
        self._low, self._high, self._step = exact(low), float(high), exact(step)
        self._slack = Fraction(TOLERANCE * step + _ROUNDING * _unit(low, high))
        reach = exact(high) - self._low
        self._count = math.floor((reach + self._slack) / self._step) + 1 if reach else 1

    def __len__(self) -> int:
        """Return how many points there are."""
        return self._count

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[float, ...]: ...
    def __getitem__(self, index: int | slice) -> float | tuple[float, ...]:
        """Return one point or several.

        Raises:
            IndexError: if there is no point at `index`.
        """
        if isinstance(index, slice):
            return tuple(self[place] for place in range(self._count)[index])
        return min(float(self._low + range(self._count)[index] * self._step), self._high)

    def nearest(self, value: float) -> int:
        """Return the place of the point that is nearest to a finite number."""
        return min(max(round((Fraction(value) - self._low) / self._step), 0), self._count - 1)

    def place(self, value: float) -> int | None:
        """Return the place of the point that `value` is, up to rounding, or None where it is none."""
        if not self[0] - self._slack <= value <= self._high + self._slack:  # nor NaN, nor infinity
            return None
        place = self.nearest(value)
        return place if abs(Fraction(value) - Fraction(self[place])) <= self._slack else None

    def __contains__(self, value: object) -> bool:
        """Return whether a value is a point, up to rounding."""
        return isinstance(value, (int, float)) and self.place(value) is not None
