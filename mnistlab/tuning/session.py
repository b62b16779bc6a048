"""What drives a run: what it is made of, how it hears signals and watches the machine, and how its end is written."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from mnistlab import events
from mnistlab.api import DataPlace
from mnistlab.errors import ExitCode, MnistlabError
from mnistlab.events import Stamped
from mnistlab.experiment.loader import Experiment
from mnistlab.plugins.registry import Registry
from mnistlab.store import RunWriter
from mnistlab.store.results import TrialResult
from mnistlab.tuning.outcome import GivenUp, Outcome, given_up
from mnistlab.tuning.ray.heartbeat import check_pulse
from mnistlab.tuning.trackers import Name, Tracking
from mnistlab.tuning.usage import Usage
from mnistlab.util.signals import Requests
from mnistlab.util.text import counted, resume_command, seconds_text, unbroken

View = Callable[[Path], AbstractContextManager[Callable[[Stamped], None]]]
"""What shows a run, given its directory: a context that yields what is to be called with every event."""


@dataclass(frozen=True)
class Options:
    """What the command line adds to an experiment."""

    runs: Path
    place: DataPlace
    address: str | None
    command: str
    executor: str = "ray"  # by whose name trials are carried out (see `tuning.executors`)
    log: tuple[Name, ...] = ()  # the trackers to write to as well


USAGE_SECONDS = 5.0  # between two looks at the machine
# From the first of these on there is something to be brought to an end; before, a run that is asked to stop just goes.
BEGINNINGS = (events.TrialStarted, events.ReplicateStarted, events.RefitStarted, events.TestOpened)


@dataclass(frozen=True)
class Drive:
    """What a run is made of, from its first event to its last."""

    experiment: Experiment
    options: Options
    registry: Registry
    writer: RunWriter
    requests: Requests
    emit: events.Emit
    trials: list[TrialResult] = field(default_factory=list[TrialResult])
    verdicts: list[Outcome] = field(default_factory=list[Outcome])  # of trials, as `common_failure` wants them
    searching: bool = True

    @property
    def given_up(self) -> GivenUp | None:
        """Return why its search is given up, or None."""
        return given_up(self.experiment.spec, self.verdicts) if self.searching else None

    @property
    def again(self) -> str:
        """Return the command that goes on with the run, should it be cut short."""
        return resume_command(self.writer.path, self.options.executor) if self.searching else self.options.command


def emitter(writer: RunWriter, requests: Requests, handle: Callable[[Stamped], None], track: Tracking) -> events.Emit:
    """Return what takes an event: to the disk first, then to whoever looks on."""

    def emit(event: events.Event) -> None:
        requests.begun = requests.begun or isinstance(event, BEGINNINGS)
        stamped = writer.append(event)
        handle(stamped)
        for trouble in track(stamped):
            handle(writer.append(events.Warned(message=trouble)))

    return emit


def say_preparing(run: Drive, step: str) -> None:
    """Say what takes seconds before anything can begin."""
    run.emit(events.RunPreparing(run=run.writer.path.name, step=step))


def to_the_end(run: Drive, work: Callable[[], None]) -> events.RunFinished:
    """Do the work; however that ends, the last event says how."""
    try:
        work()
    except KeyboardInterrupt:
        run.requests.signal = run.requests.signal or signal.SIGINT
    except Exception as error:
        run.requests.over = True  # before anything is said: a key pressed now must not hide the error
        code = error.exit_code if isinstance(error, MnistlabError) else ExitCode.INTERNAL
        with suppress(MnistlabError):  # the disk may be what failed
            _say_finished(run, f"{events.BROKEN_OFF}: {_in_a_line(error)}", code)
        raise
    finally:
        run.requests.over = True
    outcome, code = _ending(run)
    return _say_finished(run, outcome, code)


def _in_a_line(error: Exception) -> str:
    """Return what went wrong as the command line says it, or of a fault of ours its kind and words, on one line."""
    if isinstance(error, MnistlabError):
        return unbroken(error.reason)[:500]
    return f"internal error, {type(error).__name__}: {unbroken(str(error))[:500]}"


def stopping(run: Drive) -> bool:
    """Return whether the run was asked to stop; say so the first time, because an epoch may take a while to end."""
    asked = run.requests()
    if asked and not run.requests.told:
        run.requests.told = True
        run.emit(events.StopAsked(signal=run.requests.signal.name if run.requests.signal else ""))
    return asked


@contextmanager
def cut_short(run: Drive) -> Generator[None]:
    """Say at once that the user's second signal was heard: Ray, which is shut down next, may take seconds."""
    try:
        yield
    except KeyboardInterrupt:
        asked = run.requests.signal or signal.SIGINT
        run.emit(events.StopAsked(signal=asked.name, at_once=True))
        raise


