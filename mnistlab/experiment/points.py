"""Which values a domain holds, and the one representation of each: wherever a value enters, it goes through here.

Values come from plugins (defaults), experiment files, Optuna, population-based training and the plans of earlier runs.
Each writes 0.3 or 1 in its own way, and plans are compared by their JSON.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, cast

from mnistlab.api import Choice, Domain, Float, Int, Scalar
from mnistlab.util.steps import TOLERANCE, Steps


def values(domain: Domain) -> Sequence[Scalar] | None:
    """Return the values of a finite domain in order, or None for a continuous one."""
    if isinstance(domain, Choice):
        return domain.options
    if isinstance(domain, Int):
        return None if domain.log else range(domain.low, domain.high + 1, domain.step)
    return None if domain.step is None else Steps(domain.low, domain.high, domain.step)


def normalized(domain: Domain, value: object) -> Scalar | None:
    """Return the value of `domain` that `value` stands for, in its one representation; None if it holds no such value.

    That is a stepped value or an option that `value` equals up to rounding, and a float for a whole number.
    """
    if isinstance(domain, Choice):
        return _option(domain, value)
    if not domain.contains(value) or not isinstance(value, (int, float)):
        return None
    return value if isinstance(domain, Int) else closest(domain, value)


def _option(domain: Choice, value: object) -> Scalar | None:
    """Return the option that `value` is, else the number that it is up to rounding (`1` is never `True`)."""
    place = _place_of_option(domain, value)
    return None if place is None else domain.options[place]


def _place_of_option(domain: Choice, value: object) -> int | None:
    exact = (i for i, option in enumerate(domain.options) if type(option) is type(value) and option == value)
    near = (i for i, option in enumerate(domain.options) if isinstance(option, float) and same(option, value))
    return next(exact, next(near, None))


def same(one: object, other: object) -> bool:
    """Return whether two settings are the same value: numbers up to rounding, `1` and `1.0`, never `1` and `True`."""
    if not (_is_number(one) and _is_number(other)) or type(one) is type(other) is int:
        return type(one) is type(other) and one == other
    try:
        return math.isclose(cast("float", one), cast("float", other), rel_tol=TOLERANCE)
    except OverflowError:  # an integer that is larger than any float
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def closest(domain: Int | Float, value: float) -> int | float:
    """Return the value of a numeric domain that is nearest to a finite number."""
    if isinstance(domain, Int):
        low, high = domain.corners()
        return min(max(low + round((Fraction(value) - low) / domain.step) * domain.step, low), high)
    if domain.step is not None:
        steps = Steps(domain.low, domain.high, domain.step)
        return steps[steps.nearest(value)]
    return min(max(float(value) + 0.0, domain.low), domain.high)  # adding 0.0 makes 0.0 of -0.0


def place(domain: Domain, value: Scalar) -> int | None:
    """Return where in `values(domain)` a value is, for a number that is not there the place of the nearest one.

    None where the domain is continuous, or no option is like the value.
    """
    if isinstance(domain, Choice):
        return _place_of_option(domain, value)
    if values(domain) is None or isinstance(value, str):
        return None
    if isinstance(domain, Int):
        return (int(closest(domain, value)) - domain.low) // domain.step
    return Steps(domain.low, domain.high, domain.step or 1.0).nearest(value)


def default_in(domain: Domain, wished: Any) -> Scalar:
    """Return a plugin's default as the domain writes it, or the nearest value that a narrowed domain holds."""
    found = normalized(domain, wished)
    if found is not None:
        return found
    if isinstance(domain, Choice):
        return domain.options[0]
    return closest(domain, wished) if isinstance(wished, (int, float)) else domain.low


def steps_beside(domain: Domain | None, value: float) -> str:
    """Return in words between which steps of a range a number lies, or "" where it lies between none."""
    if not isinstance(domain, (Int, Float)) or isinstance(value, bool) or not domain.low <= value <= domain.high:
        return ""
    steps, here = cast("Sequence[float] | None", values(domain)), place(domain, value)
    if steps is None or here is None:
        return ""
    beside = steps[max(here - 1, 0) : here + 2]
    nearest = [*[one for one in beside if one < value][-1:], *[one for one in beside if one > value][:1]]
    return f"the nearest steps are {' and '.join(map(str, nearest))}" if nearest else ""
