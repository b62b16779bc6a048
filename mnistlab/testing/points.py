"""Points of a config's space: its defaults, its corners, and some in between, always the same ones."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from mnistlab.api import Choice, Config, Domain, Float, Int, Scalar, domains
from mnistlab.util.steps import Steps

MANY_OPTIONS = 16  # of a longer choice, so many options stand for all
OWN_RULES = {"value_error", "assertion_error"}  # what pydantic calls the errors that a validator raises


def default_point(config: type[Config], fixed: Mapping[str, Any]) -> Config:
    """Return the config of all defaults, with the `fixed` settings in their place.

    Raises:
        pydantic.ValidationError: if a field has neither.
    """
    return config(**fixed)


def missing_fields(error: ValidationError) -> list[str]:
    """Return the settings that have to be given, if that is all that the error is about."""
    found = error.errors()
    missing = [".".join(map(str, details["loc"])) for details in found if details["type"] == "missing"]
    return missing if len(missing) == len(found) else []


def points(config: type[Config], fixed: Mapping[str, Any], samples: int) -> Iterator[Config]:
    """Yield the defaults, every corner of each field alone, all lowest, all highest, and `samples` random points.

    Combinations that the config class itself refuses are left out, as the search would leave them out.

    Raises:
        AssertionError: if a domain lets in a value that the type of its own field does not: no search can use it.
    """
    free = {name: domain for name, domain in domains(config).items() if name not in fixed}
    draw = random.Random(0)
    yield default_point(config, fixed)
    settings = [{name: value} for name, domain in free.items() for value in corners(domain)]
    settings += [{name: corners(domain)[end] for name, domain in free.items()} for end in (0, -1)]
    settings += [{name: sample(domain, draw) for name, domain in free.items()} for _ in range(samples)]
    for setting in settings if free else ():
        try:
            yield config(**{**fixed, **setting})
        except ValidationError as error:
            _check_refusal(config, error, free)


def _check_refusal(config: type[Config], error: ValidationError, free: Mapping[str, Domain]) -> None:
    """Let the rules that the class has written pass; a field that refuses its own domain is a mistake."""
    for details in error.errors():
        name = str(details["loc"][0]) if details["loc"] else ""
        if name in free and details["type"] not in OWN_RULES:
            place, value = f"{config.__name__}.{name}", details["input"]
            raise AssertionError(
                f"{place}: its domain lets in {value!r} ({free[name]}), its type not: {details['msg']}"
            )


def corners(domain: Domain) -> tuple[Scalar, ...]:
    """Return the extreme values of a domain; of a long choice, options spread evenly over it."""
    values = domain.corners()
    if len(values) <= MANY_OPTIONS:
        return values
    return tuple(values[i * (len(values) - 1) // (MANY_OPTIONS - 1)] for i in range(MANY_OPTIONS))


def sample(domain: Domain, draw: random.Random) -> Scalar:
    """Return a random value of a domain, uniform on its own scale."""
    if isinstance(domain, Choice):
        return draw.choice(domain.options)
    if isinstance(domain, Int) and not domain.log:
        return draw.randrange(domain.low, domain.high + 1, domain.step)
    if isinstance(domain, Float) and domain.step is not None:
        return draw.choice(Steps(domain.low, domain.high, domain.step))
    if not domain.log:
        return draw.uniform(domain.low, domain.high)
    value = math.exp(draw.uniform(math.log(domain.low), math.log(domain.high)))
    value = min(max(value, domain.low), domain.high)
    return round(value) if isinstance(domain, Int) else value
