"""One run from end to end: data, run directory, cluster, search, confirmation, and how it ended."""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from mnistlab import events
from mnistlab.api import DataPlace
from mnistlab.confirm import confirm, work_of
from mnistlab.data import images_digest
from mnistlab.dataset import Data, find_data
from mnistlab.discovery import Selection
from mnistlab.errors import ExitCode, MnistlabError, RunDirectoryError
from mnistlab.events import Stamped
from mnistlab.experiment import Experiment
from mnistlab.record import amended_record, resumed, run_record, started
from mnistlab.registry import Registry
from mnistlab.reopen import Reopened, differences
from mnistlab.results import RunRecord, TrialResult
from mnistlab.seal import sealed
from mnistlab.signals import Requests, signals_as
from mnistlab.spec import ExperimentSpec, SearchSpec
from mnistlab.store import RunWriter, create_run, read_events, read_run
from mnistlab.tuning.cluster import cluster
from mnistlab.tuning.driver import run_search
from mnistlab.tuning.job import Search
from mnistlab.tuning.machine import Machine, Share, room, share, this_machine
from mnistlab.tuning.outcome import FIRST_TRIALS, TOO_MANY, common_failure
from mnistlab.tuning.past import Past, past_of
from mnistlab.tuning.pulse import check_pulse
from mnistlab.tuning.trackers import Name, Tracking, tracking
from mnistlab.tuning.worker import Shared
from mnistlab.usage import Usage

View = Callable[[Path], AbstractContextManager[Callable[[Stamped], None]]]
"""What shows a run, given its directory: a context that yields what is to be called with every event."""


@dataclass(frozen=True)
class Options:
    """What the command line adds to an experiment."""

    runs: Path
    place: DataPlace
    address: str | None
    command: str
    log: tuple[Name, ...] = ()  # the trackers to write to as well


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
    )


# --- the run ------------------------------------------------------------------------------------------------------


USAGE_SECONDS = 5.0  # between two looks at the machine
# From the first of these on there is something to be brought to an end; before, a run that is asked to stop just goes.
BEGINNINGS = (events.TrialStarted, events.ReplicateStarted, events.RefitStarted, events.TestOpened)


def search(experiment: Experiment, options: Options, registry: Registry, view: View) -> Finished:
    """Run a whole search and leave its run directory.

    Raises:
        MnistlabError: if it can't begin (data, plugins, resources), or can't write down what it does.
    """
    here = this_machine()
    if options.address is None:
        share(here, experiment.spec.resources)  # refuse what can't fit before anything is started
    first = not options.runs.exists()
    path = create_run(options.runs, experiment.spec.name, datetime.now().astimezone())
    writer, requests = RunWriter(path), Requests()
    try:
        tracked = tracking(options.log, path, experiment.spec.name)
        with signals_as(requests), view(path) as handle, sealed(), tracked as track:
            emit = _emitter(writer, requests, handle, track)
            run = _Run(experiment, options, registry, writer, requests, emit)
            return Finished(path, _to_the_end(run, lambda: _search_and_confirm(run, here, track)))
    finally:
        writer.close()
        if not (path / "run.json").exists():  # it never began: leave nothing behind
            shutil.rmtree(path)
            if first:
                with suppress(OSError):  # another search may be using the folder by now
                    options.runs.rmdir()


def _emitter(writer: RunWriter, requests: Requests, handle: Callable[[Stamped], None], track: Tracking) -> events.Emit:
    """Return what takes an event: to the disk first, then to whoever looks on."""

    def emit(event: events.Event) -> None:
        requests.begun = requests.begun or isinstance(event, BEGINNINGS)
        stamped = writer.append(event)
        handle(stamped)
        for trouble in track(stamped):
            handle(writer.append(events.Warned(message=trouble)))

    return emit


