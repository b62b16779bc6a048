"""The experiment file: TOML in, a frozen `ExperimentSpec` out, and every fault of the file in one report.

This module knows the fixed part of a file. The tables of models, optimizers, transforms and of training hold settings
of plugins' config fields; `mnistlab.space` checks those against the plugins' domains.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from mnistlab.errors import Fault, SpecError, near_miss
from mnistlab.results import METRICS

MAX_BYTES = 1 << 20
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
PLUGIN_TABLES = ("model", "optimizer", "transform")

Table = dict[str, Any]
Algorithm = Literal["tpe", "random", "grid", "qmc", "cmaes", "gp", "nsga2"]
Scheduler = Literal["asha", "hyperband", "median", "pbt", "none"]


# --- how values are written ---------------------------------------------------------------------------------------


def parse_duration(value: object) -> object:
    """Return seconds for "90s", "15m", "1h30m", "2d" or a plain number of seconds; None stays None.

    Raises:
        ValueError: if the text is no duration.
    """
    if not isinstance(value, str):
        return value
    units = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError('must be a duration such as "90s", "15m" or "1h30m"')
    return sum(float(number) * units[unit] for number, unit in parts)


def _auto(value: object) -> object:
    return None if value == "auto" else value


def _several(value: object) -> object:
    return (
        (value,) if isinstance(value, str) else tuple(cast("list[object]", value)) if isinstance(value, list) else value
    )


class Section(BaseModel):
    """A table of the file: unknown keys are faults, types are exact, nothing changes once read."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataSpec(Section):
    """`[data]`: which dataset, how much of its training part validates, and what to do without a network."""

    dataset: str = "mnist"
    offline_fallback: str | None = None
    validation: Annotated[float, Field(gt=0)] = 10_000  # 1 or more: a number of images; less: a share
    split: Literal["stratified", "writer"] = "stratified"
    settings: dict[str, Table] = {}  # [data.NAME] tables: the config of dataset NAME

    @model_validator(mode="before")
    @classmethod
    def _gather_settings(cls, raw: Any) -> Any:
        """Move `[data.NAME]` tables into `settings`."""
        if not isinstance(raw, dict):
            return raw
        table = cast("Table", raw)
        inner = {key: value for key, value in table.items() if isinstance(value, dict)}
        return {key: value for key, value in table.items() if key not in inner} | {"settings": inner}


class SearchSpec(Section):
    """`[search]`: how many trials, who proposes them, who stops them early, and what is to be best."""

    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    algorithm: Algorithm = "tpe"
    scheduler: Scheduler = "asha"
    metric: Annotated[tuple[str, ...], BeforeValidator(_several)] = ("val_accuracy",)
    time_budget: Annotated[float | None, BeforeValidator(parse_duration), Field(gt=0)] = None  # seconds
    reduction_factor: Annotated[int, Field(ge=2)] = 3  # asha, hyperband: one in so many goes on
    grace_epochs: Annotated[int, Field(ge=1)] = 1  # asha, median: never stop before this epoch

    @field_validator("metric")
    @classmethod
    def _known_metrics(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in metrics if name not in METRICS]
        if unknown or not metrics:
            hint = near_miss(unknown[0], METRICS) if unknown else ""
            raise ValueError(f"must name metrics out of {', '.join(METRICS)}; {hint}".rstrip("; "))
        return metrics

    @model_validator(mode="after")
    def _several_metrics(self) -> SearchSpec:
        """Several metrics need an algorithm for that, and no scheduler: Optuna can't prune by several values."""
        if len(self.metric) > 1 and self.algorithm not in ("nsga2", "tpe", "random", "qmc", "gp", "grid"):
            raise ValueError(f"algorithm '{self.algorithm}' can't search for several metrics; use 'nsga2'")
        if len(self.metric) > 1 and self.scheduler != "none":
            raise ValueError("several metrics need scheduler = 'none': early stopping compares by one")
        if self.scheduler == "pbt" and self.algorithm != "random":
            raise ValueError("scheduler = 'pbt' needs algorithm = 'random': it changes settings while trials run")
        return self


class ResourcesSpec(Section):
    """`[resources]`: what one trial gets. `gpus_per_trial = "auto"` shares each GPU among what fits."""

    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    gpus_per_trial: Annotated[float | None, BeforeValidator(_auto), Field(ge=0)] = None
    max_parallel: Annotated[int | None, Field(ge=1)] = None


class ConfirmSpec(Section):
    """`[confirm]`: how many of the best plans are re-trained, on how many fresh seeds each. top = 0: none."""

    top: Annotated[int, Field(ge=0)] = 3
    seeds: Annotated[int, Field(ge=1)] = 5


