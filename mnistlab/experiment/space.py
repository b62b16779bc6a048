"""The search space: the domains of all records that an experiment names, narrowed by its settings.

A space is data. `suggest(space, ask)` walks it and asks for one value after the other; who answers (Optuna, a grid, the
defaults) is not its business. Choosing a model activates that model's parameters only: the space is conditional.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast, get_origin

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo

from mnistlab.api import Choice, Config, Domain, Float, Int, Scalar, domains
from mnistlab.errors import Fault, PluginError, misspelt
from mnistlab.experiment.explain import broken, explain, unknown_setting
from mnistlab.experiment.forms import loose
from mnistlab.experiment.narrowing import read_setting
from mnistlab.experiment.points import default_in, normalized, same, values
from mnistlab.plugins.registry import Kind, Offer, Registry

Plan = dict[str, Any]
Ask = Callable[["Parameter"], Scalar]


class TrainingConfig(Config):
    """`[training]`: what belongs to no plugin. Searched only where the experiment gives a list or a range."""

    epochs: Annotated[int, Field(ge=1)] = 8
    batch_size: Annotated[int, Int(8, 8192, log=True)] = 128
    label_smoothing: Annotated[float, Float(0.0, 0.5)] = 0.0
    precision: Annotated[str, Choice("auto", "fp32", "bf16")] = "auto"


@dataclass(frozen=True)
class Parameter:
    """One searched value. `when` is the (parameter, value) that activates it, or None if it is always active."""

    path: str
    domain: Domain
    default: Scalar
    when: tuple[str, str] | None = None

    @property
    def field(self) -> str:
        """Return the name of the config's field."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Branch:
    """One record of the space: the values that are fixed and the parameters that are searched."""

    name: str
    source: Mapping[str, str]  # plugin, distribution, version; empty for [training]
    fixed: Mapping[str, Scalar]
    parameters: tuple[Parameter, ...]
    portfolio: tuple[Mapping[str, Scalar], ...] = ()  # plans that its plugin knows to be good, by dotted keys

    def component(self, ask: Ask) -> Plan:
        """Return this record's part of a plan."""
        config = dict(self.fixed) | {p.field: ask(p) for p in self.parameters}
        return {"name": self.name, **self.source, "config": config}

    def normalized(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a config with each value as this branch writes it; what the branch does not hold stays as it is."""
        found = {p.field: normalized(p.domain, config[p.field]) for p in self.parameters if p.field in config}
        found |= {field: value for field, value in self.fixed.items() if field in config and same(config[field], value)}
        return {**config, **{field: value for field, value in found.items() if value is not None}}


@dataclass(frozen=True)
class Space:
    """Models and optimizers are alternatives; transforms apply all, in their order."""

    models: tuple[Branch, ...]
    optimizers: tuple[Branch, ...]
    transforms: tuple[Branch, ...]
    training: Branch

    @property
    def epochs(self) -> int:
        """Return the full budget of a trial."""
        return int(self.training.fixed["epochs"])

    def choices(self) -> tuple[Parameter, ...]:
        """Return the parameters that choose between models and between optimizers, where there is a choice."""
        kinds = (("model", self.models), ("optimizer", self.optimizers))
        return tuple(
            Parameter(kind, Choice(*(b.name for b in branches)), branches[0].name)
            for kind, branches in kinds
            if len(branches) > 1
        )

    def branches(self) -> Iterator[Branch]:
        """Yield every branch, in the order of the file's sections."""
        yield from (*self.models, *self.optimizers, *self.transforms, self.training)

    def parameters(self) -> Iterator[Parameter]:
        """Yield everything that is searched, choices first."""
        yield from self.choices()
        for branch in self.branches():
            yield from branch.parameters


# --- walking a space ----------------------------------------------------------------------------------------------


def suggest(space: Space, ask: Ask) -> Plan:
    """Return one point of the space as a plain JSON-able dict, asking for the active parameters only."""
    chosen = {parameter.path: ask(parameter) for parameter in space.choices()}
    model = _chosen(space.models, chosen.get("model"))
    optimizer = _chosen(space.optimizers, chosen.get("optimizer"))
    training = space.training.component(ask)["config"]
    return {
        "model": model.component(ask),
        "optimizer": optimizer.component(ask),
        "transforms": [branch.component(ask) for branch in space.transforms],
        "training": training,
    }


def _chosen(branches: tuple[Branch, ...], name: Scalar | None) -> Branch:
    return branches[0] if name is None else next(b for b in branches if b.name == name)


def normalized_plan(space: Space, plan: Mapping[str, Any]) -> Plan:
    """Return a plan with each value as the space writes it; what the space does not hold stays as it is.

    Earlier versions wrote 0.30000000000000004 for 0.3, and 1 for 1.0.
    """

    def part(branches: tuple[Branch, ...], one: Plan) -> Plan:
        branch = next((branch for branch in branches if branch.name == one.get("name")), None)
        return {**one, "config": branch.normalized(one["config"])} if branch and "config" in one else one

    return {
        **plan,
        "model": part(space.models, plan["model"]),
        "optimizer": part(space.optimizers, plan["optimizer"]),
        "transforms": [part(space.transforms, one) for one in plan["transforms"]],
        "training": space.training.normalized(plan["training"]),
    }


def defaults(space: Space) -> dict[str, Scalar]:
    """Return the active parameters of the plan that is made of all defaults: the first trial."""
    asked: dict[str, Scalar] = {}

    def ask(parameter: Parameter) -> Scalar:
        asked[parameter.path] = parameter.default
        return parameter.default

    suggest(space, ask)
    return asked


def default_plan(space: Space) -> Plan:
    """Return the plan that is made of all defaults: what a search has to beat.

    That is the first model of the file with the first optimizer; what the file fixes is as fixed there, and a default
    that lies outside the file's list or range is the nearest value within (`points.default_in`).
    """
    return suggest(space, lambda parameter: parameter.default)


def endless(space: Space) -> list[Parameter]:
    """Return the parameters that a grid can't enumerate."""
    return [p for p in space.parameters() if values(p.domain) is None]


def grid(space: Space) -> Iterator[dict[str, Scalar]]:
    """Yield the active parameters of every point of a finite space, each point once."""
    shared = [p for branch in (*space.transforms, space.training) for p in branch.parameters]
    for model, optimizer in itertools.product(space.models, space.optimizers):
        names = {"model": model.name, "optimizer": optimizer.name}
        head: dict[str, Scalar] = {p.path: names[p.path] for p in space.choices()}
        active = [*model.parameters, *optimizer.parameters, *shared]
        for point in itertools.product(*(values(p.domain) or () for p in active)):
            yield head | {p.path: value for p, value in zip(active, point, strict=True)}


def size(space: Space) -> int | None:
    """Return how many points a space has, or None where a parameter is continuous (or logarithmic)."""
    if endless(space):
        return None

    def count(branch: Branch) -> int:
        total = 1
        for parameter in branch.parameters:
            total *= len(values(parameter.domain) or ())
        return total

    shared = count(space.training)
    for branch in space.transforms:
        shared *= count(branch)
    return sum(map(count, space.models)) * sum(map(count, space.optimizers)) * shared


# --- composing a space from an experiment's tables ----------------------------------------------------------------


def compose(table: Mapping[str, Any], registry: Registry) -> tuple[Space, list[Fault]]:
    """Return the space of an experiment's raw tables, and everything that is wrong with them.

    With a fault it is no space to search: it lacks what is wrong.
    """
    faults: list[Fault] = []
    models = _branches("model", table.get("model", {}), registry, faults)
    optimizers = _branches("optimizer", table.get("optimizer", {"adamw": {}}), registry, faults)
    transforms = _branches("transform", table.get("transform", {}), registry, faults)
    training = _training(table.get("training", {}), faults)
    return Space(models, optimizers, transforms, training), faults


def _branches(kind: Kind, tables: object, registry: Registry, faults: list[Fault]) -> tuple[Branch, ...]:
    if not isinstance(tables, dict):
        return ()  # the fixed part of the file reports it
    named = cast("dict[str, Any]", tables)
    faults += loose(kind, named, registry.names(kind))
    found: list[Branch] = []
    for name, table in named.items():
        if not isinstance(table, dict):
            continue
        try:
            offer = registry.find(kind, name)
        except PluginError as error:
            faults.append(Fault(f"{kind}.{name}", str(error)))
            continue
        when = (kind, name) if kind != "transform" and len(named) > 1 else None
        found.append(_branch(f"{kind}.{name}", name, offer, cast("dict[str, Any]", table), when, faults))
    return tuple(found)


def _branch(
    place: str, name: str, offer: Offer, table: dict[str, Any], when: tuple[str, str] | None, faults: list[Fault]
) -> Branch:
    source = {"plugin": offer.qualified, "distribution": offer.distribution, "version": offer.version}
    fixed, parameters = _settle(place, offer.record.config, table, when, faults, search_rest=True)
    return Branch(name, source, fixed, parameters, getattr(offer.record, "portfolio", ()))


def _training(table: object, faults: list[Fault]) -> Branch:
    settings = cast("dict[str, Any]", table if isinstance(table, dict) else {})  # the fixed part reports another value
    fixed, parameters = _settle("training", TrainingConfig, settings, None, faults, search_rest=False)
    return Branch("training", {}, fixed, parameters)


def _settle(
    place: str,
    config: type[Config],
    settings: dict[str, Any],
    when: tuple[str, str] | None,
    faults: list[Fault],
    *,
    search_rest: bool,
) -> tuple[dict[str, Scalar], tuple[Parameter, ...]]:
    """Sort the fields of `config` into fixed values and searched parameters, according to `settings`."""
    known = config.model_fields
    allowed, doubtful = domains(config), set(misspelt(settings, known))  # what was meant by a misspelt key
    faults += [unknown_setting(f"{place}.{key}", value, known) for key, value in settings.items() if key not in known]
    fixed: dict[str, Scalar] = {}
    parameters: list[Parameter] = []
    for field, info in known.items():
        where, domain = f"{place}.{field}", allowed.get(field)
        try:
            setting = settings.get(field)
            if field in settings and _scalar(info):
                setting = read_setting(settings[field], domain)
        except ValueError as error:
            faults.append(broken(where, error, settings[field]))
            doubtful.add(field)
            continue
        if isinstance(setting, (Int, Float, Choice)):
            parameters.append(Parameter(where, setting, default_in(setting, info.default), when))
        elif setting is not None:
            fixed[field] = setting
        elif field in doubtful:
            continue
        elif info.is_required():
            faults.append(Fault(where, "is required"))
            doubtful.add(field)
        elif domain is not None and search_rest:
            parameters.append(Parameter(where, domain, default_in(domain, info.default), when))
        else:
            fixed[field] = info.default if domain is None else default_in(domain, info.default)
    point = dict(fixed) | {p.field: p.default for p in parameters}
    found, judged = _judged(place, config, point, doubtful)
    faults += found
    whole = [field for field, value in fixed.items() if type(value) is int]  # also where the field is a float
    fixed |= {field: float(fixed[field]) for field in whole if isinstance(getattr(judged, field, None), float)}
    return fixed, tuple(parameters)


def _judged(
    place: str, config: type[Config], point: Mapping[str, Scalar], doubtful: set[str]
) -> tuple[list[Fault], Config | None]:
    """Let the config class itself judge a point (fields without a domain, rules across fields); return what it makes.

    Fields that are `doubtful` have a fault already: they are judged no more, nor is any rule that needs all fields.
    """
    try:
        return [], config.model_validate(dict(point), strict=True)
    except ValidationError as error:
        return explain(error, config, place, doubtful), None


def _scalar(info: FieldInfo) -> bool:
    """Return whether a field holds a single value; lists and tables are fixed as they are, and judged by the config."""
    return get_origin(info.annotation) not in {list, dict, tuple}
