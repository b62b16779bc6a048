"""One run from end to end: data, run directory, cluster, search, confirmation, and how it ended."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, partial
from pathlib import Path

from mnistlab import events
from mnistlab.api import DataPlace
from mnistlab.data import Division, images_digest
from mnistlab.errors import ExitCode, MnistlabError, RunDirectoryError
from mnistlab.experiment.algorithms import held_back, trials_at_once
from mnistlab.experiment.dataset import Data, find_data, fresh_division, started_from
from mnistlab.experiment.loader import Experiment
from mnistlab.experiment.portfolio import looks_of
from mnistlab.experiment.spec import ExperimentSpec, SearchSpec
from mnistlab.experiment.versions import doubts_of_numbers
from mnistlab.plugins.discovery import Selection
from mnistlab.plugins.registry import Registry
from mnistlab.store import RunWriter, create_run, read_events, read_run
from mnistlab.store.ends import end_event
from mnistlab.store.layout import RUN
from mnistlab.store.results import RunRecord, TrialResult
from mnistlab.store.schedulers import traits_of
from mnistlab.tuning.confirm import confirm, go_on
from mnistlab.tuning.confirm_work import left_of, work_of
from mnistlab.tuning.context import Search
from mnistlab.tuning.driver import run_search
from mnistlab.tuning.executors import executor
from mnistlab.tuning.history import Past, past_of
from mnistlab.tuning.outcome import verdicts_of
from mnistlab.tuning.ray.nodes import Nodes
from mnistlab.tuning.record import amended_record, resumed, run_record, started
from mnistlab.tuning.recorder import ends_of_waiting
from mnistlab.tuning.reopen import Reopened
from mnistlab.tuning.resources import Machine, Share, doubts, room, share, this_machine
from mnistlab.tuning.schedulers.halving import Rung, found_rungs, promotes, rungs_of
from mnistlab.tuning.session import (
    Drive,
    Options,
    View,
    cut_short,
    emitter,
    say_preparing,
    stopping,
    ticker,
    to_the_end,
)
from mnistlab.tuning.sharing import require_shared
from mnistlab.tuning.trackers import Tracking, tracking
from mnistlab.tuning.worker.trial import Shared
from mnistlab.util.seal import sealed
from mnistlab.util.signals import Requests, signals_as


@dataclass(frozen=True)
class Finished:
    """Where the run lies and how it ended; `end` is its last event, with `end_only` all that was missing of it."""

    path: Path
    end: events.RunFinished
    end_only: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """Return the code that the command ends with."""
        return ExitCode(self.end.exit_code)


def shared_of(
    data: Data,
    place: DataPlace,
    portion: Share,
    plugins: Selection,
    search: SearchSpec,
    *,
    more_room: bool = False,
    more_nodes: bool = False,
) -> Shared:
    """Return what every worker needs to load the same data."""
    return Shared(
        dataset=data.choice.offer.qualified,
        config=data.choice.config.model_dump(mode="json"),
        place=place,
        shape=data.info.shape,
        train_sha256=images_digest(data.images),
        division=data.division,
        cpus=portion.cpus,
        gpus=portion.gpus,
        plugins=plugins,
        stall_seconds=search.stall_timeout,
        trial_seconds=search.trial_timeout,
        more_room=more_room,
        more_nodes=more_nodes,
    )


# --- the run ------------------------------------------------------------------------------------------------------


def search(experiment: Experiment, options: Options, registry: Registry, view: View) -> Finished:
    """Run a whole search and leave its run directory.

    Raises:
        MnistlabError: if it can't begin (data, plugins, resources), or can't write down what it does.
    """
    executor(options.executor).check(experiment.spec, options.address)
    here = this_machine()
    if options.address is None:
        share(here, experiment.spec.resources)  # refuse what can't fit before anything is started
    first = not options.runs.exists()
    path = create_run(options.runs, experiment.spec.name, datetime.now().astimezone())
    try:
        writer, requests = RunWriter(path), Requests()
    except MnistlabError:  # nothing can be locked there, say
        _leave_nothing(path, first=first)
        raise
    try:
        tracked = tracking(options.log, path, experiment.spec.name)
        with signals_as(requests), view(path) as handle, sealed(), tracked as track:
            emit = emitter(writer, requests, handle, track)
            run = Drive(experiment, options, registry, writer, requests, emit)
            return Finished(path, to_the_end(run, lambda: _search_and_confirm(run, here, track)))
    finally:
        writer.close()
        if not (path / RUN).exists():
            _leave_nothing(path, first=first)


def _leave_nothing(path: Path, *, first: bool) -> None:
    """Remove what there is of a run that never began; with the folder of all runs, if it was to be the `first`."""
    shutil.rmtree(path)
    if first:
        with suppress(OSError):  # another search may be using the folder by now
            path.parent.rmdir()


def add_confirmation(found: Reopened, options: Options, view: View) -> Finished | None:
    """Confirm the best plans of a finished run as its experiment now says, where some of that is not done yet.

    Returns:
        How that ended, or None where there is nothing to do; then nothing is written.

    Raises:
        MnistlabError: if another process drives the run, or its files can't be written.
    """
    executor(options.executor).check(found.experiment.spec, options.address)
    writer, requests = RunWriter(found.path), Requests()
    try:
        record = read_run(found.path)  # again: only now is nobody else writing
        if work_of(found.experiment.spec, found.experiment.space, record.trials, record).done:
            return None
        with signals_as(requests), view(found.path) as handle, sealed(), tracking((), found.path, "") as track:
            emit = emitter(writer, requests, handle, track)
            run = Drive(
                found.experiment, options, found.registry, writer, requests, emit, list(record.trials), searching=False
            )
            return Finished(found.path, to_the_end(run, lambda: _confirm_more(run, found.data, record)))
    finally:
        writer.close()


def resume(found: Reopened, options: Options, view: View, *, again: bool = False) -> Finished | None:
    """Go on with a search that was interrupted, killed or given more to do, to its end and through its confirmation.

    With `again`, trials that have failed are started once more. Of a run that had come to its end when its driver died,
    the end is written.

    Returns:
        How that ended, or None where there is nothing to do; then nothing is written.

    Raises:
        MnistlabError: if another process drives the run, or its files can't be written.
    """
    executor(options.executor).check(found.experiment.spec, options.address)
    writer, requests = RunWriter(found.path), Requests()
    try:
        record = read_run(found.path)  # again: only now is nobody else writing
        if record.number != found.record.number:
            raise RunDirectoryError(f"{found.path} was amended meanwhile, by another process: start again")
        past, spec = past_of(read_events(found.path), again=again), found.experiment.spec
        searching = _searchable(found, past)
        if not searching:  # what has failed is not tried again either: it stays as it ended
            past = past_of(read_events(found.path))
        ended = _ended(record, past) if searching else _all_ended(record, past)
        idle = not searching and _confirmed(found.experiment, ended, record)
        if idle and past.over:
            return None
        plans = {trial.trial: trial.plan for trial in record.trials}
        tracked = tracking(options.log, found.path, spec.name, plans)
        with signals_as(requests), view(found.path) as handle, sealed(), tracked as track:
            emit = emitter(writer, requests, handle, track)
            verdicts = list(verdicts_of(past))
            run = Drive(found.experiment, options, found.registry, writer, requests, emit, ended, verdicts)

            def work() -> None:
                if not searching:
                    _end_waiting(run, past)
                if not idle:
                    _go_on(run, found, past, track)

            return Finished(found.path, to_the_end(run, work), end_only=idle)
    finally:
        writer.close()


def _end_waiting(run: Drive, past: Past) -> None:
    """Write the ends of trials that waited at a rung when a driver died, in a run that searches no more."""
    for result in ends_of_waiting(past):
        run.writer.write_trial(result)
        run.trials.append(result)
        run.emit(end_event(result))


def _all_ended(record: RunRecord, past: Past) -> list[TrialResult]:
    """Return the results that stand, and those of trials that were cut short and that no driver goes on with."""
    cut = [one for one in record.trials if one.state == "interrupted" and one.trial not in past.ended]
    return [*_ended(record, past), *cut]


def _searchable(found: Reopened, past: Past) -> bool:
    """Return whether the search itself has something left to do, and time to do it."""
    spec = found.experiment.spec
    budget = spec.search.time_budget
    if budget and past.seconds >= budget:
        return False
    undone = any(one.state is None for one in past.trials.values()) or len(past.trials) < spec.search.trials
    return undone or promotes(found_rungs(found.record), spec, past)


def _confirmed(experiment: Experiment, trials: list[TrialResult], record: RunRecord) -> bool:
    """Return whether nothing is left of the experiment's confirmation, nor of one that `mnistlab confirm` asked for."""
    spec, space = experiment.spec, experiment.space
    return work_of(spec, space, trials, record).done and left_of(spec, trials, record) is None


