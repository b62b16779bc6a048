"""What a view knows of a run: the fold of its events so far.

`ViewState` is frozen and `advance` pure, so a refresh thread may draw one state while the driver makes the next, and
a recorded run can be replayed. Memory does not grow with the number of trials: only running trials, counts, the
leading labels, the last warnings and the confirmation's table are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Literal

from mnistlab import events as ev
from mnistlab.results import higher_is_better

HEARTBEAT = 60.0  # seconds of event time between two lines that only say that the run is alive
WARNINGS = 3
LEADERS = 32

Phase = Literal["starting", "search", "confirmation", "test", "stopping", "over"]


@dataclass(frozen=True)
class RunningTrial:
    """A trial at work; `started` is in seconds of the run, `value` the run's metric at its last epoch."""

    trial: str
    label: str
    started: float
    epoch: int = 0
    epochs: int = 0
    value: float | None = None
    images_per_second: float | None = None


@dataclass(frozen=True)
class Scored:
    """A trial that has used its full budget, with the run's metric."""

    trial: str
    label: str
    value: float


@dataclass(frozen=True)
class Failure:
    """The newest failure, in the plugin's own words; `log` is relative to the run directory."""

    who: str
    cause: str
    message: str
    log: str = ""


@dataclass(frozen=True, kw_only=True)
class ViewState:
    """Everything a view may show. Times are seconds of the run (`Stamped.t`)."""

    phase: Phase = "starting"
    start: ev.RunStarted | None = None
    end: ev.RunFinished | None = None
    t: float = 0.0
    running: Mapping[str, RunningTrial] = field(default_factory=dict[str, RunningTrial])
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    best: Scored | None = None
    leaders: tuple[Scored, ...] = ()
    failures: Mapping[str, int] = field(default_factory=dict[str, int])
    last_failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    warned: int = 0
    confirming: tuple[str, ...] = ()
    seeds: int = 0
    replicates: Mapping[tuple[str, int], float | None] = field(default_factory=dict[tuple[str, int], float | None])
    openings: int = 0
    interruption: str = ""
    heartbeat_seq: int = 0  # the event that was the last heartbeat
    heartbeat_t: float = 0.0

    @property
    def metric(self) -> str:
        """Return the metric that ranks."""
        return self.start.metric if self.start else "val_accuracy"

    @property
    def total(self) -> int:
        """Return how many trials the search may start at most."""
        return self.start.trials if self.start else 0

    @property
    def finished(self) -> int:
        """Return how many trials have ended, in whatever way."""
        return self.complete + self.pruned + self.failed

    def label(self, trial: str) -> str:
        """Return the label of a running or leading trial, or "" where it is forgotten."""
        if trial in self.running:
            return self.running[trial].label
        return next((scored.label for scored in self.leaders if scored.trial == trial), "")


def advance(state: ViewState, stamped: ev.Stamped) -> ViewState:
    """Return the state after an event. Events of unknown types, and of trials that never started, change nothing."""
    after = _fold(stamped.event, replace(state, t=stamped.t))
    if isinstance(stamped.event, ev.TrialEpoch) and stamped.t - state.heartbeat_t >= HEARTBEAT:
        return replace(after, heartbeat_seq=stamped.seq, heartbeat_t=stamped.t)
    return after


@singledispatch
def _fold(_event: ev.Event, state: ViewState) -> ViewState:
    return state


@_fold.register
def _run_started(event: ev.RunStarted, state: ViewState) -> ViewState:
    return replace(state, phase="search", start=event, end=None, running={}, heartbeat_t=state.t, interruption="")


@_fold.register
def _trial_started(event: ev.TrialStarted, state: ViewState) -> ViewState:
    epochs = state.start.epochs if state.start else 0
    trial = RunningTrial(event.trial, event.label, started=state.t, epochs=epochs)
    return replace(state, running={**state.running, event.trial: trial})


@_fold.register
def _trial_epoch(event: ev.TrialEpoch, state: ViewState) -> ViewState:
    if event.trial not in state.running:
        return state
    trial = replace(
        state.running[event.trial],
        epoch=event.epoch,
        epochs=event.epochs,
        value=event.metrics.get(state.metric),
        images_per_second=event.metrics.get("images_per_second"),
    )
    return replace(state, running={**state.running, event.trial: trial})


@_fold.register
def _trial_finished(event: ev.TrialFinished, state: ViewState) -> ViewState:
    leaders = state.leaders
    value = event.metrics.get(state.metric)
    if value is not None:
        sign = -1 if higher_is_better(state.metric) else 1
        scored = Scored(event.trial, state.label(event.trial), value)
        leaders = tuple(sorted((*leaders, scored), key=lambda s: sign * s.value)[:LEADERS])
    return replace(state, complete=state.complete + 1, leaders=leaders, running=_without(state, event.trial))


@_fold.register
def _trial_pruned(event: ev.TrialPruned, state: ViewState) -> ViewState:
    return replace(state, pruned=state.pruned + 1, running=_without(state, event.trial))


@_fold.register
def _trial_failed(event: ev.TrialFailed, state: ViewState) -> ViewState:
    failure = Failure(f"trial {event.trial}", event.cause, event.message, event.log)
    state = replace(state, failed=state.failed + 1, running=_without(state, event.trial))
    return _with_failure(state, failure)


@_fold.register
def _best_changed(event: ev.BestChanged, state: ViewState) -> ViewState:
    return replace(state, best=Scored(event.trial, event.label, event.value))


@_fold.register
def _confirmation_started(event: ev.ConfirmationStarted, state: ViewState) -> ViewState:
    return replace(state, phase="confirmation", confirming=event.trials, seeds=event.seeds, replicates={})


@_fold.register
def _replicate_finished(event: ev.ReplicateFinished, state: ViewState) -> ViewState:
    value = event.metrics.get(state.metric)
    return replace(state, replicates={**state.replicates, (event.trial, event.replicate): value})


@_fold.register
def _replicate_failed(event: ev.ReplicateFailed, state: ViewState) -> ViewState:
    failure = Failure(f"trial {event.trial} replicate {event.replicate}", event.cause, event.message)
    state = replace(state, replicates={**state.replicates, (event.trial, event.replicate): None})
    return _with_failure(state, failure)


@_fold.register
def _test_opened(event: ev.TestOpened, state: ViewState) -> ViewState:
    return replace(state, phase="test", openings=event.count)


@_fold.register
def _warned(event: ev.Warned, state: ViewState) -> ViewState:
    return replace(state, warned=state.warned + 1, warnings=(*state.warnings, event.message)[-WARNINGS:])


@_fold.register
def _run_interrupted(event: ev.RunInterrupted, state: ViewState) -> ViewState:
    return replace(state, phase="stopping", interruption=event.reason)


@_fold.register
def _run_finished(event: ev.RunFinished, state: ViewState) -> ViewState:
    return replace(state, phase="over", end=event, running={})


def _without(state: ViewState, trial: str) -> Mapping[str, RunningTrial]:
    return {name: running for name, running in state.running.items() if name != trial}


def _with_failure(state: ViewState, failure: Failure) -> ViewState:
    causes = {**state.failures, failure.cause: state.failures.get(failure.cause, 0) + 1}
    return replace(state, failures=causes, last_failure=failure)
