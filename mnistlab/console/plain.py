"""One line an event, epochs aside: for pipes, logs, continuous integration and screen readers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import cast

from mnistlab import events as ev
from mnistlab.console.next_steps import left_undone
from mnistlab.console.state import FREQUENT, ViewState
from mnistlab.console.trainings import epochs_of
from mnistlab.util.text import (
    Scalar,
    counted,
    epochs_text,
    listed,
    metric_text,
    runs_before_text,
    scalar_text,
    scheduler_text,
    seconds_text,
    visible,
)


def line(stamped: ev.Stamped, state: ViewState) -> str | None:
    """Return the line of an event, or None where people need none. `state` is the state *after* the event.

    What happens often (epochs, looks at the machine) has no line of its own, but where there has been no line for
    nearly a minute it is the occasion for a heartbeat. The line holds no control characters, whatever a plugin has put
    into its names and messages.
    """
    if isinstance(stamped.event, FREQUENT):
        said = heartbeat(state) if state.heartbeat_seq == stamped.seq else None
    else:
        said = _say(stamped.event, state)
    return None if said is None else visible(f"[{seconds_text(stamped.t):>6}] {said}")


def heartbeat(state: ViewState) -> str:
    """Return for example `2 running (0003 epoch 2/8, 0004 epoch 1/8), 5 of 16 finished, best 99.12 %`."""
    best = f", best {metric_text(state.metric, state.best.value)}" if state.best else ""
    at_work = [f"{one.trial} epoch {one.epoch}/{one.epochs}" for one in state.running.values() if not one.waiting]
    at_work += [
        f"{trial} replicate {number} epoch {one.epoch}/{one.epochs or '?'}"
        for (trial, number), one in state.replicates.items()
        if one.state == "running"
    ]
    waiting = f", {state.waiting} waiting for a worker" if state.waiting else ""
    waiting += f", {state.paused} waiting at a rung" if state.paused else ""
    more = f", +{len(at_work) - 4} more" if len(at_work) > 4 else ""
    who = f" ({', '.join(at_work[:4])}{more})" if at_work else ""
    return f"{len(at_work)} running{who}{waiting}, {progress(state)}{best}"


def progress(state: ViewState) -> str:
    """Return for example `5 of 16 finished`."""
    return f"{state.finished} of {state.total} finished" if state.total else f"{state.finished} finished"


def counts_text(counts: dict[str, int]) -> str:
    """Return for example `12 complete, 3 pruned, 1 failed`, leaving zeros out."""
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


@singledispatch
def _say(_event: ev.Event, _state: ViewState) -> str | None:
    return None


@_say.register
def _run_preparing(event: ev.RunPreparing, _state: ViewState) -> str:
    return event.step


@_say.register
def _run_started(event: ev.RunStarted, _state: ViewState) -> str:
    fallback = f"; FALLBACK DATA: {event.dataset} ({event.fallback})" if event.fallback else ""
    config = f", config {event.config}" if event.config else ""
    proposals = "".join(f"; {said}" for said in (event.proposals, *(f"like {run}" for run in event.like)) if said)
    return (
        f"run {event.run}: up to {counted(event.trials, 'trial')} of {counted(event.epochs, 'epoch')} "
        f"on {event.dataset}, {event.parallel} at a time on {event.devices} "
        f"({event.algorithm}, {scheduler_text(event.scheduler, event.rungs)}, seed {event.seed}{config}){proposals}; "
        f"plugins {listed([f'{name} {version}' for name, version in event.plugins.items()]) or '-'}; "
        f"files in {event.directory}{fallback}"
    )


@_say.register
def _run_resumed(event: ev.RunResumed, _state: ViewState) -> str:
    kept = counts_text(dict(event.counts)) or "no trial has ended"
    again = f"; {counted(len(event.again), 'trial')} taken up again ({listed(event.again)})" if event.again else ""
    changes = "".join(f"; {key} = {value}" for key, value in event.changes.items())
    changes += "".join(f"; more to choose from: {_added(key, more)}" for key, more in event.amended.items())
    return (
        f"going on with the run: {kept}{again}; up to {counted(event.trials, 'trial')} in all, "
        f"{event.parallel} at a time on {event.devices}{changes}{f'; {event.proposals}' if event.proposals else ''}"
    )


def _added(key: str, more: object) -> str:
    """Return for example `training.batch_size: 256 and 512`, or of a table `[model.cnn]`."""
    if not isinstance(more, (list, tuple)):
        return f"[{key}]"
    return f"{key}: {listed([scalar_text(one) for one in cast('Sequence[Scalar]', more)])}"


@_say.register
def _trial_started(event: ev.TrialStarted, state: ViewState) -> str:
    repeats = f" (another seed of the plan of trial {event.repeats})" if event.repeats else ""
    if event.waited:
        return f"trial {event.trial} promoted to {epochs_text(event.budget or _full(state))}: {event.label}{repeats}"
    if (attempt := event.attempt - event.rung) > 1:  # each rung has a start of its own
        where = f"goes on after {counted(event.epoch, 'epoch')}" if event.epoch else "starts again"
        return f"trial {event.trial} {where} (attempt {attempt}): {event.label}{repeats}"
    return f"trial {event.trial} started: {event.label}{repeats}"


def _full(state: ViewState) -> float:
    return float(state.start.epochs) if state.start else 1.0


@_say.register
def _trial_paused(event: ev.TrialPaused, state: ViewState) -> str:
    value = metric_text(state.metric, event.metrics.get(state.metric))
    spent = f"{epochs_text(event.budget)}, {seconds_text(event.seconds)}"
    return f"trial {event.trial} waits at rung {event.rung}: {state.metric} {value} after {spent} ({progress(state)})"


@_say.register
def _trial_finished(event: ev.TrialFinished, state: ViewState) -> str:
    return f"trial {event.trial} complete: {_result(event, state)}"


@_say.register
def _trial_pruned(event: ev.TrialPruned, state: ViewState) -> str:
    return f"trial {event.trial} pruned: {_result(event, state)}"


@_say.register
def _trial_interrupted(event: ev.TrialInterrupted, state: ViewState) -> str:
    return f"trial {event.trial} interrupted ({event.reason}): {_result(event, state)}"


@_say.register
def _trial_failed(event: ev.TrialFailed, state: ViewState) -> str:
    where = f"{state.start.directory}/{event.log}" if state.start else event.log
    log = f"; log: {where}" if event.log else ""
    what = f"failed ({event.cause}) after {counted(event.epoch, 'epoch')}: {event.message}"
    return f"trial {event.trial} {what}{log} ({progress(state)})"


@_say.register
def _best_changed(event: ev.BestChanged, _state: ViewState) -> str:
    return f"best so far: trial {event.trial}, {event.metric} {metric_text(event.metric, event.value)}, {event.label}"


@_say.register
def _confirmation_started(event: ev.ConfirmationStarted, _state: ViewState) -> str:
    plans = [f"{trial}, the defaults" if trial == event.baseline else trial for trial in event.trials]
    return (
        f"confirmation: {counted(len(event.trials), 'plan')} ({listed(plans)}) "
        f"on {counted(event.seeds, 'fresh seed')} each"
    )


@_say.register
def _replicate_finished(event: ev.ReplicateFinished, state: ViewState) -> str:
    result = f"{state.metric} {metric_text(state.metric, event.metrics.get(state.metric))}"
    done = f"{state.replicated} of {state.trainings} trained"
    return f"trial {event.trial} replicate {event.replicate}: {result} in {seconds_text(event.seconds)} ({done})"


@_say.register
def _replicate_failed(event: ev.ReplicateFailed, _state: ViewState) -> str:
    return f"trial {event.trial} replicate {event.replicate} failed ({event.cause}): {event.message}"


@_say.register
def _plan_dropped(event: ev.PlanDropped, state: ViewState) -> str:
    gap = metric_text(state.metric, abs(event.difference))
    over = counted(event.seeds, "seed") + ", on the same images," * event.seeds_only
    ahead = f"after {over} trial {event.leader} is ahead by {gap}"
    return f"trial {event.trial} can no longer win: {ahead}; it gets no more"


@_say.register
def _refit_started(event: ev.RefitStarted, _state: ViewState) -> str:
    return f"trial {event.trial} is trained once more, on training and validation images together"


@_say.register
def _refit_finished(event: ev.RefitFinished, _state: ViewState) -> str:
    return f"trial {event.trial} trained on training and validation images in {seconds_text(event.seconds)}"


@_say.register
def _test_opened(event: ev.TestOpened, _state: ViewState) -> str:
    models = f"{counted(event.models, 'model')} of {listed(event.trials)}"
    before = f"; {runs_before_text(event.runs_before)}" if event.runs_before else ""
    return f"test set opened to evaluate {models} (opening {event.count} of this run{before})"


@_say.register
def _ensemble_evaluated(event: ev.EnsembleEvaluated, _state: ViewState) -> str:
    together = f"trial {event.trial}, its {counted(event.members, 'seed')} together"
    val = "" if event.val_accuracy is None else f", val_accuracy {metric_text('val_accuracy', event.val_accuracy)}"
    cost = f"; a prediction costs {event.members} times that of one"
    return f"{together}: test accuracy {metric_text('test_accuracy', event.test_accuracy)}{val}{cost}"


@_say.register
def _warned(event: ev.Warned, _state: ViewState) -> str:
    return f"warning: {event.message}"


@_say.register
def _stop_asked(event: ev.StopAsked, _state: ViewState) -> str:
    if event.at_once:
        return f"{event.signal}: stopping at once; what runs is cut short, and what was written is kept"
    return f"{event.signal}: stopping after the epochs that are running; Ctrl-C again stops at once"


@_say.register
def _status_asked(_event: ev.StatusAsked, state: ViewState) -> str:
    return f"status: {heartbeat(state)}"


@_say.register
def _run_interrupted(event: ev.RunInterrupted, _state: ViewState) -> str:
    return f"interrupted: {event.reason}"


@_say.register
def _run_finished(event: ev.RunFinished, state: ViewState) -> str:
    counts = counts_text(dict(event.counts)) or "no trial ended"
    broken = event.outcome.startswith(ev.BROKEN_OFF)  # then no ranking follows that says what to type next
    onward = "".join(f"; next: {command}" for command in left_undone(state)[:1]) if broken else ""
    return f"run over: {event.outcome} ({counts}) in {seconds_text(event.seconds)}{onward}"


def _result(event: ev.TrialFinished | ev.TrialPruned | ev.TrialInterrupted, state: ViewState) -> str:
    value = metric_text(state.metric, event.metrics.get(state.metric))
    spent = f"{epochs_text(epochs_of(event))}, {seconds_text(event.seconds)}"
    return f"{state.metric} {value} after {spent} ({progress(state)})"
