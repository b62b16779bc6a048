"""What a view knows of a run: the fold of its events so far.

`ViewState` is frozen and `advance` pure, so a refresh thread may draw one state while the driver makes the next, and
a recorded run can be replayed. Memory does not grow with the number of trials: only running trials, counts, the
leading labels, a sample of durations, the last warnings and the confirmations' trainings are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import singledispatch
from typing import Any, Literal

from mnistlab import events as ev
from mnistlab.console.trainings import (
    Duration,
    Ended,
    Failure,
    Replicate,
    RunningTrial,
    Scored,
    epochs_of,
    files_of,
)
from mnistlab.store.ends import TrialEnd
from mnistlab.store.layout import LOG, in_trial
from mnistlab.store.metric import Metric

__all__ = ["Duration", "Ended", "Failure", "Replicate", "RunningTrial", "Scored", "ViewState", "advance"]

HEARTBEAT = 50.0  # seconds of event time without a line; events come every few seconds, so none is silent for 60
WARNINGS = 3
LEADERS = 32
CURVE = 24  # values kept of a learning curve
RECENT = 12  # trials that ended last
DURATIONS = 256  # ended trials whose duration is kept, the newest ones

Phase = Literal["starting", "search", "confirmation", "test", "stopping", "over"]

# What happens too often to be worth a line each.
FREQUENT = (ev.TrialEpoch, ev.ReplicateStarted, ev.ReplicateEpoch, ev.RungDecided, ev.Resources)


Replicates = Mapping[tuple[str, int], Replicate]
Rungs = Mapping[tuple[int, float], ev.RungDecided]


@dataclass(frozen=True, kw_only=True)
class ViewState:
    """Everything a view may show. Times are seconds of the run (`Stamped.t`)."""

    phase: Phase = "starting"
    driven: bool = True  # False: the process that drove the run has gone without writing its end
    step: str = ""  # what is being prepared before the search begins
    start: ev.RunStarted | None = None
    amended: tuple[datetime, ...] = ()  # when the search went on in a larger space
    end: ev.RunFinished | None = None
    began: float = 0.0  # when the search proper began
    warm_up: float = 0.0  # seconds that the first worker took to start
    t: float = 0.0
    searched: float = 0.0  # when a trial has ended last
    running: Mapping[str, RunningTrial] = field(default_factory=dict[str, RunningTrial])
    complete: int = 0
    pruned: int = 0
    paused: int = 0  # wait at a rung, and may be promoted
    interrupted: int = 0
    failed: int = 0
    best: Scored | None = None
    best_curve: tuple[float, ...] = ()  # each value that was the best when it came
    leaders: tuple[Scored, ...] = ()
    durations: tuple[Duration, ...] = ()
    recent: tuple[Ended, ...] = ()
    rungs: Rungs = field(default_factory=dict[tuple[int, float], ev.RungDecided])
    failures: Mapping[str, int] = field(default_factory=dict[str, int])
    file_failures: Mapping[str, int] = field(default_factory=dict[str, int])  # of cause `plugin`, by `--plugin` file
    pace: float = 0.0  # seconds of the slowest epoch of a trial
    last_failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    warned: int = 0
    confirming: tuple[str, ...] = ()
    seeds: int = 0
    baseline: str = ""  # the one of these that has the plan of all defaults
    outdated: bool = False  # whether the search has gone on since that confirmation: other plans may be the best by now
    replicates: Replicates = field(default_factory=dict[tuple[str, int], Replicate])
    dropped: tuple[str, ...] = ()  # plans that get no more seeds
    ended: Replicates = field(default_factory=dict[tuple[str, int], Replicate])  # those of all confirmations
    left: Mapping[str, int] = field(default_factory=dict[str, int])  # who left a race, and over how many seeds it was
    refit: str = ""  # the trial that is trained once more, on training and validation images
    refitted: bool = False  # whether that has ended
    openings: int = 0
    ensemble: ev.EnsembleEvaluated | None = None
    resources: ev.Resources | None = None
    stop_asked: str = ""  # the signal that asked
    at_once: bool = False  # whether what runs is cut short
    interruption: str = ""
    heartbeat_seq: int = 0  # the event that was the last heartbeat
    said_t: float = 0.0  # when a line was last due

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
        """Return how many trials have ended for good: one that was interrupted is gone on with."""
        return self.complete + self.pruned + self.failed

    @property
    def queued(self) -> int:
        """Return how many trials may still be started."""
        return max(0, self.total - self.finished - self.paused - self.interrupted - len(self.running))

    @property
    def confirmable(self) -> int:
        """Return how many plans will be confirmed once the search is over, if enough of its trials get that far."""
        if self.start is None or not self.start.confirm_top:
            return 0
        best = min(self.start.confirm_top, self.complete + len(self.running) + self.queued)
        return best + bool(best and self.start.confirm_baseline)

    @property
    def waiting(self) -> int:
        """Return how many trials have lost their worker and wait for another one."""
        return sum(one.waiting for one in self.running.values())

    @property
    def confirms(self) -> bool:
        """Return whether there is a confirmation to be shown: an outdated one is, once the run is over."""
        return bool(self.confirming) and (not self.outdated or self.phase == "over")

    @property
    def replicated(self) -> int:
        """Return how many trainings of the confirmation that is shown have ended."""
        return sum(one.state != "running" for one in self.replicates.values()) if self.confirms else 0

    @property
    def trainings(self) -> int:
        """Return how many trainings the confirmation comes to, without those that dropped plans are spared."""
        of_dropped = sum(trial in self.dropped for trial, _ in self.replicates)
        return (len(self.confirming) - len(self.dropped)) * self.seeds + of_dropped

    def label(self, trial: str) -> str:
        """Return the label of a running or leading trial, or "" where it is forgotten."""
        if trial in self.running:
            return self.running[trial].label
        known = next((scored.label for scored in self.leaders if scored.trial == trial), "")
        return f"(defaults) {known}".strip() if trial and trial == self.baseline else known


_NOBODY_ASKED: dict[str, Any] = {"stop_asked": "", "at_once": False, "interruption": ""}


def advance(state: ViewState, stamped: ev.Stamped) -> ViewState:
    """Return the state after an event. Events of unknown types, and of trials that never started, change nothing."""
    after = _fold(stamped.event, replace(state, t=stamped.t))
    if isinstance(stamped.event, ev.RunResumed) and stamped.event.amended:
        after = replace(after, amended=(*after.amended, stamped.time))
    if not isinstance(stamped.event, FREQUENT):
        return replace(after, said_t=stamped.t)
    if stamped.t - state.said_t >= HEARTBEAT:
        return replace(after, heartbeat_seq=stamped.seq, said_t=stamped.t)
    return after


@singledispatch
def _fold(_event: ev.Event, state: ViewState) -> ViewState:
    return state


@_fold.register
def _run_preparing(event: ev.RunPreparing, state: ViewState) -> ViewState:
    if state.start:  # a run that was over, or whose driver has died, is gone on with: nothing of it runs
        state = replace(state, phase="starting", end=None, running={}, replicates=_ended_of(state), **_NOBODY_ASKED)
    return replace(state, step=event.step)


@_fold.register
def _run_started(event: ev.RunStarted, state: ViewState) -> ViewState:
    return replace(state, phase="search", start=event, end=None, began=state.t, running={}, interruption="")


@_fold.register
def _run_resumed(event: ev.RunResumed, state: ViewState) -> ViewState:
    """Go on from the counts of what stays as it ended; what was running is started again.

    Warnings, and the words of the last failure, were of the driver before.
    """
    about: dict[str, Any] = {"trials": event.trials, "parallel": event.parallel, "devices": event.devices}
    about |= {"parallel_replicates": event.parallel_replicates, "executor": event.executor}
    about |= {"config": event.config} if event.config else {}  # streams of earlier versions tell neither
    about |= {"plugins": event.plugins} if event.plugins else {}
    about |= {"proposals": event.proposals, "trainings": event.trainings} if event.proposals else {}
    start = state.start and replace(state.start, **about, time_budget=event.time_budget)
    counts = {name: event.counts.get(name, 0) for name in ("complete", "pruned", "interrupted", "failed")}
    after = replace(state, phase="search", start=start, end=None, running={}, **_NOBODY_ASKED)
    after = replace(after, paused=event.counts.get("paused", 0))
    recent = tuple(one for one in state.recent if one.trial not in event.again)
    failures = {} if counts["failed"] < state.failed else state.failures  # they were started once more, all of them
    of_files = state.file_failures if failures else {}
    after = replace(after, failures=failures, file_failures=of_files, last_failure=None, warnings=(), warned=0)
    return replace(after, **counts, recent=recent, replicates=_ended_of(state), outdated=bool(state.confirming))


@_fold.register
def _trial_started(event: ev.TrialStarted, state: ViewState) -> ViewState:
    full = state.start.epochs if state.start else 0
    budget = (event.budget or float(full)) if state.start and state.start.rungs else None
    trial = RunningTrial(
        event.trial,
        event.label,
        started=state.t,
        epoch=event.epoch,
        epochs=math.ceil(budget or full),
        reported=state.t,
        plan=event.plan,
        budget=budget,
    )
    warm_up = state.warm_up or state.t - state.began
    after = replace(state, running={**state.running, event.trial: trial}, warm_up=warm_up)
    if event.waited == "pruned":
        return replace(after, pruned=max(0, state.pruned - 1))
    return replace(after, paused=max(0, state.paused - 1)) if event.waited else after


@_fold.register
def _trial_waiting(event: ev.TrialWaiting, state: ViewState) -> ViewState:
    if event.trial not in state.running:
        return state
    trial = replace(state.running[event.trial], waiting=True, epoch=event.epoch, images_per_second=None)
    return replace(state, running={**state.running, event.trial: trial})


@_fold.register
def _trial_epoch(event: ev.TrialEpoch, state: ViewState) -> ViewState:
    if event.trial not in state.running:
        return state
    before, value = state.running[event.trial], event.metrics.get(state.metric)
    trial = replace(
        before,
        epoch=event.epoch,
        epochs=event.epochs,
        value=value,
        images_per_second=event.metrics.get("images_per_second"),
        curve=before.curve if value is None else (*before.curve, value)[-CURVE:],
        reported=state.t,
        trained=before.trained + event.metrics.get("seconds", 0.0),
    )
    pace = max(state.pace, event.metrics.get("seconds", 0.0))
    return replace(state, running={**state.running, event.trial: trial}, pace=pace)


@_fold.register
def _trial_paused(event: ev.TrialPaused, state: ViewState) -> ViewState:
    value = event.metrics.get(state.metric)
    one = Ended(event.trial, "paused", state.label(event.trial), event.budget, value, event.seconds)
    running = {name: running for name, running in state.running.items() if name != event.trial}
    return replace(
        state,
        paused=state.paused + 1,
        running=running,
        durations=_durations(state, event.trial, event.seconds, "paused"),
        recent=(*state.recent, one)[-RECENT:],
    )


@_fold.register
def _trial_finished(event: ev.TrialFinished, state: ViewState) -> ViewState:
    leaders = state.leaders
    value, took = event.metrics.get(state.metric), _took(state, event.trial, event.seconds)
    if value is not None:
        scored = Scored(event.trial, state.label(event.trial), value, seconds=took)
        cost = Metric(state.metric).cost
        leaders = tuple(sorted((*leaders, scored), key=lambda s: cost(s.value))[:LEADERS])
    after = _ended(state, event, "complete", event.seconds)
    return replace(after, complete=state.complete + 1, leaders=leaders)


@_fold.register
def _trial_pruned(event: ev.TrialPruned, state: ViewState) -> ViewState:
    after = _ended(state, event, "pruned", event.seconds)
    waited = event.trial not in state.running and state.paused > 0
    return replace(after, pruned=state.pruned + 1, paused=state.paused - waited)


@_fold.register
def _trial_interrupted(event: ev.TrialInterrupted, state: ViewState) -> ViewState:
    return replace(_ended(state, event, "interrupted", event.seconds), interrupted=state.interrupted + 1)


@_fold.register
def _trial_failed(event: ev.TrialFailed, state: ViewState) -> ViewState:
    failure = Failure(f"trial {event.trial}", event.cause, event.message, event.log)
    begun = state.running.get(event.trial)
    after = _ended(state, event, "failed", state.t - begun.started if begun else 0.0)
    of_files = dict(state.file_failures)
    for name in files_of(begun.plan) if begun and event.cause == "plugin" else ():
        of_files[name] = of_files.get(name, 0) + 1
    return _with_failure(replace(after, failed=state.failed + 1, file_failures=of_files), failure)


@_fold.register
def _best_changed(event: ev.BestChanged, state: ViewState) -> ViewState:
    best = Scored(event.trial, event.label, event.value, state.t, state.finished)
    return replace(state, best=best, best_curve=(*state.best_curve, event.value)[-CURVE:])


@_fold.register
def _rung_decided(event: ev.RungDecided, state: ViewState) -> ViewState:
    return replace(state, rungs={**state.rungs, (event.bracket, event.epoch): event})


@_fold.register
def _confirmation_started(event: ev.ConfirmationStarted, state: ViewState) -> ViewState:
    wanted = {(trial, number) for trial in event.trials for number in range(1, event.seeds + 1)}
    kept = {key: one for key, one in state.ended.items() if key in wanted}
    after = replace(state, phase="confirmation", confirming=event.trials, seeds=event.seeds, outdated=False)
    after = replace(after, baseline=event.baseline)
    # Who has left a race stays out of another one over no more seeds, whatever came in between.
    out = tuple(trial for trial, over in state.left.items() if trial in event.trials and over >= event.seeds)
    return replace(after, replicates=kept, dropped=out)


@_fold.register
def _replicate_started(event: ev.ReplicateStarted, state: ViewState) -> ViewState:
    return _with_replicate(state, event.trial, event.replicate, Replicate("running", state.t))


@_fold.register
def _replicate_epoch(event: ev.ReplicateEpoch, state: ViewState) -> ViewState:
    before = state.replicates.get((event.trial, event.replicate), Replicate("running", state.t))
    value = event.metrics.get(state.metric)
    after = replace(
        before,
        epoch=event.epoch,
        epochs=event.epochs,
        value=value,
        reported=state.t,
        trained=before.trained + event.metrics.get("seconds", 0.0),
    )
    return _with_replicate(state, event.trial, event.replicate, after)


@_fold.register
def _replicate_finished(event: ev.ReplicateFinished, state: ViewState) -> ViewState:
    return _end_replicate(state, event.trial, event.replicate, "done", event.metrics.get(state.metric))


@_fold.register
def _replicate_failed(event: ev.ReplicateFailed, state: ViewState) -> ViewState:
    failure = Failure(
        f"trial {event.trial} replicate {event.replicate}",
        event.cause,
        event.message,
        in_trial(event.trial, LOG),
    )
    return _with_failure(_end_replicate(state, event.trial, event.replicate, "failed", None), failure)


@_fold.register
def _plan_dropped(event: ev.PlanDropped, state: ViewState) -> ViewState:
    over = max(state.seeds, state.left.get(event.trial, 0))
    return replace(state, dropped=(*state.dropped, event.trial), left={**state.left, event.trial: over})


@_fold.register
def _refit_started(event: ev.RefitStarted, state: ViewState) -> ViewState:
    return replace(state, refit=event.trial, refitted=False)


@_fold.register
def _refit_finished(event: ev.RefitFinished, state: ViewState) -> ViewState:
    return replace(state, refit=event.trial, refitted=True)


@_fold.register
def _test_opened(event: ev.TestOpened, state: ViewState) -> ViewState:
    return replace(state, phase="test", openings=event.count)


@_fold.register
def _ensemble_evaluated(event: ev.EnsembleEvaluated, state: ViewState) -> ViewState:
    return replace(state, ensemble=event)


@_fold.register
def _resources(event: ev.Resources, state: ViewState) -> ViewState:
    return replace(state, resources=event)


@_fold.register
def _warned(event: ev.Warned, state: ViewState) -> ViewState:
    return replace(state, warned=state.warned + 1, warnings=(*state.warnings, event.message)[-WARNINGS:])


@_fold.register
def _stop_asked(event: ev.StopAsked, state: ViewState) -> ViewState:
    return replace(state, phase="stopping", stop_asked=event.signal, at_once=event.at_once)


@_fold.register
def _run_interrupted(event: ev.RunInterrupted, state: ViewState) -> ViewState:
    return replace(state, phase="stopping", interruption=event.reason)


@_fold.register
def _run_finished(event: ev.RunFinished, state: ViewState) -> ViewState:
    # What has come to its end lacks no seed of its best plans, if the experiment itself confirms them.
    confirmed = event.exit_code == 0 and state.start is not None and state.start.confirm_top > 0
    return replace(state, phase="over", end=event, running={}, outdated=state.outdated and not confirmed)


def _ended(state: ViewState, event: TrialEnd, how: str, seconds: float) -> ViewState:
    """Return the state without that trial among the running ones, and with it among those that ended last."""
    metrics: ev.Metrics = getattr(event, "metrics", {})
    one = Ended(event.trial, how, state.label(event.trial), epochs_of(event), metrics.get(state.metric), seconds)
    return replace(
        state,
        searched=state.t,
        running={name: running for name, running in state.running.items() if name != event.trial},
        durations=_durations(state, event.trial, seconds, how),
        recent=(*state.recent, one)[-RECENT:],
    )


def _took(state: ViewState, trial: str, seconds: float) -> float:
    """Return how long the last training of a trial took that has taken so many `seconds` in all."""
    begun = state.running.get(trial)
    return state.t - begun.started if begun and begun.budget else seconds


def _durations(state: ViewState, trial: str, seconds: float, how: str) -> tuple[Duration, ...]:
    """Return the durations with that of the training that has ended: a trial that only waited had none."""
    begun = state.running.get(trial)
    if begun is None and state.start and state.start.rungs:
        return state.durations
    took = Duration(_took(state, trial, seconds), how == "complete", begun and begun.budget)
    return (*state.durations, took)[-DURATIONS:]


def _ended_of(state: ViewState) -> Replicates:
    """Return the trainings of the confirmation that have ended: what runs of it dies with its driver."""
    return {key: one for key, one in state.replicates.items() if one.state != "running"}


def _end_replicate(
    state: ViewState, trial: str, number: int, end: Literal["done", "failed"], value: float | None
) -> ViewState:
    before = state.replicates.get((trial, number), Replicate("running", state.t))
    after = replace(before, state=end, value=value)
    return replace(_with_replicate(state, trial, number, after), ended={**state.ended, (trial, number): after})


def _with_replicate(state: ViewState, trial: str, number: int, replicate: Replicate) -> ViewState:
    return replace(state, replicates={**state.replicates, (trial, number): replicate})


def _with_failure(state: ViewState, failure: Failure) -> ViewState:
    causes = {**state.failures, failure.cause: state.failures.get(failure.cause, 0) + 1}
    return replace(state, failures=causes, last_failure=failure)
