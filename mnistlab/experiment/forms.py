"""How a file's values and tables are written: the type that a value must have, and what to type instead of another.

A value of the wrong type and a value outside its range are different mistakes. This module knows the first kind: it
names the type, and says so where a text would be right without its quotes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, cast, get_args

from mnistlab.api import Choice, Domain, Int, Scalar
from mnistlab.errors import Fault, closest

WHOLE, NUMBER, STRING, FLAG = "must be a whole number", "must be a number", "must be a string", "must be true or false"
_RULES: dict[type, str] = {int: WHOLE, float: NUMBER, str: STRING, bool: FLAG}
_NUMBER = re.compile(r"[+-]?(\d[\d_]*)?\.?(\d[\d_]*)?([eE][+-]?\d+)?")
_NAMED = ("name", "type", "model", "optimizer", "transform")  # how people write a name into a table of settings
PluginTable = Literal["model", "optimizer", "transform"]
PLUGIN_TABLES: tuple[PluginTable, ...] = get_args(PluginTable)
_USUAL: dict[str, str] = {"model": "cnn", "optimizer": "adamw", "transform": "shift"}
_EXAMPLES: dict[str, tuple[str, Scalar]] = {
    "data": ("dataset", "mnist"),
    "training": ("epochs", 8),
    "search": ("trials", 32),
    "resources": ("max_parallel", 2),
    "confirm": ("top", 3),
    "plugins": ("allow", "mnistlab-timm"),
}


# --- values -------------------------------------------------------------------------------------------------------


def typed(value: Scalar, domain: Domain) -> Scalar:
    """Return a value in the type that a domain has; whether it lies inside is another question.

    A whole number counts as a number, as everywhere in the file. No other type stands for another.

    Raises:
        ValueError: "rule; hint", where it has another type.
    """
    kinds = _types(domain)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number; allowed is {domain}")
    if type(value) in kinds:
        return value
    if type(value) is int and float in kinds:
        return _as_float(value)
    raise ValueError("; ".join([_rule(kinds), instead(value, domain.contains) or f"allowed is {domain}"]))


def _types(domain: Domain) -> frozenset[type]:
    if isinstance(domain, Choice):
        return frozenset(map(type, domain.options))
    return frozenset({int} if isinstance(domain, Int) else {float})


def _as_float(value: int) -> Scalar:
    """Return a whole number as a float; one that is too large for that stays as it is, outside of every range."""
    try:
        return float(value)
    except OverflowError:
        return value


def _rule(kinds: frozenset[type]) -> str:
    """Return the rule of a type, or of several: "must be a whole number or a string"."""
    rules = [rule for kind, rule in _RULES.items() if kind in kinds]
    return " or ".join([rules[0], *(rule.removeprefix("must be ") for rule in rules[1:])])


def instead(value: object, fits: Callable[[Scalar], bool]) -> str:
    """Return what to type instead of a value of the wrong type, where `fits` accepts the same value in the right one.

    Examples: `"8"` -> "it is text: write 8 without quotes"; `64.0` -> "write 64"; `3` -> 'write "3", with quotes'.
    """
    if isinstance(value, str):
        found = [one for one in _unquoted(value) if fits(one)]
        return f"it is text: write {toml(found[0])} without quotes" if found else ""
    if isinstance(value, float) and value.is_integer() and fits(int(value)):
        return f"write {int(value)}"
    if isinstance(value, bool | int | float) and fits(toml(value)):
        return f'write "{toml(value)}", with quotes'
    return ""


def _unquoted(text: str) -> list[Scalar]:
    """Return what a text would be without its quotes: a flag, a whole number, a number, or nothing."""
    bare = text.strip()
    if bare.lower() in {"true", "false"}:
        return [bare.lower() == "true"]
    if not _NUMBER.fullmatch(bare):
        return []
    found: list[Scalar] = []
    for kind in (int, float):
        try:
            found.append(kind(bare))
        except ValueError:  # "1e3" is no int, "" and "." are nothing, and int() refuses thousands of digits
            continue
    return found


def toml(value: Scalar) -> str:
    """Return a flag or a number as the file has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- tables -------------------------------------------------------------------------------------------------------


