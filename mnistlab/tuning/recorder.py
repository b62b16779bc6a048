"""From Tune's callbacks to our events and results: the only place where the two meet."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from mnistlab import events
from mnistlab.api import TrialRecord
from mnistlab.events import Emit
from mnistlab.experiment.spec import ExperimentSpec
from mnistlab.plugins.observers import Observers
from mnistlab.plugins.registry import Registry
from mnistlab.store import RunWriter
from mnistlab.store.checkpoints import discard_checkpoints, newest_checkpoint, write_checkpoint
from mnistlab.store.ends import end_event
from mnistlab.store.layout import trial_name
from mnistlab.store.metric import Metric
from mnistlab.store.results import RungResult, TrialResult
from mnistlab.tuning.history import Past, PastTrial
from mnistlab.tuning.outcome import Interruptions, Outcome, ends_rung, outcome_of
from mnistlab.tuning.resources import Share
from mnistlab.tuning.retries import Leftover, Loss, Retries, log_of, loss_of
from mnistlab.tuning.searcher import Bridge
from mnistlab.tuning.tune_compat import Refusals, Unsaved
from mnistlab.util.signals import signals_held
from mnistlab.util.text import plan_label


@dataclass
class _Open:
    """A trial that has begun and not yet ended."""

    name: str
    number: int
    seed: int
    plan: Mapping[str, Any]
    started: float
    repeats: str = ""
    room: bool = False  # whether it has all of a device
    attempt: int = 1
    history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    last: Mapping[str, Any] | None = None
    before: float = 0.0  # seconds that earlier attempts have spent on what is kept of them
    rung: int = 0
    budget: float | None = None
    rungs: tuple[RungResult, ...] = ()

    @property
    def seconds(self) -> float:
        """Return how long it has taken so far."""
        return self.before + time.monotonic() - self.started

    def as_past(self, **more: Any) -> PastTrial:
        """Return it as the bridge hands it out again, with `more` that is known of that."""
        return PastTrial(
            name=self.name,
            number=self.number,
            seed=self.seed,
            plan=self.plan,
            repeats=self.repeats,
            attempts=self.attempt,
            rung=self.rung,
            rungs=self.rungs,
            **more,
        )


class Recorder(Unsaved, Callback):
    """Writes what happens to each trial, in the driver, in the order in which Tune learns of it."""

    def __init__(
        self,
        spec: ExperimentSpec,
        bridge: Bridge,
        store: RunWriter,
        emit: Emit,
        registry: Registry,
        ended: list[TrialResult],
        interruptions: Interruptions,
        tick: Callable[[], None] = lambda: None,
        *,
        retries: Retries,
        leftover: Callable[[Trial], Leftover],
        refusals: Refusals,
        larger: Share | None = None,
        verdicts: list[Outcome] | None = None,
    ) -> None:
        """Record into `store`, `emit` and `ended`; observers among the plugins are told of each end.

        `tick` is called at every turn of Tune's loop, about ten times a second. `retries` says which trials go on that
        have lost their worker, `leftover` what is left of that, `larger` what one gets whose share of memory was too
        little. Writes that are refused are noted in `refusals`. `verdicts` is given what `common_failure` judges.
        """
        self._spec, self._bridge, self._store, self._emit = spec, bridge, store, emit
        self._observers, self._refusals = Observers(registry), refusals
        self._ended, self._interruptions, self._tick, self._running = ended, interruptions, tick, 0
        self._open: dict[str, _Open] = {}
        self._retries, self._leftover, self._larger = retries, leftover, larger
        self._best = _best_of(ended, spec.search.metric[0])
        self._paused: dict[str, _Open] = {}  # by name: those that wait at a rung, of which no end has been told
        self._verdicts = [] if verdicts is None else verdicts

    def take_up(self, past: Past) -> None:
        """Know the trials that waited at a rung when an earlier driver died."""
        for one in past.waiting:
            if one.state is None:
                self._paused[one.name] = _waiting(one)

    def idle(self) -> bool:
        """Return whether no trial is running."""
        return self._running == 0

    # --- what Tune calls ---

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """Record the start; a trial that goes on after a pause has started already."""
        if trial.trial_id in self._open:
            return
        task, number = json.loads(trial.config["task"]), self._bridge.number(trial.trial_id)
        repeats = task.get("repeats", "")
        opened = _Open(
            trial_name(number), number, task["seed"], task["plan"], time.monotonic(), repeats, task.get("room", False)
        )
        opened.rung, opened.budget = task.get("rung", 0), task.get("budget")
        about: dict[str, Any] = {"number": number, "seed": opened.seed, "repeats": repeats}
        about |= {"rung": opened.rung, "budget": opened.budget}
        if before := self._bridge.going_on.get(trial.trial_id):
            opened.history = [dict(before.history[epoch]) for epoch in sorted(before.history)]
            opened.rungs = before.rungs
            opened.before = sum(metrics.get("seconds", 0.0) for metrics in opened.history)
            opened.before += before.rungs[-1].seconds if before.rungs else 0.0
            opened.attempt = before.attempts + 1
            about |= {"attempt": opened.attempt, "epoch": max(before.history, default=0)}
            about["waited"] = self._leave_rung(opened.name) if before.waits else ""
            if opened.rung and not before.history:  # its states are of another rung
                discard_checkpoints(self._store.path, opened.name)
        label = plan_label(opened.plan)
        with self._refusals.noted():
            self._emit(events.TrialStarted(trial=opened.name, label=label, plan=opened.plan, **about))
        # Only now: a trial whose beginning could not be told has no end either.
        self._open.pop(task.get("resumes", ""), None)  # the attempt before this one
        self._open[trial.trial_id] = opened

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Trial],  # noqa: ARG002
        trial: Trial,
        result: dict[str, Any],
        **info: Any,  # noqa: ARG002
    ) -> None:
        """Record an epoch."""
        with self._refusals.noted():
            self._record_epoch(trial, result)

    def _record_epoch(self, trial: Trial, result: dict[str, Any]) -> None:
        opened = self._open.get(trial.trial_id)
        if opened is None:
            return
        state = result.pop("state", None)  # here and not later: Tune keeps the rest
        opened.last = result
        opened.plan, opened.seed = json.loads(result["plan"]), int(result["seed"])
        self._store.append_log(opened.name, result.get("log", ""), final=bool(result.get("cause")))
        if result.get("cause") or "metrics" not in result:
            return
        metrics: dict[str, float] = json.loads(result["metrics"])
        opened.history = json.loads(result["history"]) if "history" in result else [*opened.history, metrics]
        epoch, epochs = int(result["epoch"]), int(result["epochs"])
        self._emit(events.TrialEpoch(trial=opened.name, epoch=epoch, epochs=epochs, metrics=metrics))
        self._retries.trained(opened.name, result.get("place", ""))
        if state is not None:
            metric = self._spec.search.metric[0]
            write_checkpoint(self._store, opened.name, epoch, metric, metrics.get(metric), state)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:  # noqa: ARG002
        """Count the running trials."""
        self._tick()
        self._running = sum(trial.status == Trial.RUNNING for trial in trials)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """Record that a trial waits at a rung, or the end of one that answered to the last."""
        opened = self._open.get(trial.trial_id)
        if opened and ends_rung(opened.last, self._spec.search.metric):
            self._pause(trial.trial_id, opened)
        else:
            self._end(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:  # noqa: ARG002
        """Record the loss of a worker: its trial goes on with another one, or has failed."""
        self._refusals.check()  # it was no worker that has failed
        if trial.trial_id not in self._open:
            self.on_trial_start(iteration, trials, trial)
        opened, limit = self._open[trial.trial_id], self._spec.search.trial_timeout
        left = self._leftover(trial)
        lost = loss_of(left, opened.seconds, limit)
        self._store.append_log(opened.name, log_of(left, lost), final=True)
        if self._retries.takes(opened.name, lost):
            self._go_on(trial.trial_id, opened, lost)
        else:
            lost = self._retries.verdict(opened.name, lost)
            self._bridge.fails(trial.trial_id, lost)
            self._end(trial.trial_id, lost)

    def _go_on(self, trial_id: str, opened: _Open, lost: Loss) -> None:
        """Hand a trial back to the bridge, as it stood at its newest checkpoint."""
        said = len(opened.history)
        epoch, state = newest_checkpoint(self._store.path, opened.name, said, self._warn) or (0, None)
        one = opened.as_past(history=dict(enumerate(opened.history[:epoch], 1)))
        room = opened.room or lost.cause == "memory"
        self._bridge.goes_on(trial_id, one, state, room=room)
        where = f"from epoch {epoch}" if epoch else "from its beginning"
        how = f" with {self._larger} to itself" if room else ""
        self._emit(events.TrialWaiting(trial=opened.name, epoch=epoch, reason=lost.message))
        self._emit(events.Warned(message=f"trial {opened.name} goes on {where}{how}: {lost.message}"))

    def _pause(self, trial_id: str, opened: _Open) -> None:
        """Let a trial wait at its rung; the next training begins anew, so that none of its states is needed."""
        assert opened.budget is not None
        ended = RungResult(rung=opened.rung, budget=opened.budget, metrics=_metrics(opened), seconds=opened.seconds)
        with self._refusals.noted(), signals_held():
            self._open.pop(trial_id)
            opened.rungs = (*opened.rungs, ended)
            self._paused[opened.name] = opened
            self._emit(events.TrialPaused(trial=opened.name, **vars(ended)))
            self._verdicts.append(Outcome("pruned"))
            discard_checkpoints(self._store.path, opened.name)
        self._bridge.pauses(trial_id, opened.as_past(waits=True), room=opened.room)

    def _leave_rung(self, name: str) -> str:
        """Forget that a trial has waited; return as what that was told: an earlier driver may have ended it."""
        self._paused.pop(name, None)
        pruned = any(one.trial == name and one.state == "pruned" for one in self._ended)
        self._ended[:] = [one for one in self._ended if one.trial != name]
        return "pruned" if pruned else "paused"

    def _warn(self, text: str) -> None:
        self._emit(events.Warned(message=text))

    def close(self) -> None:
        """End the trials of which nothing more will be heard."""
        for trial_id, opened in list(self._open.items()):
            self._interruptions.breaks_off(trial_id)
            if ends_rung(opened.last, self._spec.search.metric) and opened.history:
                self._pause(trial_id, opened)
            else:
                self._end(trial_id)
        for name in list(self._paused):
            self._write_end(_result(self._paused.pop(name), Outcome("pruned")))
        for trouble in self._observers.close():
            self._warn(trouble)

    # --- ends ---

    def _end(self, trial_id: str, lost: Loss | None = None) -> None:
        opened = self._open.get(trial_id)
        if opened is None:
            return
        reason = self._interruptions.reason(trial_id)
        outcome = outcome_of(opened.last, metrics=self._spec.search.metric, lost=lost, interruption=reason)
        with (
            self._refusals.noted(),
            signals_held(),
        ):  # all of it or nothing: who insists on leaving waits for two small writes
            self._open.pop(trial_id)
            self._verdicts.append(outcome)
            self._write_end(_result(opened, outcome))

    def _write_end(self, result: TrialResult) -> None:
        with self._refusals.noted(), signals_held():
            self._store.write_trial(result)
            self._ended.append(result)
            self._emit(end_event(result))
            self._note_best(result)
        if result.state != "interrupted":
            discard_checkpoints(self._store.path, result.trial)
        for trouble in self._observers.tell(_record(result)):
            self._warn(trouble)

    def _note_best(self, result: TrialResult) -> None:
        metric = self._spec.search.metric[0]
        if result.state != "complete":
            return
        value = result.metrics[metric]
        if self._best is None or Metric(metric).better(value, self._best):
            self._best = value
            self._emit(events.BestChanged(trial=result.trial, metric=metric, value=value, label=result.label))


def _best_of(ended: Sequence[TrialResult], metric: str) -> float | None:
    values = [result.metrics[metric] for result in ended if result.state == "complete"]
    return Metric(metric).best(values) if values else None


def _result(opened: _Open, outcome: Outcome) -> TrialResult:
    waits = bool(opened.rungs) and (outcome.state == "pruned" or not opened.history)
    return TrialResult(
        trial=opened.name,
        number=opened.number,
        state=outcome.state,
        seed=opened.seed,
        plan=opened.plan,
        label=plan_label(opened.plan),
        history=tuple(opened.history),
        metrics=opened.rungs[-1].metrics if waits else _metrics(opened),
        seconds=opened.rungs[-1].seconds if waits and outcome.state == "pruned" else opened.seconds,
        cause=outcome.cause,
        message=outcome.message,
        repeats=opened.repeats,
        budget=opened.budget,
        rungs=opened.rungs,
    )


def _metrics(opened: _Open) -> dict[str, float]:
    """Return the metrics of the last epoch, and what is known of the model."""
    last, metrics = opened.last or {}, dict(opened.history[-1]) if opened.history else {}
    return metrics | {name: last[name] for name in ("parameters", "macs") if last.get(name) is not None}


def ends_of_waiting(past: Past) -> Iterator[TrialResult]:
    """Yield the results of the trials that waited at a rung when their driver died, and of which no end was told."""
    for one in past.waiting:
        if one.state is None:
            yield _result(_waiting(one), Outcome("pruned"))


def _waiting(one: PastTrial) -> _Open:
    """Return a trial that waits at a rung since an earlier driver."""
    opened = _Open(one.name, one.number, one.seed, one.plan, time.monotonic(), one.repeats, attempt=one.attempts)
    opened.history = [dict(one.history[epoch]) for epoch in sorted(one.history)]
    opened.rung, opened.budget, opened.rungs = one.rung, one.rungs[-1].budget, one.rungs
    return opened


def _record(result: TrialResult) -> TrialRecord:
    return TrialRecord(
        trial=result.trial,
        state=result.state,
        plan=result.plan,
        seed=result.seed,
        metrics=result.metrics,
        message=result.message,
    )
