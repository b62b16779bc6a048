"""The experiment file: TOML in, a frozen `ExperimentSpec` out, and every fault of the file in one report.

This module knows the fixed part of a file. The tables of models, optimizers, transforms and of training hold settings
of plugins' config fields; `mnistlab.experiment.space` checks those against the plugins' domains.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mnistlab.errors import Fault, SpecError, closest, misspelt, nearest
from mnistlab.experiment.explain import explain
from mnistlab.experiment.forms import example
from mnistlab.store.metric import METRICS
from mnistlab.store.schedulers import SCHEDULERS, traits_of
from mnistlab.util.filenames import is_device

MAX_BYTES = 1 << 20
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MIN_GPU_SHARE = 0.0001
MAX_TRIALS = 1_000_000
MOST_OF_BUDGET = 0.6  # a first training of more than this share of the full budget saves too little

# What earlier versions took for granted where a file said nothing. What a run's record lacks, its version did not know.
OLD_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    # before there was `halving`
    "search": {"algorithm": "tpe", "scheduler": "asha", "reduction_factor": 3, "grace_epochs": 1},
    "confirm": {"baseline": False},
}

Table = dict[str, Any]
Tables = dict[str, SkipValidation[Table]]  # `mnistlab.experiment.space` judges what stands in them
Algorithm = Literal["auto", "tpe", "random", "grid", "qmc", "cmaes", "gp", "nsga2"]
if TYPE_CHECKING:
    Scheduler = str
else:
    Scheduler = Literal[*SCHEDULERS]


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
        bare = re.sub(r"\s", "", value).lower()
        near = bare != value and re.fullmatch(r"(\d+(\.\d+)?[dhms])+", bare)
        raise ValueError('must be a duration such as "90s", "15m" or "1h30m"' + (f'; write "{bare}"' if near else ""))
    return sum(float(number) * units[unit] for number, unit in parts)


def _countable(gpus: float) -> float:
    """Refuse a share of GPUs that Ray can't hand out: it counts in ten-thousandths, and above one in whole GPUs."""
    if gpus > 1 and not gpus.is_integer():
        raise ValueError(f"must be at most 1, or a whole number; {gpus:g} would lie across GPUs")
    if 0 < gpus < MIN_GPU_SHARE:
        raise ValueError(f"must be 0 or at least {MIN_GPU_SHARE}")
    return gpus


def _auto(value: object) -> object:
    """Return None for "auto".

    Raises:
        ValueError: for a text that is near to it.
    """
    if isinstance(value, str) and closest(value, ["auto"]) and value != "auto":
        raise ValueError("must be \"auto\" or a number; did you mean 'auto'?")
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
    validation: Annotated[float, Field(gt=0)] = 1 / 6  # 1 or more: a number of images; less: a share (10,000 of MNIST)
    split: Literal["stratified", "writer"] = "stratified"
    train: Annotated[float, Field(gt=0)] | None = None  # as `validation`, of the other images; None: all of them
    settings: dict[str, Table] = Field(default={}, validation_alias="[data.NAME]")  # the config of dataset NAME

    @model_validator(mode="before")
    @classmethod
    def _gather_settings(cls, raw: Any) -> Any:
        """Move the tables of datasets into `settings`."""
        if not isinstance(raw, dict):
            return raw
        table = cast("Table", raw)
        inner = {k: v for k, v in table.items() if isinstance(v, dict) and k not in cls.model_fields}
        return {k: v for k, v in table.items() if k not in inner} | {"[data.NAME]": inner}


