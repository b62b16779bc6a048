"""A finished run, opened to add to it: its experiment, plugins and data as its record holds them, or a refusal."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from mnistlab import store
from mnistlab.api import DataPlace
from mnistlab.errors import (
    DamagedError,
    ExitCode,
    Fault,
    MnistlabError,
    PluginError,
    PluginFileError,
    RunDirectoryError,
    SpecError,
)
from mnistlab.events import RunResumed
from mnistlab.experiment.amend import GROWING, grown, read_amended
from mnistlab.experiment.dataset import Data
from mnistlab.experiment.earlier import Earlier, from_json, refitted
from mnistlab.experiment.loader import Experiment, reopen
from mnistlab.experiment.recorded import open_data, parts_of, table_of
from mnistlab.experiment.spec import Draft, Table, parse_override, read, with_overrides
from mnistlab.experiment.versions import refuse_other_plugins
from mnistlab.plugins.discovery import Selection, selection
from mnistlab.plugins.registry import Registry
from mnistlab.store.layout import PLUGINS, record_name
from mnistlab.store.results import RunRecord
from mnistlab.tuning.confirm_work import Chosen, chosen_of

MAY_GROW = "search.trials, search.time_budget, the two time-outs of a trial and resources"


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
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])  # what holds other values from now on
    added: Mapping[str, Any] = field(default_factory=dict[str, Any])  # what an amendment adds, and is to be recorded
    untold: Mapping[str, Any] = field(default_factory=dict[str, Any])  # what was recorded so, and no event tells


def reopen_run(
    path: Path, place: DataPlace, *, top: int | None = None, seeds: int | None = None, baseline: bool | None = None
) -> Reopened:
    """Return a run with its confirmation set to `top` plans and `seeds` seeds, with the defaults or not, where given.

    Raises:
        MnistlabError: if it is no run, has nothing to confirm, or was made with plugins or data that are not at hand.
    """
    record = store.read_run(path)
    experiment, registry = _experiment(path, record)
    confirm = experiment.spec.confirm
    given: dict[str, Any] = {"top": top, "seeds": seeds, "baseline": baseline}
    wished = confirm.model_copy(update={key: value for key, value in given.items() if value is not None})
    spec = experiment.spec.model_copy(update={"confirm": wished})
    if not any(trial.state == "complete" for trial in record.trials):
        raise NothingToConfirmError(f"no trial of {path} has used its full budget: there is nothing to confirm")
    _check_plugins(path, registry, chosen_of(spec, experiment.space, record.trials, record))
    return Reopened(path, record, replace(experiment, spec=spec), registry, open_data(record, place, registry))


def reopen_search(path: Path, place: DataPlace, changes: Sequence[str] = (), amend: Path | None = None) -> Reopened:
    """Return a run whose search is to go on, with the changes (`key=value`) of earlier times and of now.

    With the experiment file `amend` it goes on in the space of that file, to which it may have added.

    Raises:
        SpecError: naming every change that a run can't take, everything in the file that is no addition, or every fault
            of the experiment that they make.
        MnistlabError: if it is no run, or was made with plugins or data that are not at hand.
    """
    record = store.read_run(path)
    table, earlier, faults = table_of(record, "experiment"), _earlier(path, record), refused(changes)
    if faults and amend is None:
        raise SpecError(str(path), faults)
    taken = () if faults else changes
    experiment, registry = _experiment(path, _with(record, changed(table, [*earlier.changes, *taken], str(path))))
    _check_loaded(path, record, registry)
    data, untold = open_data(record, place, registry), {} if earlier.told else record.run.get("amended", {})
    found = Reopened(path, record, experiment, registry, data, _parsed(taken), untold=untold)
    return found if amend is None else _amended(found, amend, changes, earlier.changes, faults)


def _amended(
    found: Reopened, file: Path, changes: Sequence[str], earlier: Sequence[str], faults: Sequence[Fault]
) -> Reopened:
    """Return the run with the space of an amended file, and with what both say of trials, time and resources.

    Raises:
        SpecError: with `faults` and everything in the file that is no addition.
    """
    path, record = found.path, found.record
    wanted, loaded = _wanted(path, record), found.registry.versions()
    draft = read(file)
    try:
        experiment, registry, added = read_amended(draft, found.experiment, wanted, loaded)
    except SpecError as error:
        raise SpecError(error.source, [*faults, *error.faults]) from None
    if faults:
        raise SpecError(draft.source, faults)
    more = grown(draft, _experiment(path, record)[0].spec, experiment)
    told = [*(f"{key}={value}" for key, value in more.items()), *changes]
    table = changed(table_of(record, "experiment"), [*earlier, *told], str(path))
    spec = _experiment(path, _with(record, table))[0].spec
    kept = ("trials", "time_budget", "trial_timeout", "stall_timeout")  # what was changed since the file stays
    search = {key: getattr(spec.search, key) for key in kept}
    both = {"search": experiment.spec.search.model_copy(update=search), "resources": spec.resources}
    then = found.experiment
    experiment = replace(
        experiment,
        spec=experiment.spec.model_copy(update=both),
        asked=then.asked,
        earlier=refitted(then.earlier, then.space, experiment.space),
    )
    return replace(found, experiment=experiment, registry=registry, changes=_parsed(told), added=added)


def _with(record: RunRecord, table: object) -> RunRecord:
    return replace(record, run={**record.run, "experiment": table})


def _parsed(changes: Sequence[str]) -> dict[str, Any]:
    return {".".join(key): value for key, value in map(parse_override, changes)}


@dataclass(frozen=True)
class _Earlier:
    """What earlier drivers have changed (`key=value`) since the newest record, and whether they told of that one."""

    changes: tuple[str, ...]
    told: bool


def _earlier(path: Path, record: RunRecord) -> _Earlier:
    """Return what the events tell of earlier drivers.

    Raises:
        RunDirectoryError: if they tell of a record that is not there.
    """
    stream = [stamped.event for stamped in store.read_events(path)]
    resumed = [event for event in stream if isinstance(event, RunResumed)]
    newest = max((event.record for event in resumed), default=1)
    if newest > record.number:
        raise RunDirectoryError(f"{path} has lost {record_name(newest)}, which holds its experiment since an amendment")
    since = [event for event in resumed if event.record == record.number]
    changes = [f"{key}={value}" for event in since for key, value in event.changes.items()]
    return _Earlier(tuple(changes), newest == record.number)


def refused(changes: Sequence[str]) -> list[Fault]:
    """Return a fault for each change that is no `key=value`, or would leave what was done no longer comparable."""
    return [Fault(f"--set {change}", *why) for change in changes if (why := _against(change))]


def _against(change: str) -> tuple[str, None, str] | None:
    try:
        parse_override(change)
    except ValueError as error:
        return str(error), None, ""
    if change.partition("=")[0].strip().startswith(GROWING):
        return None
    hint = "for a larger space write it into the file and --amend FILE, for all else start a new search"
    return f"can't be changed once a run has begun; {MAY_GROW} can", None, hint


def changed(table: object, changes: Sequence[str], source: str) -> object:
    """Return an experiment's table with changes (`key=value`) that leave what has been done comparable.

    Raises:
        SpecError: naming every change that is malformed or not of this kind.
    """
    if faults := refused(changes):
        raise SpecError(source, faults)
    draft = with_overrides(Draft(source, cast("Table", copy.deepcopy(table))), changes)
    if draft.faults:
        raise SpecError(source, draft.faults)
    return draft.table


# --- plugins ------------------------------------------------------------------------------------------------------


def _experiment(path: Path, record: RunRecord) -> tuple[Experiment, Registry]:
    """Return the experiment of a run, with the distributions that it was made with and no others."""
    loaded = cast("Mapping[str, str]", record.run.get("plugins", {}))
    table = dict(table_of(record, "experiment"))
    found, registry = reopen(str(path / record.file), table, _only(_wanted(path, record), loaded))
    asked = record.run.get("asked", found.spec.search.algorithm)
    return replace(found, asked=asked, earlier=_earlier_runs(path, record)), registry


def _earlier_runs(path: Path, record: RunRecord) -> tuple[Earlier, ...]:
    try:
        return from_json(record.run.get("like", ()))
    except ValidationError as error:
        raise DamagedError(path / record.file, f"what it says of earlier runs (`like`) is not whole: {error}") from None


def _wanted(path: Path, record: RunRecord) -> Selection:
    try:
        return selection(path / PLUGINS / name for name in record.run.get("plugin_files", {}))
    except PluginFileError as error:  # nobody has named it: it is the run that lacks it
        raise PluginError(str(error)) from None


def _only(wanted: Selection, loaded: Mapping[str, str]) -> Selection:
    return wanted.only(loaded) if loaded else wanted


def _check_plugins(path: Path, registry: Registry, chosen: Chosen) -> None:
    """Refuse where a plan that is to be trained names a plugin that is not here in the version it was made with."""
    plans = [trial.plan for trial in chosen.trials]
    needed = {part["distribution"]: str(part["version"]) for plan in plans for _, part in parts_of(plan)}
    refuse_other_plugins(path, needed, registry, "is needed")


def _check_loaded(path: Path, record: RunRecord, registry: Registry) -> None:
    """Refuse where a distribution that the run was made with is missing or of another version: plans name it."""
    refuse_other_plugins(path, cast("Mapping[str, str]", record.run.get("plugins", {})), registry, "was used")