def _ended(record: RunRecord, past: Past) -> list[TrialResult]:
    """Return the results that stand, in the order in which they ended."""
    found = {trial.trial: trial for trial in record.trials}
    return [found[name] for name in past.ended if name in found]


def _go_on(run: Drive, found: Reopened, past: Past, track: Tracking) -> None:
    spec, data = run.experiment.spec, found.data
    with _joined(run, this_machine()) as machine:
        if _searchable(found, past):
            _require_shared(run)
        portion = _portion(run, machine, trials_at_once(spec.search))
        replicates, by = _portion(run, machine).parallel, run.options.executor
        job = _job(run, data, machine, portion, found_rungs(found.record), found.record.run.get("first_looks", 1))
        number = _amended(run, found)
        if past.drivers:
            again = [one.name for one in past.unended] if _searchable(found, past) else []
            ended = Counter[str](trial.state for trial in run.trials)
            if _searchable(found, past):  # else those that waited have been told as ended
                ended += Counter(paused=sum(one.state is None for one in past.waiting))
            run.emit(resumed(found, machine, portion, replicates, again, ended, number, run.options.command, by))
        else:  # it died before it could say what it was going to do
            run.emit(started(run.experiment, data, machine, portion, replicates, run.registry, run.writer.path, by))
        for warning in (*doubts_of_numbers(found.record), *_doubts(run, machine)):
            run.emit(events.Warned(message=warning))
        if _searchable(found, past):
            _say_held_back(run, job, machine)
            run_search(job, run.trials, past)
        job = _for_replicates(run, job, machine)
        if not stopping(run) and not run.given_up:
            go_on(job, run.trials, run.options.command)  # first: it also tests the models that it had left
        if not stopping(run) and not run.given_up:
            confirm(job, run.trials, run.options.command, read_run(run.writer.path))
    _finish_tracking(run, track)