def how_to_write(section: str, value: object, known: Collection[str] = ()) -> str:
    """Return how a section is written, for a fault of `value`, which stands in its place and is no table.

    `known` are the models (optimizers, transforms) that there are, as far as that is known: a name that is none of them
    is not repeated, but the nearest one is named.
    """
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in cast("list[object]", value)):
        return _single_brackets(section, cast("list[object]", value), known)
    if section not in _EXAMPLES:
        names = [
            str(one) for one in cast("list[object]", value if isinstance(value, list) else [value]) if _is_name(one)
        ]
        meant = list(dict.fromkeys(_meant(name, known) for name in names))
        there = [name for name in meant if name in known or not known]
        return f"write {_headers(section, meant)}" if there else f"write a table, for example {example(section)}"
    key, usual = _EXAMPLES[section]
    shown = value if type(value) is type(usual) else usual
    return f"write [{section}] and under it, for example, {key} = {_shown(cast('Scalar', shown))}"


def _meant(name: str, known: Collection[str]) -> str:
    """Return the nearest of the `known` names, or the name itself where none is near."""
    return name if name in known else closest(name, known) or name


def _single_brackets(section: str, tables: Sequence[object], known: Collection[str]) -> str:
    """Return how [[model]] or [[search]] is written: TOML's double brackets make a list."""
    first = next(one for one in tables if isinstance(one, Mapping))
    name = _meant(_name_in(cast("Mapping[str, Any]", first)), known) if section in PLUGIN_TABLES else ""
    return f"write [{section}{'.' * bool(name)}{name}], with single brackets"


def loose(kind: str, tables: Mapping[str, Any], known: Collection[str]) -> list[Fault]:
    """Return the faults of what stands in a table of models (optimizers, transforms) and is no model's table.

    `known` are all names of the kind. A whole table of settings, `model = { name = "cnn", depth = 3 }`, is one mistake
    and gives one fault.
    """
    entries = {name: value for name, value in tables.items() if not isinstance(value, Mapping)}
    named = {name: one for name in entries if (one := name if name in known else name.casefold()) in known}
    faults = [
        Fault(f"{kind}.{name}", "must be a table", entries[name], _of_named(kind, one, entries[name]))
        for name, one in named.items()
    ]
    if settings := {name: value for name, value in entries.items() if name not in named}:
        place = kind if len(settings) > 1 else f"{kind}.{next(iter(settings))}"
        value = settings if len(settings) > 1 else next(iter(settings.values()))
        one = f"must be under the table of {'an' if kind == 'optimizer' else 'a'} {kind}"
        rule = one if len(settings) == 1 else f"must hold a table for each {kind}"
        faults.append(Fault(place, rule, value, _where_they_belong(kind, settings, tables, known)))
    return faults


def _of_named(kind: str, name: str, value: object) -> str:
    double = isinstance(value, list) and any(isinstance(one, Mapping) for one in cast("list[object]", value))
    return f"write [{kind}.{name}]" + ", with single brackets" * double + " and its settings under it" * (not double)


def _where_they_belong(
    kind: str, settings: Mapping[str, Any], tables: Mapping[str, Any], known: Collection[str]
) -> str:
    """Return under which table settings belong that stand outside of every one."""
    name = _name_in(settings)
    rest = [key for key in settings if not (name and settings[key] == name and key in _NAMED)]
    inner = [key for key, value in tables.items() if isinstance(value, Mapping)]
    table = f"[{kind}.{_meant(name, known)}]" if name else f"[{kind}.{inner[0]}]" if len(inner) == 1 else example(kind)
    under = f"{', '.join(rest)} under it" if rest else ""
    return f"write {'' if name or inner else 'for example '}{table}" + f" and {under}" * bool(under)


def _name_in(settings: Mapping[str, Any]) -> str:
    """Return the name that `{ name = "cnn" }` holds, or ""."""
    return next((str(settings[key]) for key in _NAMED if _is_name(settings.get(key))), "")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w-]*", value) is not None


def _headers(section: str, names: Sequence[object]) -> str:
    return " and ".join(f"[{section}.{name}]" for name in names)


def example(kind: str) -> str:
    """Return the header of a table of a built-in model, optimizer or transform."""
    return f"[{kind}.{_USUAL[kind]}]"


def _shown(value: Scalar) -> str:
    return f'"{value}"' if isinstance(value, str) else toml(value)
