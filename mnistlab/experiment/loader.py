"""An experiment that can be run: the typed file, its space and its dataset, all checked against the plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from pydantic import BaseModel, ValidationError

from mnistlab.api import Config, Dataset
from mnistlab.errors import Fault, PluginError, SpecError, closest, misspelt, near_miss
from mnistlab.experiment import algorithms
from mnistlab.experiment import spec as spec_file
from mnistlab.experiment.earlier import Earlier
from mnistlab.experiment.explain import TABLE, UNKNOWN, explain
from mnistlab.experiment.forms import PLUGIN_TABLES, how_to_write
from mnistlab.experiment.portfolio import first_looks
from mnistlab.experiment.space import Space, TrainingConfig, compose, endless, size
from mnistlab.experiment.spec import (
    MAX_TRIALS,
    MOST_OF_BUDGET,
    OLD_DEFAULTS,
    Algorithm,
    ConfirmSpec,
    DataSpec,
    Draft,
    ExperimentSpec,
    PluginsSpec,
    ResourcesSpec,
    SearchSpec,
    Table,
)
from mnistlab.plugins.discovery import Selection, canonical
from mnistlab.plugins.registry import Offer, Registry, select
from mnistlab.store.schedulers import traits_of

_SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataSpec,
    "training": TrainingConfig,
    "search": SearchSpec,
    "resources": ResourcesSpec,
    "confirm": ConfirmSpec,
    "plugins": PluginsSpec,
}


@dataclass(frozen=True)
class DatasetChoice:
    """A dataset record with the config that the experiment gives it."""

    offer: Offer
    config: Config

    @property
    def record(self) -> Dataset[Config]:
        """Return the record itself."""
        return cast("Dataset[Config]", self.offer.record)


@dataclass(frozen=True)
class Experiment:
    """What a search, a check or a single training needs to know of an experiment file."""

    spec: ExperimentSpec
    space: Space
    dataset: DatasetChoice
    fallback: DatasetChoice | None
    warnings: tuple[str, ...] = ()  # what the file allows and its author may not have meant
    asked: Algorithm = "auto"  # the algorithm as the file has it; `spec` says what `auto` stands for
    earlier: tuple[Earlier, ...] = ()  # the runs from which the search starts


def proposals_of(experiment: Experiment, looks: int, at_once: int) -> str:
    """Return in words who proposes the plans of a search of which so many trials look at what is known."""
    search, taken = experiment.spec.search, experiment.earlier
    known = algorithms.Known(
        plans=min(looks, len(list(first_looks(experiment.space, taken)))),
        earlier=min(looks - 1, sum(len(run.looks) for run in taken)),
        results=sum(len(run.results) for run in taken) if algorithms.learns_from_earlier(search) else 0,
    )
    return algorithms.proposals(experiment.asked, search, experiment.space, known, at_once)


Taking = Callable[[Sequence[str], Space | None, str], tuple[tuple[Earlier, ...], list[Fault]]]
"""What takes from earlier runs, given their names, a space (None where that has faults) and a metric."""


def taking_nothing(names: Sequence[str], space: Space | None, metric: str) -> tuple[tuple[Earlier, ...], list[Fault]]:  # noqa: ARG001
    """Take nothing: the run exists already, and holds what was taken; or nothing is searched."""
    return (), []


def open_with(
    path: Path, overrides: Iterable[str], wanted: Selection, taking: Taking = taking_nothing
) -> tuple[Experiment, Registry]:
    """Read and check an experiment file against the plugins of `wanted` that the file itself allows.

    `taking` reads the earlier runs that it names.

    Raises:
        SpecError: with every fault of the file, those of its fixed part and those of its plugins' settings together.
        PluginError: if a plugin that was named as a file can't be loaded.
    """
    draft = spec_file.read(path, overrides)
    registry = select(replace(wanted, allowed=allowed_by(draft.table)))
    return judge(draft, registry, taking), registry


def reopen(source: str, table: Table, wanted: Selection) -> tuple[Experiment, Registry]:
    """Check an experiment as a run's record holds it (`spec_json`) against the plugins of `wanted`.

    Raises:
        SpecError: as `open_with`, naming `source`.
        PluginError: if a plugin that was named as a file can't be loaded.
    """
    registry = select(wanted)
    return judge(Draft(source, _without_nothing(_completed(table))), registry), registry


def _completed(recorded: Table) -> Table:
    """Return a record's table with what its version took for granted and had no key for: a record lacks no other."""
    sections = {name: recorded.get(name, {}) for name in OLD_DEFAULTS}
    known = {name: cast("Table", table) for name, table in sections.items() if isinstance(table, dict)}
    return {**recorded, **{name: {**OLD_DEFAULTS[name], **table} for name, table in known.items()}}