def _amended(run: Drive, found: Reopened) -> int:
    """Write down what is added to the space before anything is tried in it; return the number of the record by now."""
    if not found.added:
        return found.record.number
    return run.writer.write_amended(amended_record(found, run.options.command))


def _search_and_confirm(run: Drive, here: Machine, track: Tracking) -> None:
    spec = run.experiment.spec
    say_preparing(run, f"finding the images of {run.experiment.dataset.record.name}")
    data = find_data(run.experiment, run.options.place)
    with _joined(run, here) as machine:
        _require_shared(run)
        portion = _portion(run, machine, trials_at_once(spec.search))
        run = replace(run, experiment=started_from(run.experiment, data))
        record = run_record(run.experiment, data, machine, portion, run.registry, run.options.command)
        for file in run.registry.selection.files:
            run.writer.write_plugin(file.name, file.source)
        run.writer.write_run({"run": run.writer.path.name, **record})
        replicates, by = _portion(run, machine).parallel, run.options.executor
        run.emit(started(run.experiment, data, machine, portion, replicates, run.registry, run.writer.path, by))
        for warning in (*run.experiment.warnings, *_doubts(run, machine)):
            run.emit(events.Warned(message=warning))
        rungs = rungs_of(spec, run.experiment.space, len(data.division.train))
        job = _job(run, data, machine, portion, rungs, looks_of(spec.search, run.experiment.earlier))
        _say_held_back(run, job, machine)
        run_search(job, run.trials)
        if not stopping(run) and not run.given_up:
            confirm(_for_replicates(run, job, machine), run.trials, run.options.command)
    _finish_tracking(run, track)


