"""From Tune's callbacks to our events and results: the only place where the two meet."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from mnistlab import events
from mnistlab.api import TrialRecord
from mnistlab.checkpoints import discard_checkpoints, newest_checkpoint, write_checkpoint
from mnistlab.events import Emit
from mnistlab.labels import plan_label
from mnistlab.observers import Observers
from mnistlab.registry import Registry
from mnistlab.results import TrialResult, higher_is_better, trial_name
from mnistlab.signals import signals_held
from mnistlab.spec import ExperimentSpec
from mnistlab.store import RunWriter
from mnistlab.store.ends import end_event
from mnistlab.tuning.bridge import Bridge
from mnistlab.tuning.losses import Leftover, Loss, Retries, log_of, loss_of
from mnistlab.tuning.machine import Share
from mnistlab.tuning.outcome import Interruptions, Outcome, outcome_of
from mnistlab.tuning.past import PastTrial
from mnistlab.tuning.refusals import Refusals
from mnistlab.tuning.unsaved import Unsaved


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

    @property
    def seconds(self) -> float:
        """Return how long it has taken so far."""
        return self.before + time.monotonic() - self.started


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
    ) -> None:
        """Record into `store`, `emit` and `ended`; observers among the plugins are told of each end.

        `tick` is called at every turn of Tune's loop, about ten times a second. `retries` says which trials go on that
        have lost their worker, `leftover` what is left of that, `larger` what one gets whose share of memory was too
        little. Writes that are refused are noted in `refusals`.
        """
        self._spec, self._bridge, self._store, self._emit = spec, bridge, store, emit
        self._observers, self._refusals = Observers(registry), refusals
        self._ended, self._interruptions, self._tick, self._running = ended, interruptions, tick, 0
        self._open: dict[str, _Open] = {}
        self._retries, self._leftover, self._larger = retries, leftover, larger
        self._best = _best_of(ended, spec.search.metric[0])

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
        about: dict[str, Any] = {"number": number, "seed": opened.seed, "repeats": repeats}
        if before := self._bridge.going_on.get(trial.trial_id):
            opened.history = [dict(before.history[epoch]) for epoch in sorted(before.history)]
            opened.before = sum(metrics.get("seconds", 0.0) for metrics in opened.history)
            opened.attempt = before.attempts + 1
            about |= {"attempt": opened.attempt, "epoch": max(before.history, default=0)}
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
        """Record the end of a trial that answered to the last."""
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
        one = PastTrial(
            name=opened.name,
            number=opened.number,
            seed=opened.seed,
            plan=opened.plan,
            repeats=opened.repeats,
            attempts=opened.attempt,
            history=dict(enumerate(opened.history[:epoch], 1)),
        )
        room = opened.room or lost.cause == "memory"
        self._bridge.goes_on(trial_id, one, state, room=room)
        where = f"from epoch {epoch}" if epoch else "from its beginning"
        how = f" with {self._larger} to itself" if room else ""
        self._emit(events.TrialWaiting(trial=opened.name, epoch=epoch, reason=lost.message))
        self._emit(events.Warned(message=f"trial {opened.name} goes on {where}{how}: {lost.message}"))

    def _warn(self, text: str) -> None:
        self._emit(events.Warned(message=text))

    def close(self) -> None:
        """End the trials of which nothing more will be heard."""
        for trial_id in list(self._open):
            self._interruptions.breaks_off(trial_id)
            self._end(trial_id)
        for trouble in self._observers.close():
            self._warn(trouble)

    # --- ends ---

    def _end(self, trial_id: str, lost: Loss | None = None) -> None:
        opened = self._open.get(trial_id)
        if opened is None:
            return
        reason = self._interruptions.reason(trial_id)
        outcome = outcome_of(opened.last, metrics=self._spec.search.metric, lost=lost, interruption=reason)
        result = _result(opened, outcome)
        with (
            self._refusals.noted(),
            signals_held(),
        ):  # all of it or nothing: who insists on leaving waits for two small writes
            self._open.pop(trial_id)
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
        value, sign = result.metrics[metric], 1 if higher_is_better(metric) else -1
        if self._best is None or sign * value > sign * self._best:
            self._best = value
            self._emit(events.BestChanged(trial=result.trial, metric=metric, value=value, label=result.label))


def _best_of(ended: Sequence[TrialResult], metric: str) -> float | None:
    values = [result.metrics[metric] for result in ended if result.state == "complete"]
    return (max if higher_is_better(metric) else min)(values) if values else None


def _result(opened: _Open, outcome: Outcome) -> TrialResult:
    last = opened.last or {}
    metrics = dict(opened.history[-1]) if opened.history else {}
    metrics |= {name: last[name] for name in ("parameters", "macs") if last.get(name) is not None}
    return TrialResult(
        trial=opened.name,
        number=opened.number,
        state=outcome.state,
        seed=opened.seed,
        plan=opened.plan,
        label=plan_label(opened.plan),
        history=tuple(opened.history),
        metrics=metrics,
        seconds=opened.seconds,
        cause=outcome.cause,
        message=outcome.message,
        repeats=opened.repeats,
    )


def _record(result: TrialResult) -> TrialRecord:
    return TrialRecord(
        trial=result.trial,
        state=result.state,
        plan=result.plan,
        seed=result.seed,
        metrics=result.metrics,
        message=result.message,
    )
