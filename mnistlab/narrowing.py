"""One setting of an experiment file: a value fixes, a list or a pattern chooses, `{ low, high }` narrows a range."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, cast

from mnistlab.api import Choice, Domain, Float, Int, Scalar
from mnistlab.errors import near_miss, nearest, short
from mnistlab.forms import typed
from mnistlab.points import normalized, same, steps_beside
from mnistlab.steps import exact


def read_setting(value: object, domain: Domain | None) -> Domain | Scalar:
    """Read one setting: a scalar fixes, a list or a pattern chooses, { low, high } narrows.

    Raises:
        ValueError: saying the rule that the value breaks.
    """
    if isinstance(value, dict):
        return _narrowed(cast("dict[str, Any]", value), domain)
    if isinstance(value, list):
        return _chosen_from(cast("list[object]", value), domain)
    if _is_pattern(value, domain):
        return _chosen_from([value], domain)
    return _inside(value, domain)


def _chosen_from(entries: list[object], domain: Domain | None) -> Domain | Scalar:
    if domain is None:
        raise ValueError("can be fixed but not searched: its plugin gives it no domain")
    options: list[Scalar] = []
    for entry in entries:
        try:
            if _is_pattern(entry, domain):  # patterns may overlap
                options += [option for option in _matches(entry, domain) if option not in options]
            else:
                options.append(_inside(entry, domain))
        except ValueError as error:
            raise ValueError(f"entry {short(entry)} {error}") from None
    try:
        choice = Choice(*options)
    except ValueError:
        raise ValueError("must hold at least one value, and each once") from None
    return options[0] if len(options) == 1 else choice


def _is_pattern(value: object, domain: Domain | None) -> bool:
    """Return whether `value` stands for several options: "resnet*", unless it is an option itself."""
    if not isinstance(value, str) or not isinstance(domain, Choice):
        return False
    return value not in domain.options and any(sign in value for sign in "*?[")


def _matches(pattern: object, domain: Domain | None) -> list[Scalar]:
    """Return the options that a pattern stands for, in their order.

    Raises:
        ValueError: if there is none.
    """
    options = domain.options if isinstance(domain, Choice) else ()
    found = [option for option in options if isinstance(option, str) and fnmatchcase(option, str(pattern))]
    if not found:
        raise ValueError(f"matches nothing of what the plugin allows: {domain}")
    return [*found]


def _inside(value: object, domain: Domain | None) -> Scalar:
    """Return the value as the domain writes it."""
    if not isinstance(value, (bool, int, float, str)):
        raise ValueError("must be a value, a list of values or { low = ..., high = ... }")
    if domain is None:
        return value
    value = typed(value, domain)
    found = normalized(domain, value)
    if found is None:
        options = [str(option) for option in domain.options] if isinstance(domain, Choice) else []
        hint = nearest(value, options) if isinstance(value, str) else steps_beside(domain, value)
        raise ValueError("; ".join(filter(None, [f"must lie inside what the plugin allows: {domain}", hint])))
    return found


def _narrowed(table: dict[str, Any], domain: Domain | None) -> Domain:
    """Return the part of `domain` that `table` leaves: nothing that the plugin does not allow gets in."""
    if not isinstance(domain, (Int, Float)):
        raise ValueError("takes a value or a list of values, not a range" if domain else "takes a value, not a range")
    keys = {"low", "high", "step", "log"}
    unknown = [key for key in table if key not in keys]
    if unknown:
        raise ValueError(f"'{unknown[0]}' is not part of a range; {near_miss(unknown[0], keys)}")
    low = _end(table, "low", domain) if "low" in table else domain.low
    high = _end(table, "high", domain) if "high" in table else domain.high
    log = table.get("log", domain.log and "step" not in table)
    if not isinstance(log, bool):
        raise ValueError("log must be true or false")
    step = _step(table["step"], domain) if "step" in table else domain.step
    if isinstance(domain, Int):
        return Int(cast("int", low), cast("int", high), step=cast("int", step), log=log)
    return Float(float(low), float(high), log=log, step=step)


def _end(table: dict[str, Any], key: str, domain: Int | Float) -> Scalar:
    try:
        return _inside(table[key], domain)
    except ValueError as error:
        raise ValueError(f"{key} {error}") from None


def _step(value: object, domain: Int | Float) -> int | float:
    """Return a range's own step, which has to meet the steps of the plugin's."""
    kind, word = (int, "whole number") if isinstance(domain, Int) else ((int, float), "number")
    widest = max(domain.high - domain.low, domain.step or 0)
    if not isinstance(value, kind) or isinstance(value, bool) or not 0 < value <= widest:
        raise ValueError(f"step must be a {word} above 0 and at most {widest:g}")
    own = exact(domain.step or value)
    times = round(exact(value) / own)
    if not same(float(times * own), value):
        raise ValueError(f"step must be a multiple of the plugin's own: {domain}")
    return value if isinstance(domain, Int) else float(times * own)