def _without_nothing(table: Table) -> Table:
    """Return a table without the keys that JSON has as null: TOML has no word for it, and leaves them out."""
    return {
        key: _without_nothing(cast("Table", value)) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }


def load(path: Path, overrides: Iterable[str], registry: Registry) -> Experiment:
    """Read and check an experiment file against the plugins of `registry`.

    Raises:
        SpecError: with every fault of the file, those of its fixed part and those of its plugins' settings together.
    """
    return judge(spec_file.read(path, overrides), registry)


def allowed_by(table: Table) -> frozenset[str] | None:
    """Return what a raw `[plugins]` table allows; what is wrong with it is reported with the file's other faults."""
    plugins = table.get("plugins")
    if not isinstance(plugins, dict) or "allow" not in plugins:
        return None
    allow = cast("Table", plugins)["allow"]
    names = cast("list[object]", allow) if isinstance(allow, list) else [allow]
    return frozenset(canonical(name) for name in names if isinstance(name, str))


def judge(draft: Draft, registry: Registry, taking: Taking = taking_nothing) -> Experiment:
    """Return the experiment that a draft comes to with the plugins of `registry`.

    Raises:
        SpecError: with every fault of the draft, those of its fixed part and those of its plugins' settings together.
    """
    spec, faults = spec_file.validate(draft)
    faults += _allow_faults(draft.table.get("plugins"), registry)
    space, more = compose(draft.table, registry)
    faults += more
    earlier, useless = _taken(draft.table.get("search"), None if more else space, taking)
    faults += useless
    dataset, fallback = _datasets(draft.table.get("data", {}), registry, faults)
    faults += _grid_faults(draft.table.get("search"), space)
    if faults or spec is None or dataset is None:
        raise SpecError(draft.source, [_at_home(fault, draft.table, registry) for fault in faults])
    asked = spec.search.algorithm
    spec = _settled(_sized(_proposing(spec), space), dataset, fallback)
    return Experiment(spec, space, dataset, fallback, tuple(_warnings(spec, space)), asked, earlier)


def _taken(search: object, space: Space | None, taking: Taking) -> tuple[tuple[Earlier, ...], list[Fault]]:
    """Take from the runs that a raw `[search]` table names, whatever else is wrong with the file."""
    table = cast("Table", search) if isinstance(search, dict) else {}
    like, metric = table.get("like", []), table.get("metric", [])
    names, metrics = (_texts(value) for value in (like, metric))
    return taking(names, space, metrics[0] if metrics else SearchSpec().metric[0]) if names else ((), [])


def _texts(value: object) -> list[str]:
    """Return the texts of a list, or the one that a value is."""
    several = cast("list[object]", value) if isinstance(value, list) else [value]
    return [one for one in several if isinstance(one, str)]


def _at_home(fault: Fault, table: Table, registry: Registry) -> Fault:
    """Return the fault of a key that stands in the wrong part of a file with where it belongs.

    TOML ends a table with the next header, so that a key at the end of a file belongs to the last table.
    """
    if fault.rule == TABLE and fault.place in PLUGIN_TABLES:
        return replace(fault, hint=how_to_write(fault.place, fault.value, registry.names(fault.place)))
    if fault.rule != UNKNOWN:
        return fault
    place, _, key = fault.place.rpartition(".")
    kinds = [kind for kind in PLUGIN_TABLES if not place and registry.offers_one(kind, key)]
    sections = [name for name, keys in _SECTIONS.items() if key in keys.model_fields and key != "settings"]
    if kinds:
        return replace(fault, hint=f"write [{kinds[0]}.{key}]")
    if sections:
        return replace(fault, hint=f"it belongs under [{sections[0]}]")
    missing = key in ("name", "seed") and key not in table
    return replace(fault, hint="it belongs above all tables") if missing else fault


def _grid_faults(search: object, space: Space) -> list[Fault]:
    """Return the faults of what a grid can't enumerate, whatever else is wrong with the file."""
    if not isinstance(search, dict) or cast("Table", search).get("algorithm") != "grid":
        return []
    rule = "can't be enumerated, and algorithm = 'grid' needs a finite space"
    hint = "give a list of values, or a range with step and without log"
    return [Fault(p.path, rule, str(p.domain), hint) for p in endless(space)]