def add_confirmation(found: Reopened, options: Options, view: View) -> Finished | None:
    """Confirm the best plans of a finished run as its experiment now says, where some of that is not done yet.

    Returns:
        How that ended, or None where there is nothing to do; then nothing is written.

    Raises:
        MnistlabError: if another process drives the run, or its files can't be written.
    """
    writer, requests = RunWriter(found.path), Requests()
    try:
        record = read_run(found.path)  # again: only now is nobody else writing
        if work_of(found.experiment.spec, record.trials, record).done:
            return None
        with signals_as(requests), view(found.path) as handle, sealed(), tracking((), found.path, "") as track:
            emit = _emitter(writer, requests, handle, track)
            run = _Run(
                found.experiment, options, found.registry, writer, requests, emit, list(record.trials), searching=False
            )
            return Finished(found.path, _to_the_end(run, lambda: _confirm_more(run, found.data, record)))
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
    writer, requests = RunWriter(found.path), Requests()
    try:
        record = read_run(found.path)  # again: only now is nobody else writing
        if record.number != found.record.number:
            raise RunDirectoryError(f"{found.path} was amended meanwhile, by another process: start again")
        past, spec = past_of(read_events(found.path), again=again), found.experiment.spec
        idle = not _searchable(spec, past) and work_of(spec, _ended(record, past), record).done
        if idle and past.over:
            return None
        plans = {trial.trial: trial.plan for trial in record.trials}
        tracked = tracking(options.log, found.path, spec.name, plans)
        with signals_as(requests), view(found.path) as handle, sealed(), tracked as track:
            emit = _emitter(writer, requests, handle, track)
            ended = _all_ended(record, past) if idle else _ended(record, past)
            run = _Run(found.experiment, options, found.registry, writer, requests, emit, ended)
            work = (lambda: None) if idle else (lambda: _go_on(run, found, past, track))
            return Finished(found.path, _to_the_end(run, work), end_only=idle)
    finally:
        writer.close()


def _all_ended(record: RunRecord, past: Past) -> list[TrialResult]:
    """Return the results that stand, and those of trials that were cut short and that no driver goes on with."""
    cut = [one for one in record.trials if one.state == "interrupted" and one.trial not in past.ended]
    return [*_ended(record, past), *cut]


def _searchable(spec: ExperimentSpec, past: Past) -> bool:
    """Return whether the search itself has something left to do, and time to do it."""
    budget = spec.search.time_budget
    if budget and past.seconds >= budget:
        return False
    return bool(past.unended) or len(past.trials) < spec.search.trials


def _ended(record: RunRecord, past: Past) -> list[TrialResult]:
    """Return the results that stand, in the order in which they ended."""
    found = {trial.trial: trial for trial in record.trials}
    return [found[name] for name in past.ended if name in found]


def _go_on(run: _Run, found: Reopened, past: Past, track: Tracking) -> None:
    spec, data = run.experiment.spec, found.data
    _say_preparing(run, f"joining the Ray cluster at {run.options.address}" if run.options.address else "starting Ray")
    with cluster(run.options.address, this_machine(), run.again) as machine, _cut_short(run):
        portion = share(machine, spec.resources)
        job = _job(run, data, machine, portion)
        record = _amended(run, found)
        if past.drivers:
            ended = Counter(trial.state for trial in run.trials)
            run.emit(resumed(found, machine, portion, past, ended, record.number, run.options.command))
        else:  # it died before it could say what it was going to do
            run.emit(started(run.experiment, data, machine, portion, run.registry, run.writer.path))
        for warning in differences(found.record):
            run.emit(events.Warned(message=warning))
        if _searchable(spec, past):
            run_search(job, run.trials, past)
        if not _stopping(run) and not common_failure(run.trials):
            confirm(job, run.trials, run.options.command, record)
    _finish_tracking(run, track)


def _amended(run: _Run, found: Reopened) -> RunRecord:
    """Write down what is added to the space before anything is tried in it; return what the run holds by now."""
    if found.added:
        run.writer.write_amended(amended_record(found, run.options.command))
    return read_run(run.writer.path)


@dataclass(frozen=True)
class _Run:
    """What a run is made of, from its first event to its last."""

    experiment: Experiment
    options: Options
    registry: Registry
    writer: RunWriter
    requests: Requests
    emit: events.Emit
    trials: list[TrialResult] = field(default_factory=list[TrialResult])
    searching: bool = True

    @property
    def again(self) -> str:
        """Return the command that goes on with the run, should it be cut short."""
        return f"mnistlab resume {self.writer.path}" if self.searching else self.options.command


def _to_the_end(run: _Run, work: Callable[[], None]) -> events.RunFinished:
    """Do the work; however that ends, the last event says how."""
    try:
        work()
    except KeyboardInterrupt:
        run.requests.signal = run.requests.signal or signal.SIGINT
    except Exception as error:
        code = error.exit_code if isinstance(error, MnistlabError) else ExitCode.INTERNAL
        with suppress(MnistlabError):  # the disk may be what failed
            _say_finished(run, f"broken off: {type(error).__name__}", code)
        raise
    finally:
        run.requests.over = True
    outcome, code = _ending(run)
    return _say_finished(run, outcome, code)


