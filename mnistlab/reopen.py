"""A finished run, opened to add to it: its experiment, plugins and data as `run.json` holds them, or a refusal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

from mnistlab import __version__, store
from mnistlab.api import DataPlace
from mnistlab.dataset import Data
from mnistlab.discovery import Selection, selection
from mnistlab.errors import ExitCode, MnistlabError, PluginError
from mnistlab.experiment import Experiment, reopen
from mnistlab.kept import open_data, parts_of, table_of
from mnistlab.registry import Registry
from mnistlab.results import RunRecord
from mnistlab.tuning.driver import best_trials

_LIBRARIES = ("torch", "torchvision", "ray", "optuna", "numpy", "pydantic", "pluggy", "safetensors")
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