class SearchSpec(Section):
    """`[search]`: how many trials, who proposes them, who stops them early, and what is to be best."""

    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] = 32  # of a grid: all its points
    algorithm: Algorithm = "auto"
    like: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()  # earlier runs from which it starts
    scheduler: Scheduler = "halving"
    metric: Annotated[tuple[str, ...], BeforeValidator(_several)] = ("val_accuracy",)
    time_budget: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(parse_duration)] = None  # seconds
    reduction_factor: Annotated[int, Field(ge=2)] | None = None  # halving, asha, hyperband: one in so many goes on
    min_budget: Annotated[float, Field(gt=0)] | None = None  # halving: epochs of the smallest training
    grace_epochs: Annotated[int, Field(ge=1)] | None = None  # asha, hyperband, median: never stop before this epoch
    trial_timeout: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(parse_duration)] = None  # seconds
    stall_timeout: Annotated[Annotated[float, Field(gt=0)], BeforeValidator(parse_duration)] = 60.0  # without a step

    @field_validator("metric")
    @classmethod
    def _known_metrics(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in metrics if name not in METRICS]
        if unknown or not metrics or len(set(metrics)) != len(metrics):
            hint = nearest(unknown[0], METRICS) if unknown else ""
            raise ValueError(f"must name metrics, each once, out of {', '.join(METRICS)}; {hint}".rstrip("; "))
        return metrics


class ResourcesSpec(Section):
    """`[resources]`: what one trial gets. `gpus_per_trial = "auto"` shares each GPU among what fits."""

    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    gpus_per_trial: Annotated[
        Annotated[float, Field(ge=0), AfterValidator(_countable)] | None, BeforeValidator(_auto)
    ] = None
    max_parallel: Annotated[int, Field(ge=1)] | None = None


class ConfirmSpec(Section):
    """`[confirm]`: how many of the best plans are re-trained, on how many fresh seeds each. top = 0: none."""

    top: Annotated[int, Field(ge=0)] = 3
    seeds: Annotated[int, Field(ge=1)] = 5
    baseline: bool = True  # the plan of all defaults is confirmed too, so that what searching gained can be told
    splits: Literal["same", "fresh"] = "same"  # "fresh": each seed draws its own training and validation images
    racing: bool = False  # a plan that can no longer win gets no more seeds
    refit: bool = False  # the champion is trained once more, on training and validation images together


class PluginsSpec(Section):
    """`[plugins]`: which distributions may be loaded beside mnistlab's own; without `allow`, every one."""

    allow: Annotated[tuple[str, ...], BeforeValidator(_several)] | None = None


class ExperimentSpec(Section):
    """An experiment file in typed form; immutable once a run starts."""

    name: str
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: DataSpec = DataSpec()
    model: Tables
    optimizer: Tables = {"adamw": {}}
    transform: Tables = {}
    training: Table = {}
    search: SearchSpec = SearchSpec()
    resources: ResourcesSpec = ResourcesSpec()
    confirm: ConfirmSpec = ConfirmSpec()
    plugins: PluginsSpec = PluginsSpec()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not NAME.fullmatch(name) or is_device(name):  # it begins the name of a folder
            raise ValueError("must be 1 to 64 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit")
        return name

    @field_validator("model", "optimizer")
    @classmethod
    def _at_least_one(cls, tables: Tables, info: ValidationInfo) -> Tables:
        if not tables:
            raise ValueError(f"must hold at least one table; write for example {example(str(info.field_name))}")
        return tables


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draft:
    """A file's content with its overrides applied, not yet checked.

    `source` is how reports name the file; `faults` are those of the overrides that are malformed.
    """

    source: str
    table: Table
    faults: tuple[Fault, ...] = ()


def read(path: Path, overrides: Iterable[str] = ()) -> Draft:
    """Read a TOML file and apply `a.b=value` overrides.

    Raises:
        SpecError: if the file is missing, not TOML or too large.
    """
    return with_overrides(Draft(str(path), _read_toml(path)), overrides)


def with_overrides(draft: Draft, overrides: Iterable[str]) -> Draft:
    """Apply `a.b=value` overrides to the table of a draft, in place; return the draft with what is malformed."""
    faults = list(draft.faults)
    for text in overrides:
        try:
            _override(draft.table, text)
        except ValueError as error:
            faults.append(Fault(f"--set {text}", str(error)))
    return replace(draft, faults=tuple(faults))