def _search_and_confirm(run: _Run, here: Machine, track: Tracking) -> None:
    spec = run.experiment.spec
    _say_preparing(run, f"finding the images of {run.experiment.dataset.record.name}")
    data = find_data(run.experiment, run.options.place)
    _say_preparing(run, f"joining the Ray cluster at {run.options.address}" if run.options.address else "starting Ray")
    with cluster(run.options.address, here, run.again) as machine, _cut_short(run):
        portion = share(machine, spec.resources)
        record = run_record(run.experiment, data, machine, portion, run.registry, run.options.command)
        for file in run.registry.selection.files:
            run.writer.write_plugin(file.name, file.source)
        run.writer.write_run({"run": run.writer.path.name, **record})
        run.emit(started(run.experiment, data, machine, portion, run.registry, run.writer.path))
        for warning in run.experiment.warnings:
            run.emit(events.Warned(message=warning))
        job = _job(run, data, machine, portion)
        run_search(job, run.trials)
        if not _stopping(run) and not common_failure(run.trials):
            confirm(job, run.trials, run.options.command)
    _finish_tracking(run, track)


def _finish_tracking(run: _Run, track: Tracking) -> None:
    for trouble in track.finish(tick=lambda: _stopping(run)):
        run.emit(events.Warned(message=trouble))


def _confirm_more(run: _Run, data: Data, record: RunRecord) -> None:
    _say_preparing(run, f"joining the Ray cluster at {run.options.address}" if run.options.address else "starting Ray")
    with cluster(run.options.address, this_machine(), run.again) as machine, _cut_short(run):
        job = _job(run, data, machine, share(machine, run.experiment.spec.resources))
        for warning in differences(record):
            run.emit(events.Warned(message=warning))
        confirm(job, run.trials, run.options.command, record)


def _job(run: _Run, data: Data, machine: Machine, portion: Share) -> Search:
    spec, larger = run.experiment.spec, room(machine, portion)
    return Search(
        spec=spec,
        space=run.experiment.space,
        shared=shared_of(
            data, run.options.place, portion, _needed(run, data), spec.search, more_room=larger is not None
        ),
        share=portion,
        room=larger,
        registry=run.registry,
        store=run.writer,
        emit=run.emit,
        stopping=lambda: _stopping(run),
        reason=run.requests.reason,
        again=run.again,
        tick=_ticker(run),
    )


def _say_preparing(run: _Run, step: str) -> None:
    run.emit(events.RunPreparing(run=run.writer.path.name, step=step))


def _needed(run: _Run, data: Data) -> Selection:
    """Return the plugins that trials can name: a worker that imported all others too would start seconds later."""
    sources = [branch.source.get("distribution", "") for branch in run.experiment.space.branches()]
    return run.registry.selection.only([*sources, data.choice.offer.distribution])


def _stopping(run: _Run) -> bool:
    """Return whether the run was asked to stop; say so the first time, because an epoch may take a while to end."""
    asked = run.requests()
    if asked and not run.requests.told:
        run.requests.told = True
        run.emit(events.StopAsked(signal=run.requests.signal.name if run.requests.signal else ""))
    return asked


@contextmanager
def _cut_short(run: _Run) -> Generator[None]:
    """Say at once that the user's second signal was heard: Ray, which is shut down next, may take seconds."""
    try:
        yield
    except KeyboardInterrupt:
        asked = run.requests.signal or signal.SIGINT
        run.emit(events.StopAsked(signal=asked.name, at_once=True))
        raise


def _ticker(run: _Run) -> Callable[[], None]:
    """Return what is called at each turn of the driver's loops: it answers signals and watches the machine."""
    usage, due = Usage(run.writer.path), 0.0

    def tick() -> None:
        nonlocal due
        check_pulse()
        run.requests.claim()  # Tune takes SIGUSR1 for itself, and has no setting against that
        _stopping(run)
        if run.requests.status:
            run.requests.status = False
            run.emit(events.StatusAsked())
        if time.monotonic() >= due:
            run.emit(usage.now())
            due = time.monotonic() + USAGE_SECONDS

    return tick


def _ending(run: _Run) -> tuple[str, ExitCode]:
    """Return in words how a run ended that was not broken off, and its exit code."""
    if run.requests.signal is not None:
        run.emit(events.RunInterrupted(reason=run.requests.signal.name))
        by_key = run.requests.signal == signal.SIGINT
        return "interrupted", ExitCode.INTERRUPTED if by_key else ExitCode.TERMINATED
    if run.searching and common_failure(run.trials):
        cause = common_failure(run.trials)
        return f"stopped: cause '{cause}' in {TOO_MANY} of the first {FIRST_TRIALS} trials", ExitCode.TOO_MANY_FAILURES
    if not any(trial.state == "complete" for trial in run.trials):
        return "no trial succeeded", ExitCode.NO_TRIAL_SUCCEEDED
    return "done", ExitCode.DONE


def _say_finished(run: _Run, outcome: str, code: ExitCode) -> events.RunFinished:
    counts = dict(Counter(trial.state for trial in run.trials))
    end = events.RunFinished(outcome=outcome, exit_code=int(code), counts=counts, seconds=run.writer.seconds)
    run.emit(end)
    return end