class ExperimentSpec(Section):
    """An experiment file in typed form; immutable once a run starts."""

    name: str
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: DataSpec = DataSpec()
    model: dict[str, Table]
    optimizer: dict[str, Table] = {"adamw": {}}
    transform: dict[str, Table] = {}
    training: Table = {}
    search: SearchSpec = SearchSpec()
    resources: ResourcesSpec = ResourcesSpec()
    confirm: ConfirmSpec = ConfirmSpec()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("must be 1 to 64 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit")
        return name

    @field_validator("model", "optimizer")
    @classmethod
    def _at_least_one(cls, tables: dict[str, Table]) -> dict[str, Table]:
        if not tables:
            raise ValueError("must hold at least one table")
        return tables


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draft:
    """A file's content with its overrides applied, not yet checked. `source` is how reports name the file."""

    source: str
    table: Table


def read(path: Path, overrides: Iterable[str] = ()) -> Draft:
    """Read a TOML file and apply `a.b=value` overrides.

    Raises:
        SpecError: if the file is missing, not TOML, too large, or an override is malformed (all of those at once).
    """
    table = _read_toml(path)
    faults: list[Fault] = []
    for text in overrides:
        try:
            _override(table, text)
        except ValueError as error:
            faults.append(Fault(f"--set {text}", str(error)))
    if faults:
        raise SpecError(str(path), faults)
    return Draft(str(path), table)


def _read_toml(path: Path) -> Table:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SpecError(str(path), [Fault("file", f"must be at most {MAX_BYTES} bytes", path.stat().st_size)])
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        hint = near_miss(path.name, siblings)
        raise SpecError(str(path), [Fault("file", "does not exist", hint=hint)]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(str(path), [Fault("file", f"can't be read: {error}")]) from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(str(path), [Fault("file", f"is not valid TOML: {error}")]) from None
    except RecursionError:
        raise SpecError(str(path), [Fault("file", "is nested too deeply")]) from None


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """Split "a.b=value" into its path and its value, read as TOML where it is TOML and as a string otherwise.

    Raises:
        ValueError: if there is no "=" or a part of the path is empty.
    """
    place, equals, value = text.partition("=")
    parts = tuple(part.strip() for part in place.split("."))
    if not equals or not all(parts):
        raise ValueError("must be written as section.key=value")
    try:
        return parts, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return parts, value.strip()


def _override(table: Table, text: str) -> None:
    parts, value = parse_override(text)
    for depth, part in enumerate(parts[:-1]):
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ValueError(f"'{'.'.join(parts[: depth + 1])}' is a value, not a table")
        table = cast("Table", inner)
    table[parts[-1]] = value


def validate(draft: Draft) -> tuple[ExperimentSpec | None, list[Fault]]:
    """Return the typed experiment, or None and every fault of the fixed part of the file."""
    try:
        return ExperimentSpec.model_validate(draft.table), []
    except ValidationError as error:
        return None, [_fault(details) for details in error.errors(include_url=False)]


_RULES = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "tuple_type": "must be a string or a list of strings",
    "finite_number": "must be a finite number",
}


def _fault(details: ErrorDetails) -> Fault:
    """Turn one of pydantic's errors into place, rule, value and near miss."""
    place = ".".join(str(part) for part in details["loc"]) or "file"
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys_at(details["loc"][:-1])
        return Fault(place, "is not a setting", value, near_miss(str(details["loc"][-1]), known))
    if kind == "missing":
        hint = "write for example [model.cnn]" if place == "model" else ""
        return Fault(place, _RULES[kind], hint=hint)
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        return Fault(place, f"must be one of {', '.join(options)}", value, near_miss(str(value), options))
    if kind == "value_error":
        rule = str(context.get("error", details["msg"]))
        return Fault(place, rule, None if isinstance(value, (dict, BaseModel)) else value)
    return Fault(place, _RULES.get(kind) or _lower(details["msg"]), value)


def _lower(message: str) -> str:
    return message.replace("Input should", "must", 1)


def _keys_at(location: Sequence[int | str]) -> list[str]:
    """Return the keys that the table at `location` may hold."""
    model: type[BaseModel] = ExperimentSpec
    for part in location:
        inner = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return [key for key in model.model_fields if key != "settings"]


def spec_json(spec: ExperimentSpec) -> Mapping[str, Any]:
    """Return the experiment as a JSON object, for the run's record."""
    return spec.model_dump(mode="json")
