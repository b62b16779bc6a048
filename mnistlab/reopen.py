"""A finished run, opened to add to it: its experiment, plugins and data as `run.json` holds them, or a refusal."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

from mnistlab import __version__, store
from mnistlab.api import DataPlace
from mnistlab.dataset import Data
from mnistlab.discovery import Selection, selection
from mnistlab.errors import ExitCode, Fault, MnistlabError, PluginError, SpecError
from mnistlab.events import Event, RunResumed
from mnistlab.experiment import Experiment, reopen
from mnistlab.kept import open_data, parts_of, table_of
from mnistlab.registry import Registry
from mnistlab.results import RunRecord
from mnistlab.spec import Draft, Table, with_overrides
from mnistlab.tuning.driver import best_trials

_LIBRARIES = ("torch", "torchvision", "ray", "optuna", "numpy", "pydantic", "pluggy", "safetensors")
GROWING = ("search.trials", "search.time_budget", "resources.")  # what a run that goes on may have more of
MAY_GROW = "search.trials, search.time_budget and resources"
_NUMBERS = ("mnistlab", "torch")  # of the versions those on which numbers depend


class NothingToConfirmError(MnistlabError):
    """A run without a trial that used its full budget."""

    exit_code = ExitCode.NO_TRIAL_SUCCEEDED


@dataclass(frozen=True)
class Reopened:
    """A run directory with everything that is needed to train its plans again."""

    path: Path
    record: RunRecord
    experiment: Experiment
    registry: Registry
    data: Data


def versions() -> Mapping[str, str]:
    """Return the versions of mnistlab, of Python and of the libraries that a run rests on."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"mnistlab": __version__, "python": python, **{name: version(name) for name in _LIBRARIES}}


def differences(record: RunRecord) -> list[str]:
    """Return a warning for each version with which the run was made and that is another one now."""
    then, now = record.run.get("versions", {}), versions()
    return [
        f"this run was made with {name} {then[name]}, and is gone on with {now[name]}: its numbers may differ a little"
        for name in _NUMBERS
        if then.get(name) not in (None, now[name])
    ]


def reopen_run(path: Path, place: DataPlace, *, top: int | None = None, seeds: int | None = None) -> Reopened:
    """Return a run with its confirmation set to `top` plans and `seeds` seeds, where given.

    Raises:
        MnistlabError: if it is no run, has nothing to confirm, or was made with plugins or data that are not at hand.
    """
    record = store.read_run(path)
    experiment, registry = _experiment(path, record)
    confirm = experiment.spec.confirm
    wished = {"top": confirm.top if top is None else top, "seeds": confirm.seeds if seeds is None else seeds}
    spec = experiment.spec.model_copy(update={"confirm": confirm.model_copy(update=wished)})
    if not any(trial.state == "complete" for trial in record.trials):
        raise NothingToConfirmError(f"no trial of {path} has used its full budget: there is nothing to confirm")
    _check_plugins(path, record, registry, wished["top"])
    return Reopened(path, record, replace(experiment, spec=spec), registry, open_data(record, place, registry))


def reopen_search(path: Path, place: DataPlace, changes: Sequence[str] = ()) -> Reopened:
    """Return a run whose search is to go on, with the changes (`key=value`) of earlier times and of now.

    Raises:
        SpecError: if a change is not one that a run can take, or makes the experiment wrong.
        MnistlabError: if it is no run, or was made with plugins or data that are not at hand.
    """
    record = store.read_run(path)
    before = [change for stamped in store.read_events(path) for change in _changes_of(stamped.event)]
    table = changed(table_of(record, "experiment"), [*before, *changes], str(path))
    experiment, registry = _experiment(path, replace(record, run={**record.run, "experiment": table}))
    _check_loaded(path, record, registry)
    return Reopened(path, record, experiment, registry, open_data(record, place, registry))


def _changes_of(event: Event) -> list[str]:
    """Return the changes of an event as `key=value`."""
    return [f"{key}={value}" for key, value in event.changes.items()] if isinstance(event, RunResumed) else []


def changed(table: object, changes: Sequence[str], source: str) -> object:
    """Return an experiment's table with changes (`key=value`) that leave what has been done comparable.

    Raises:
        SpecError: naming every change that is not of this kind.
    """
    draft = Draft(source, cast("Table", copy.deepcopy(table)))
    faults = [
        Fault(f"--set {change}", f"can't be changed once a run has begun; {MAY_GROW} can", hint="start a new search")
        for change in changes
        if not change.partition("=")[0].strip().startswith(GROWING)
    ]
    if faults:
        raise SpecError(source, faults)
    return with_overrides(draft, changes).table


# --- plugins ------------------------------------------------------------------------------------------------------


def _experiment(path: Path, record: RunRecord) -> tuple[Experiment, Registry]:
    """Return the experiment of a run, with the distributions that it was made with and no others."""
    loaded = cast("Mapping[str, str]", record.run.get("plugins", {}))
    wanted = selection(path / "plugins" / name for name in record.run.get("plugin_files", {}))
    return reopen(str(path / "run.json"), dict(table_of(record, "experiment")), _only(wanted, loaded))


def _only(wanted: Selection, loaded: Mapping[str, str]) -> Selection:
    return wanted.only(loaded) if loaded else wanted


def _check_plugins(path: Path, record: RunRecord, registry: Registry, top: int) -> None:
    """Refuse where a plan that is to be trained names a plugin that is not here in the version it was made with.

    Raises:
        PluginError: naming every one of them.
    """
    here = registry.versions()
    plans = [trial.plan for trial in best_trials(record.trials, str(record.run["metric"]), top)]
    needed = {part["distribution"]: str(part["version"]) for plan in plans for _, part in parts_of(plan)}
    faults = [
        f"  {name} {made} is needed, but {f'{name} {here[name]}' if name in here else 'no plugin of that name'} is here"
        for name, made in sorted(needed.items())
        if here.get(name) != made
    ]
    if faults:
        raise PluginError("\n".join([f"{path} was made with other plugins:", *faults]))


def _check_loaded(path: Path, record: RunRecord, registry: Registry) -> None:
    """Refuse where a distribution that the run was made with is missing or of another version: plans name it.

    Raises:
        PluginError: naming every one of them.
    """
    here, then = registry.versions(), cast("Mapping[str, str]", record.run.get("plugins", {}))
    faults = [
        f"  {name} {made} was used, but {f'{name} {here[name]}' if name in here else 'no plugin of that name'} is here"
        for name, made in sorted(then.items())
        if here.get(name) != made
    ]
    if faults:
        raise PluginError("\n".join([f"{path} was made with other plugins:", *faults]))
