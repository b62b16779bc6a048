"""What pydantic finds wrong with a table, in our words: place, rule, value, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mnistlab.errors import Fault, misspelt, must_be_one_of, near_miss
from mnistlab.experiment.forms import FLAG, NUMBER, STRING, WHOLE, example, how_to_write, instead

UNKNOWN, TABLE = "is not a setting", "must be a table"
_RULES = {
    "missing": "is required",
    "int_type": WHOLE,
    "int_from_float": WHOLE,
    "float_type": NUMBER,
    "string_type": STRING,
    "bool_type": FLAG,
    "dict_type": TABLE,
    "model_type": TABLE,
    "list_type": "must be a list",
    "tuple_type": "must be a string or a list of strings",
    "finite_number": "must be a finite number",
}


def explain(
    error: ValidationError, model: type[BaseModel], place: str = "", doubtful: Collection[str] = ()
) -> list[Fault]:
    """Return what pydantic found wrong with the table `place`, which `model` describes, as faults.

    Of fields that are `doubtful`, because they have a fault already, it says nothing more, nor of rules across fields.
    A key that is missing because it is misspelt is one fault, that of the misspelt key.
    """
    found = error.errors(include_url=False)
    unknown = [details["loc"] for details in found if details["type"] == "extra_forbidden"]

    def told(details: ErrorDetails) -> bool:
        loc = details["loc"]
        if doubtful and (not loc or loc[0] in doubtful):
            return True
        beside = [str(one[-1]) for one in unknown if one[:-1] == loc[:-1]]
        return details["type"] == "missing" and str(loc[-1]) in misspelt(beside, _keys_at(model, loc[:-1]))

    return [_fault(details, model, place) for details in found if not told(details)]


def broken(place: str, error: ValueError, value: object) -> Fault:
    """Return the fault of `value` for an error whose text is "rule" or "rule; hint"."""
    rule, _, hint = str(error).partition("; ")
    return Fault(place, rule, value, hint)


def unknown_setting(place: str, value: object, known: Iterable[str]) -> Fault:
    """Return the fault of a key that its table does not have, with what was probably meant."""
    return Fault(place, UNKNOWN, value, near_miss(place.rpartition(".")[2], known))


def _fault(details: ErrorDetails, model: type[BaseModel], table: str) -> Fault:
    """Turn one of pydantic's errors into place, rule, value and near miss."""
    place = ".".join([*([table] if table else []), *(str(part) for part in details["loc"])]) or "file"
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_setting(place, value, _keys_at(model, details["loc"][:-1]))
    if kind == "missing":
        return Fault(place, _RULES[kind], hint=f"write for example {example(place)}" if place == "model" else "")
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        return must_be_one_of(place, value, options)
    if kind == "value_error":
        plain = None if isinstance(value, (dict, BaseModel)) else value
        fault = broken(place, context.get("error") or ValueError(details["msg"]), plain)
        return replace(fault, hint=fault.hint or _instead(model, details))
    if kind in ("dict_type", "model_type") and not table and len(details["loc"]) == 1:
        return Fault(place, _RULES[kind], value, how_to_write(place, value))
    return Fault(place, _RULES.get(kind) or _lower(details["msg"]), value, _instead(model, details))


def _instead(model: type[BaseModel], details: ErrorDetails) -> str:
    """Return what to type instead of a value of the wrong type: what the field takes, quotes or no quotes apart."""
    *tables, key = details["loc"] or ("",)
    inner = _model_at(model, tables)
    if inner is None or key not in inner.model_fields:  # an entry of a list
        return ""

    def fits(value: object) -> bool:
        """Return whether the field takes a value; what the table lacks beside it is another matter."""
        try:
            inner.model_validate({key: value}, strict=True)
        except ValidationError as error:
            return all(other["loc"][:1] != (key,) for other in error.errors())
        return True

    return instead(details["input"], fits)


def _lower(message: str) -> str:
    """Return the message of a rule that has no words of ours, without pydantic's own way of beginning it."""
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ").replace("Input should", "must", 1)


def _keys_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Return the keys that the table at `location` in a table of `model` may hold."""
    inner = _model_at(model, location)
    return [key for key in inner.model_fields if key != "settings"] if inner else []


def _model_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    """Return what describes the table at `location` in a table of `model`; none an entry of a list, or a free table."""
    for part in location:
        inner = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return None
        model = inner
    return model
