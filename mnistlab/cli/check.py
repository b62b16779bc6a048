"""`mnistlab check FILE`: everything that a search would find out first, without searching."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnistlab.cli.options import RUNS, DataDir, File, Like, NoPlugins, Plugins, Runs, Set, listed, overrides

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.table import Table

    from mnistlab.api import ImageShape
    from mnistlab.errors import Fault
    from mnistlab.experiment.earlier import Earlier
    from mnistlab.experiment.loader import Experiment
    from mnistlab.experiment.space import Space
    from mnistlab.plugins.registry import Registry


def check(
    file: File,
    set_: Set = None,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    no_plugins: NoPlugins = False,
    like: Like = None,
    runs: Runs = RUNS,
) -> None:
    """Validate FILE, show its search space and a sample plan, and say what a search would use."""
    import json
    from functools import partial

    from mnistlab.console.ranking import result_console
    from mnistlab.data import default_place
    from mnistlab.experiment import loader
    from mnistlab.experiment.algorithms import held_back, trials_at_once
    from mnistlab.experiment.dataset import find_data, started_from
    from mnistlab.experiment.earlier import text
    from mnistlab.experiment.portfolio import looks_of
    from mnistlab.experiment.space import defaults, suggest
    from mnistlab.plugins.discovery import selection
    from mnistlab.tuning.environment import check_environment
    from mnistlab.tuning.resources import share, this_machine

    check_environment()
    changes, loaded = overrides(set_, search__like=listed(like)), selection(plugin or (), only_built_in=no_plugins)
    wanted, registry = loader.open_with(file, changes, loaded, partial(_taken, runs))
    out = result_console()
    out.print(f"{file} is valid: experiment '{wanted.spec.name}', seed {wanted.spec.seed}\n")
    out.print(_space_table(wanted.space))
    out.print(f"\n{_size(wanted)}")
    for warning in wanted.warnings:
        out.print(f"WARNING: {warning}", soft_wrap=True)
    out.print()
    point = defaults(wanted.space)
    out.print("First plan (all defaults):")
    out.print(json.dumps(suggest(wanted.space, lambda parameter: point[parameter.path]), indent=2), soft_wrap=True)
    out.print()
    data = find_data(wanted, default_place(data_dir))
    if data.fallback:
        out.print(f"FALLBACK: {wanted.dataset.record.name} is not available ({data.fallback})", soft_wrap=True)
    out.print(
        f"Dataset: {data.choice.record.name} from {data.info.source}: {len(data.division.train)} to train, "
        f"{len(data.division.validation)} to validate, {data.info.test_count} sealed for the test",
        soft_wrap=True,
    )
    out.print(_models_line(wanted, registry, data.info.shape), soft_wrap=True)
    machine = this_machine()
    resources, search = wanted.spec.resources, wanted.spec.search
    whole, portion = share(machine, resources), share(machine, resources, trials_at_once(search))
    each = f"{portion.cpus} CPU" + (f" and {portion.gpus:g} GPU" if portion.gpus else "")
    out.print(f"Devices: {machine}; {portion.parallel} trials in parallel, {each} each")
    note = held_back(search, whole.parallel, portion.parallel)
    if note:
        out.print(note, soft_wrap=True)
    taken = started_from(wanted, data)
    looks = looks_of(search, taken.earlier)
    out.print(f"Proposals: {loader.proposals_of(taken, looks, portion.parallel)}", soft_wrap=True)
    for run in taken.earlier:
        out.print(f"Like: {text(run)}", soft_wrap=True)


def _taken(
    runs: Path, names: Sequence[str], space: Space | None, metric: str
) -> tuple[tuple[Earlier, ...], list[Fault]]:
    from mnistlab.tuning.like import taken  # only where a run is named: optuna comes with it

    return taken(runs, names, space, metric)


def _models_line(wanted: Experiment, registry: Registry, shape: ImageShape) -> str:
    """Ask each model, made of its defaults, about two blank images, and return that all of them answered as they must.

    Raises:
        PluginError: naming every model that did not, and why.
    """
    from mnistlab.errors import PluginError
    from mnistlab.training.loop import resolve
    from mnistlab.training.prediction import probe

    faults: list[str] = []
    for branch in wanted.space.models:
        try:
            probe(*resolve("model", branch.component(lambda parameter: parameter.default), registry), shape)
        except PluginError as error:
            faults.append(f"[model.{branch.name}] {error}")
        except (Exception, SystemExit) as error:  # noqa: BLE001, RUF100 - a stranger's code may raise anything
            faults.append(f"[model.{branch.name}] failed on two blank images: {error!r}")
    if faults:
        raise PluginError("\n".join(faults))
    names = ", ".join(branch.name for branch in wanted.space.models)
    return f"Models: {names}; each of them, made of its defaults, gives a logit for each of {shape.classes} classes"


def _space_table(space: Space) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("parameter", "domain", "condition", "default"):
        table.add_column(title, overflow="fold")
    for row in _rows(space):
        table.add_row(*(Text(cell) for cell in row))
    return table


def _rows(space: Space) -> Iterator[tuple[str, str, str, str]]:
    """Yield what is searched, then what is fixed."""
    for p in space.parameters():
        yield p.path, str(p.domain), f"{p.when[0]} = {p.when[1]}" if p.when else "", _text(p.default)
    kinds = {"model": space.models, "optimizer": space.optimizers, "transform": space.transforms}
    for kind, branches in kinds.items():
        for branch in branches:
            for field, value in branch.fixed.items():
                yield f"{kind}.{branch.name}.{field}", f"fixed: {_text(value)}", "", _text(value)
    for field, value in space.training.fixed.items():
        yield f"training.{field}", f"fixed: {_text(value)}", "", _text(value)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _size(wanted: Experiment) -> str:
    from mnistlab.experiment.space import size

    count, search = size(wanted.space), wanted.spec.search
    points = "endless" if count is None else f"{count:,} points"
    return f"Space: {points}; {search.trials} trials by {search.algorithm}, scheduler {search.scheduler}"
