"""One setting of an experiment file: a value fixes, a list or a pattern chooses, `{ low, high }` narrows a range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, cast

from mnistlab.api import Choice, Domain, Float, Int, Scalar
from mnistlab.errors import near_miss, nearest, short
from mnistlab.experiment.forms import FLAG, instead, typed
from mnistlab.experiment.points import normalized, same, steps_beside
from mnistlab.util.steps import exact


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
    wrong: list[str] = []
    for entry in entries:
        try:
            if _is_pattern(entry, domain):  # patterns may overlap
                options += [option for option in _matches(entry, domain) if option not in options]
            else:
                options.append(_inside(entry, domain))
        except ValueError as error:
            wrong.append(f"entry {short(entry)} {error}")
    if wrong:
        raise ValueError(_together(wrong))
    try:
        choice = Choice(*options)
    except ValueError:
        raise ValueError("must hold at least one value, and each once") from None
    return options[0] if len(options) == 1 else choice


def _together(wrong: Sequence[str]) -> str:
    """Return several texts "rule; hint" of one setting as one: first the rules, then the hints."""
    parts = [text.partition("; ") for text in wrong]
    return "; ".join(filter(None, [", and ".join(rule for rule, _, _ in parts), *dict.fromkeys(p[2] for p in parts)]))


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
        raise ValueError(f"matches nothing of what is allowed: {domain}")
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
        raise ValueError("; ".join(filter(None, [f"must lie inside what is allowed: {domain}", hint])))
    return found


def _narrowed(table: dict[str, Any], domain: Domain | None) -> Domain:
    """Return the part of `domain` that `table` leaves: nothing that the plugin does not allow gets in."""
    if not isinstance(domain, (Int, Float)):
        raise ValueError("takes a value or a list of values, not a range" if domain else "takes a value, not a range")
    read: dict[str, Callable[[object], Any]] = {
        "low": lambda value: _inside(value, domain),
        "high": lambda value: _inside(value, domain),
        "step": lambda value: _step(value, domain),
        "log": _flag,
    }
    found: dict[str, Any] = {}
    wrong = [f"'{key}' is not part of a range; {near_miss(key, read)}" for key in table if key not in read]
    for key in [key for key in table if key in read]:
        try:
            found[key] = read[key](table[key])
        except ValueError as error:
            wrong.append(f"{key} {error}")
    if wrong:
        raise ValueError(_together(wrong))
    low, high = found.get("low", domain.low), found.get("high", domain.high)
    step, log = found.get("step", domain.step), found.get("log", domain.log and "step" not in table)
    if isinstance(domain, Int):
        return Int(low, high, step=step, log=log)
    return Float(float(low), float(high), log=log, step=step)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    hint = instead(value, lambda one: isinstance(one, bool))
    raise ValueError("; ".join(filter(None, [FLAG, hint])))


def _step(value: object, domain: Int | Float) -> int | float:
    """Return a range's own step, which has to meet the steps of the plugin's."""
    kind, word = (int, "whole number") if isinstance(domain, Int) else ((int, float), "number")
    widest = max(domain.high - domain.low, domain.step or 0)

    def fits(one: object) -> bool:
        return isinstance(one, kind) and not isinstance(one, bool) and 0 < one <= widest

    if not fits(value):
        rule = f"must be a {word} above 0 and at most {widest:g}"
        raise ValueError("; ".join(filter(None, [rule, instead(value, fits)])))
    value = cast("int | float", value)
    own = exact(domain.step or value)
    times = round(exact(value) / own)
    if not same(float(times * own), value):
        raise ValueError(f"must be a multiple of the plugin's own: {domain}")
    return value if isinstance(domain, Int) else float(times * own)