@contextmanager
def _joined(run: Drive, here: Machine) -> Generator[Machine]:
    """Have workers: join the cluster that was named, or start a private Ray, and say so, because it takes seconds."""
    address, by = run.options.address, executor(run.options.executor)
    if step := by.preparing(address):
        say_preparing(run, step)
    with by.joined(address, here, run.again) as machine, cut_short(run):
        yield machine


def _portion(run: Drive, machine: Machine, limit: int | None = None) -> Share:
    """Return what each trial gets, and how many run at once: at most `limit`, unless the experiment says how many."""
    return executor(run.options.executor).portion(share(machine, run.experiment.spec.resources, limit))


def _doubts(run: Drive, machine: Machine) -> list[str]:
    """Return in sentences what a user should know of how trials are carried out."""
    cant = executor(run.options.executor).cant
    return [*([cant] if cant else []), *doubts(machine, run.experiment.spec.resources)]


def _require_shared(run: Drive) -> None:
    """Refuse before anything is written down a population whose states could not get from node to node."""
    scheduler = run.experiment.spec.search.scheduler
    if traits_of(scheduler).copies_states:
        require_shared(run.writer.path, scheduler)


def _finish_tracking(run: Drive, track: Tracking) -> None:
    for trouble in track.finish(tick=lambda: stopping(run)):
        run.emit(events.Warned(message=trouble))


def _confirm_more(run: Drive, data: Data, record: RunRecord) -> None:
    with _joined(run, this_machine()) as machine:
        job = _job(run, data, machine, _portion(run, machine))
        for warning in (*doubts_of_numbers(record), *_doubts(run, machine)):
            run.emit(events.Warned(message=warning))
        confirm(job, run.trials, run.options.command, record)


def _job(
    run: Drive, data: Data, machine: Machine, portion: Share, rungs: tuple[Rung, ...] = (), looks: int = 1
) -> Search:
    spec, larger, by = run.experiment.spec, room(machine, portion), executor(run.options.executor)
    return Search(
        executor=by,
        spec=spec,
        space=run.experiment.space,
        shared=shared_of(
            data,
            data.place,
            portion,
            _needed(run, data),
            spec.search,
            more_room=larger is not None,
            more_nodes=len(machine.nodes) > 1,
        ),
        share=portion,
        room=larger,
        registry=run.registry,
        store=run.writer,
        emit=run.emit,
        stopping=lambda: stopping(run),
        reason=run.requests.reason,
        again=run.again,
        tick=ticker(run),
        looks=looks,
        earlier=run.experiment.earlier,
        rungs=rungs,
        split=_splits(spec, data),
        verdicts=run.verdicts,
        nodes=Nodes(
            partial(by.alive, portion.cpus, portion.gpus),
            say=lambda text: run.emit(events.Warned(message=text)),
            again=run.again,
            roomy=partial(by.alive, larger.cpus, larger.gpus) if larger else None,
        ),
    )


def _splits(spec: ExperimentSpec, data: Data) -> Callable[[int], Division | None]:
    """Return what gives each replicate's split by its number: None where all have that of the run."""
    if spec.confirm.splits == "same":
        return lambda _: None
    return cache(partial(fresh_division, spec.data, spec.seed, data))


def _say_held_back(run: Drive, job: Search, machine: Machine) -> None:
    fit = _portion(run, machine).parallel
    note = held_back(job.spec.search, fit, job.share.parallel)
    if note:
        job.emit(events.Warned(message=note))


def _for_replicates(run: Drive, job: Search, machine: Machine) -> Search:
    """Return the search with as many workers as fit: no replicate waits to learn from another one."""
    whole = _portion(run, machine)
    larger = room(machine, whole)
    return replace(
        job,
        share=whole,
        room=larger,
        shared=replace(job.shared, gpus=whole.gpus, more_room=larger is not None),
    )


def _needed(run: Drive, data: Data) -> Selection:
    """Return the plugins that trials can name: a worker that imported all others too would start seconds later."""
    sources = [branch.source.get("distribution", "") for branch in run.experiment.space.branches()]
    return run.registry.selection.only([*sources, data.choice.offer.distribution])