def _read_toml(path: Path) -> Table:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SpecError(str(path), [Fault("file", f"must be at most {MAX_BYTES} bytes", path.stat().st_size)])
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(str(path), [Fault("file", "does not exist", hint=_near_file(path))]) from None
    except OSError as error:
        raise SpecError(str(path), [Fault("file", f"can't be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise SpecError(str(path), [Fault("file", f"must be UTF-8: {error}")]) from None
    except ValueError as error:  # TOMLDecodeError, and Python's own refusal of numbers with thousands of digits
        raise SpecError(str(path), [Fault("file", f"is not valid TOML: {error}")]) from None
    except RecursionError:
        raise SpecError(str(path), [Fault("file", "is nested too deeply")]) from None


def _near_file(path: Path) -> str:
    """Return "did you mean 'x'?" for a file of a near name beside `path` or in `experiments` there, or ""."""
    folders = (path.parent / "experiments", path.parent)
    there = {p.stem: p for folder in folders for p in sorted(folder.glob("*.toml")) if p.name != "pyproject.toml"}
    near = closest(path.stem, there)  # without the ending, which makes any two names alike
    return f"did you mean '{there[near]}'?" if near else ""


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
        parsed = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):
        return parts, value.strip()
    return parts, parsed["value"] if len(parsed) == 1 else value.strip()  # more: a text that goes on as TOML


def _override(table: Table, text: str) -> None:
    parts, value = parse_override(text)
    for depth, part in enumerate(parts[:-1]):
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ValueError(f"'{'.'.join(parts[: depth + 1])}' is a value, not a table")
        table = cast("Table", inner)
    table[parts[-1]] = value


def validate(draft: Draft) -> tuple[ExperimentSpec | None, list[Fault]]:
    """Return the typed experiment, or None and every fault of the fixed part of the file and of its overrides."""
    conflicts = [*draft.faults, *_conflicts(draft.table.get("search", {}))]
    try:
        spec = ExperimentSpec.model_validate(draft.table)
    except ValidationError as error:
        return None, explain(error, ExperimentSpec) + conflicts
    return (None if conflicts else spec), conflicts


def _conflicts(search: object) -> Iterator[Fault]:
    """Yield the settings of a raw `[search]` table that exclude each other, whatever else is wrong with the file."""
    if not isinstance(search, dict):
        return
    given = cast("Table", search)
    # A misspelt key hides what its author meant: nothing is said of that one.
    unclear = dict.fromkeys(misspelt(given, SearchSpec.model_fields))
    table = {"metric": "val_accuracy", "algorithm": "auto", "scheduler": "halving", "like": None} | unclear | given
    metric, algorithm, scheduler = table["metric"], table["algorithm"], table["scheduler"]
    listed = cast("list[object]", metric) if isinstance(metric, list) else []
    several = len({name for name in listed if isinstance(name, str)}) > 1
    if algorithm == "grid" and table["like"]:
        hint = "leave it out, or use another algorithm"
        yield Fault("search.like", "can't start a grid, whose points are all tried anyway", table["like"], hint)
    if several and algorithm == "cmaes":
        yield Fault("search.algorithm", "can't search for several metrics", algorithm, "use 'nsga2'")
    if several and traits_of(scheduler).compares:
        rule = "must be 'none' with several metrics: early stopping compares by one"
        yield Fault("search.scheduler", rule, scheduler)
    learning = algorithm in get_args(Algorithm) and algorithm not in {"auto", "random"}
    if learning and traits_of(scheduler).changes_settings:
        rule = f"must be 'random' with scheduler = '{scheduler}', which changes settings while trials run"
        yield Fault("search.algorithm", rule, algorithm)


def spec_json(spec: ExperimentSpec) -> Mapping[str, Any]:
    """Return the experiment as a JSON object in the form of the file, so that `validate` can read it again."""
    body = spec.model_dump(mode="json")
    body["data"] |= body["data"].pop("settings")
    return body