def ticker(run: Drive) -> Callable[[], None]:
    """Return what is called at each turn of the driver's loops: it answers signals and watches the machine."""
    usage, due = Usage(run.writer.path), 0.0

    def tick() -> None:
        nonlocal due
        check_pulse()
        run.writer.flush_what_waits()
        run.requests.claim()  # Tune takes SIGUSR1 for itself, and has no setting against that
        stopping(run)
        if run.requests.status:
            run.requests.status = False
            run.emit(events.StatusAsked())
        if time.monotonic() >= due:
            run.emit(usage.now())
            due = time.monotonic() + USAGE_SECONDS

    return tick


def _ending(run: Drive) -> tuple[str, ExitCode]:
    """Return in words how a run ended that was not broken off, and its exit code."""
    if run.requests.signal is not None:
        run.emit(events.RunInterrupted(reason=run.requests.signal.name))
        by_key = run.requests.signal == signal.SIGINT
        return "interrupted", ExitCode.INTERRUPTED if by_key else ExitCode.TERMINATED
    if why := run.given_up:
        return f"stopped: {why}", ExitCode.TOO_MANY_FAILURES
    if not any(trial.state == "complete" for trial in run.trials):
        search, begun = run.experiment.spec.search, run.requests.begun
        budget = search.time_budget if run.searching and run.writer.seconds >= (search.time_budget or 0) else None
        why = why_none(run.trials, search.trials, budget or 0.0, begun=begun)
        return f"no trial succeeded: {why}", ExitCode.NO_TRIAL_SUCCEEDED
    return "done", ExitCode.DONE


def why_none(trials: Sequence[TrialResult], wanted: int, spent: float, *, begun: bool) -> str:
    """Return in words why none of a search's trials has used its full budget.

    `wanted` is how many trials there were to be, `spent` the time budget in seconds if that is spent, else 0. `begun`
    says whether any trial was given to a worker.
    """
    states = Counter(trial.state for trial in trials)
    said: list[str] = []
    if spent and sum(states.values()) - states["interrupted"] < wanted:
        when = "before a trial could use its full budget" if begun else "while the workers were starting"
        said.append(f"the time budget of {seconds_text(spent)} ran out {when}")
    causes = Counter(trial.cause or "unknown" for trial in trials if trial.state == "failed")
    named = ", ".join(f"{cause} {count}" for cause, count in sorted(causes.items()))
    said += [f"{counted(states['failed'], 'trial')} failed ({named})"] * bool(causes)
    said += [f"{counted(states['pruned'], 'trial')} pruned"] * bool(states["pruned"])
    said += [f"{counted(states['interrupted'], 'trial')} interrupted"] * (bool(states["interrupted"]) and not said)
    return "; ".join(said) or "no trial was started"


def _say_finished(run: Drive, outcome: str, code: ExitCode) -> events.RunFinished:
    counts = dict(Counter(trial.state for trial in run.trials))
    end = events.RunFinished(outcome=outcome, exit_code=int(code), counts=counts, seconds=run.writer.seconds)
    run.emit(end)
    return end