def _allow_faults(plugins: object, registry: Registry) -> list[Fault]:
    """Judge the names of a raw `[plugins]` table; what is no name is reported with the fixed part."""
    allow = cast("Table", plugins).get("allow") if isinstance(plugins, dict) else None
    names = cast("list[object]", allow) if isinstance(allow, list) else [allow]
    known = {canonical(plugin.found.distribution) for plugin in registry.plugins}
    return [
        Fault("plugins.allow", "names no installed distribution that offers plugins", name, near_miss(name, known))
        for name in names
        if isinstance(name, str) and canonical(name) not in known
    ]


def _proposing(spec: ExperimentSpec) -> ExperimentSpec:
    """Return the experiment with the algorithm that `auto` stands for."""
    search = spec.search.model_copy(update={"algorithm": algorithms.chosen(spec.search)})
    return spec.model_copy(update={"search": search})


def _sized(spec: ExperimentSpec, space: Space) -> ExperimentSpec:
    """Return the experiment with as many trials as its grid has points, where the file does not say how many."""
    if spec.search.algorithm != "grid" or "trials" in spec.search.model_fields_set:
        return spec
    trials = min(size(space) or 1, MAX_TRIALS)
    return spec.model_copy(update={"search": spec.search.model_copy(update={"trials": trials})})


def _settled(spec: ExperimentSpec, dataset: DatasetChoice, fallback: DatasetChoice | None) -> ExperimentSpec:
    """Return the experiment with the settings of its datasets as their configs have them, a folder's path absolute.

    So they are written down, and read by whoever goes on with the run from another folder.
    """
    chosen = {spec.data.dataset: dataset, spec.data.offline_fallback: fallback}
    configs = {name: choice.config for name, choice in chosen.items() if choice and name in spec.data.settings}
    settings = {str(name): config.model_dump(mode="json", exclude_unset=True) for name, config in configs.items()}
    return spec.model_copy(update={"data": spec.data.model_copy(update={"settings": settings})})


def _warnings(spec: ExperimentSpec, space: Space) -> Iterator[str]:
    least = spec.search.min_budget
    if traits_of(spec.search.scheduler).retrains and least and least > MOST_OF_BUDGET * space.epochs:
        yield (
            f"search.min_budget = {least:g} and training.epochs = {space.epochs}: every trial is trained in full, "
            f"because a first training of more than {100 * MOST_OF_BUDGET:.0f} % of the epochs saves too little; set a "
            "smaller budget, or leave it out"
        )
    points, trials = size(space) or 0, spec.search.trials
    if spec.search.algorithm == "grid" and trials < points:
        yield f"search.trials = {trials:,}, but the grid has {points:,} points: {points - trials:,} will not be tried"
    yield from algorithms.warnings(spec, space)


def _datasets(
    table: object, registry: Registry, faults: list[Fault]
) -> tuple[DatasetChoice | None, DatasetChoice | None]:
    """Judge the raw `[data]` table, so that a fault of its fixed part (reported there) hides no other."""
    if not isinstance(table, dict):
        return None, None
    raw = cast("Table", table)
    data = {"dataset": DataSpec().dataset} | raw
    keys = [key for key in ("dataset", "offline_fallback") if data.get(key) is not None]
    asked = {key: data[key] for key in keys if isinstance(data[key], str)}
    tables = [name for name, value in raw.items() if isinstance(value, dict) and name not in DataSpec.model_fields]
    others = [name for name in tables if name not in asked.values()]
    clear = len(asked) == len(keys)  # else nobody can say which tables are used
    meant = [*_meant(raw, asked.values(), registry)] if clear else others
    rule, hint = "is the table of a dataset that this experiment does not use", f"it uses {', '.join(asked.values())}"
    faults += [Fault(f"data.{name}", rule, hint=hint) for name in others if name not in meant]
    for name in others:
        if name in meant and registry.offers_one("dataset", name):
            _choose(f"data.{name}", name, data, registry, faults)
    found = {key: _choose(f"data.{key}", name, data, registry, faults) for key, name in asked.items()}
    return found.get("dataset"), found.get("offline_fallback")


def _meant(table: Table, asked: Iterable[str], registry: Registry) -> Iterator[object]:
    """Yield the datasets that misspelt names and misspelt keys probably mean: their tables are no second fault."""
    known = [offer.name for offer in registry.offers("dataset")]
    yield from (closest(name, known) for name in asked)
    yield from (table[key] for key in misspelt(table, DataSpec.model_fields).values())


def _choose(place: str, name: str, data: Table, registry: Registry, faults: list[Fault]) -> DatasetChoice | None:
    try:
        offer = registry.find("dataset", name)
    except PluginError as error:
        faults.append(Fault(place, str(error)))
        return None
    try:
        return DatasetChoice(offer, offer.record.config.model_validate(data.get(name, {}), strict=True))
    except ValidationError as error:
        faults += explain(error, offer.record.config, f"data.{name}")
        return None
