"""A finished run, opened to add to it: its experiment, plugins and data as `run.json` holds them, or a refusal."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np

from mnistlab import __version__, store
from mnistlab.api import DataPlace, DatasetInfo, LabelledImages
from mnistlab.data import Division, open_train, prepare_dataset
from mnistlab.dataset import Data
from mnistlab.discovery import Selection, selection
from mnistlab.errors import DataError, ExitCode, Fault, MnistlabError, PluginError, RunDirectoryError, SpecError
from mnistlab.events import Event, RunResumed
from mnistlab.experiment import DatasetChoice, Experiment, reopen
from mnistlab.registry import Registry
from mnistlab.results import RunRecord
from mnistlab.spec import Draft, Table, with_overrides
from mnistlab.tuning.driver import best_trials
from mnistlab.tuning.worker import digest

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
    return Reopened(path, record, replace(experiment, spec=spec), registry, _data(path, record, experiment, place))


def reopen_search(path: Path, place: DataPlace, changes: Sequence[str] = ()) -> Reopened:
    """Return a run whose search is to go on, with the changes (`key=value`) of earlier times and of now.

    Raises:
        SpecError: if a change is not one that a run can take, or makes the experiment wrong.
        MnistlabError: if it is no run, or was made with plugins or data that are not at hand.
    """
    record = store.read_run(path)
    before = [change for stamped in store.read_events(path) for change in _changes_of(stamped.event)]
    table = changed(record.run.get("experiment"), [*before, *changes], str(path))
    experiment, registry = _experiment(path, replace(record, run={**record.run, "experiment": table}))
    _check_loaded(path, record, registry)
    return Reopened(path, record, experiment, registry, _data(path, record, experiment, place))


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
    table, loaded = record.run.get("experiment"), cast("Mapping[str, str]", record.run.get("plugins", {}))
    if not isinstance(table, dict):
        raise RunDirectoryError(f"{path / 'run.json'} holds no experiment")
    wanted = selection(path / "plugins" / name for name in record.run.get("plugin_files", {}))
    return reopen(str(path / "run.json"), cast("dict[str, Any]", table), _only(wanted, loaded))


def _only(wanted: Selection, loaded: Mapping[str, str]) -> Selection:
    return wanted.only(loaded) if loaded else wanted


def _check_plugins(path: Path, record: RunRecord, registry: Registry, top: int) -> None:
    """Refuse where a plan that is to be trained names a plugin that is not here in the version it was made with.

    Raises:
        PluginError: naming every one of them.
    """
    here = registry.versions()
    plans = [trial.plan for trial in best_trials(record.trials, str(record.run["metric"]), top)]
    needed = {part["distribution"]: str(part["version"]) for plan in plans for part in _parts(plan)}
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


def _parts(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from (plan["model"], plan["optimizer"], *plan["transforms"])


# --- data ---------------------------------------------------------------------------------------------------------


def _data(path: Path, record: RunRecord, experiment: Experiment, place: DataPlace) -> Data:
    """Return the data that the run was made with, split as it was.

    Raises:
        DataError: if what is at hand is something else.
    """
    said = cast("Mapping[str, Any]", record.run["dataset"])
    choice = _choice(path, said, experiment)
    info = prepare_dataset(choice.record, choice.config, place)
    images = open_train(choice.record, choice.config, place)
    faults = [*_faults(said, info, images)]
    if faults:
        raise DataError("\n".join([f"{path} was made with other data than is here ({info.source}):", *faults]))
    return Data(choice, info, images, _division(path, said), str(said.get("fallback", "")))


def _choice(path: Path, said: Mapping[str, Any], experiment: Experiment) -> DatasetChoice:
    """Return the dataset that the run used: the one asked for, or its fallback."""
    for choice in (experiment.dataset, experiment.fallback):
        if choice is not None and choice.offer.qualified == said["plugin"]:
            return choice
    raise DataError(f"{path} used the dataset {said['plugin']}, which its own experiment does not name")


def _faults(said: Mapping[str, Any], info: DatasetInfo, images: LabelledImages) -> Iterator[str]:
    then, now = cast("Mapping[str, str]", said["sha256"]), info.sha256
    for part in sorted(then.keys() | now.keys()):
        if then.get(part) != now.get(part):
            yield f"  {part}: sha256 {then.get(part, 'none')} then, {now.get(part, 'none')} now"
    whole = said["train"] + said["validation"]
    if (whole, said["test"]) != (len(images.labels), info.test_count):
        yield f"  {whole} + {said['test']} images then, {len(images.labels)} + {info.test_count} now"
    if said.get("images_sha256") not in (None, digest(images)):
        yield f"  training images and labels: sha256 {said['images_sha256']} then, {digest(images)} now"


def _division(path: Path, said: Mapping[str, Any]) -> Division:
    """Return the split as it was written down: drawing it anew would trust that a library still draws alike."""
    validation = np.array(said["validation_indices"], dtype=np.int64)
    train = np.setdiff1d(np.arange(said["train"] + said["validation"], dtype=np.int64), validation)
    division = Division(train=train, validation=validation)
    if division.digest() != said["split_sha256"] or len(train) != said["train"]:
        raise RunDirectoryError(f"{path / 'run.json'} is damaged: its split is not the one that its sha256 stands for")
    return division
