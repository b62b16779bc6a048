"""A search's loop without Ray: bridge, scheduler and recorder are called in the order in which Ray Tune calls them.

That is the order of `ray.tune.execution.tune_controller.TuneController` (2.60), of which each method here names its
own. A trial that pauses keeps its worker. Population-based training is left out: it copies trials by Tune's own saving.
"""

from __future__ import annotations

import copy
import uuid
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from mnistlab.tuning.context import Parts
from mnistlab.tuning.worker.leaving import LeftError

Happening = Literal["started", "report"]


class StarvedError(AssertionError):
    """The search is not over, and nothing will ever happen in it again."""


class Steps(Protocol):
    """What trains a trial."""

    def step(self) -> dict[str, Any]:
        """Train an epoch and report.

        Raises:
            LeftError: where the trial needs another worker.
        """
        ...


@dataclass(eq=False)
class LoopTrial:
    """What bridge, scheduler and recorder see of one of Tune's trials."""

    trial_id: str
    config: dict[str, Any]
    status: str = Trial.PENDING
    staged: bool = False  # a worker is coming up for it
    worker: Steps | None = None
    last_result: dict[str, Any] = field(default_factory=dict[str, Any])
    error: Exception | None = None

    def is_finished(self) -> bool:
        """Return whether nothing more will be heard of it."""
        return self.status in {Trial.TERMINATED, Trial.ERROR}


class Loop(ABC):
    """One search, from its first proposal to the end of its last trial.

    What is said here of workers holds for any number of them. Here they do their steps in turn; whoever simulates
    others says by `_later` and `_next` in which order things happen.
    """

    def __init__(self, parts: Parts, workers: int) -> None:
        """Have so many trials at once."""
        self._parts, self._workers = parts, workers
        self._trials: list[Any] = []
        self._finished = False  # whether the searcher has said that there are no more trials
        self._turns: deque[tuple[Happening, Any]] = deque()
        self._iteration = 0

    # --- what schedulers ask ---

    def get_trials(self) -> list[Any]:
        """Return all trials."""
        return self._trials

    def get_live_trials(self) -> set[Any]:
        """Return the trials that Tune has not put away."""
        return {trial for trial in self._trials if trial.status != Trial.TERMINATED}

    # --- what there may be of several kinds ---

    @abstractmethod
    def _worker(self, trial: Any) -> Steps:
        """Return what trains a trial from now on: the worker that it has, if it has paused."""

    def _new_trial(self, config: dict[str, Any]) -> Any:
        return LoopTrial(f"{uuid.uuid4().hex[:8]}_{len(self._trials):05}", config)

    def _later(self, what: Happening, trial: Any) -> None:
        self._turns.append((what, trial))

    def _next(self) -> tuple[Happening, Any] | None:
        return self._turns.popleft() if self._turns else None

    # --- the loop ---

    def run(self) -> None:
        """Step until every trial and the searcher have finished."""
        while not self._is_finished():
            before = len(self._trials), self._finished
            self._update_trial_queue()
            self._add_actors()
            came = self._next_happening()
            stopped = self._stop_experiment_if_needed()
            self._iteration += 1
            self._parts.recorder.on_step_end(self._iteration, self._seen())
            if not came and not stopped and before == (len(self._trials), self._finished):
                raise StarvedError(f"after {len(self._trials)} trials: {[trial.status for trial in self._trials]}")

    def _seen(self) -> list[Any]:
        return list(self._trials)

    def _is_finished(self) -> bool:
        """As `is_finished`, with `SearchGenerator.is_finished` of any number of samples."""
        return self._finished and all(trial.is_finished() for trial in self._trials)

    def _update_trial_queue(self) -> None:
        """As `_maybe_update_trial_queue`: no more trials wait than are to be started at once."""
        while sum(trial.status == Trial.PENDING for trial in self._trials) < self._workers:
            if self._finished or not self._add_trial():
                return

    def _add_trial(self) -> bool:
        trial = self._new_trial({})
        suggested = self._parts.bridge.suggest(trial.trial_id)
        if suggested == Searcher.FINISHED:
            self._finished = True
        if suggested == Searcher.FINISHED or suggested is None:
            return False
        trial.config = copy.deepcopy(suggested)
        self._trials.append(trial)
        self._parts.scheduler.on_trial_add(self, trial)  # pyright: ignore[reportArgumentType] - as Tune's controller
        return True

    def _add_actors(self) -> None:
        """As `_maybe_add_actors` in `tuning/ray/workers.py`: the scheduler's choice, then what waits or pauses."""
        chosen: Any = self._parts.scheduler.choose_trial_to_run(self)  # pyright: ignore[reportArgumentType]
        waiting = [trial for trial in self._trials if trial.status == Trial.PENDING]
        paused = [trial for trial in self._trials if trial.status == Trial.PAUSED]
        for trial in [*([chosen] if chosen else []), *waiting, *paused]:
            busy = sum(one.staged or one.status == Trial.RUNNING for one in self._trials)
            if busy < self._workers and not trial.staged and trial.status != Trial.RUNNING:
                trial.status, trial.staged = Trial.PENDING, True
                self._later("started", trial)

    def _next_happening(self) -> bool:
        """Do what comes next; return whether there was anything."""
        happening = self._next()
        if happening is None:
            return False
        what, trial = happening
        if what == "started":
            self._actor_started(trial)
        elif trial.status == Trial.RUNNING:
            self._report(trial)
        return True

    def _actor_started(self, trial: Any) -> None:
        """As `_actor_started`."""
        trial.staged = False
        if trial.is_finished():
            return
        trial.worker = self._worker(trial)
        self._parts.recorder.on_trial_start(self._iteration, self._seen(), trial)
        trial.status = Trial.RUNNING
        self._later("report", trial)

    def _report(self, trial: Any) -> None:
        try:
            result = trial.worker.step()
        except LeftError as error:
            self._fail(trial, error)
        else:
            self._decide(trial, self._process(trial, result | {"trial_id": trial.trial_id}))

    def _process(self, trial: Any, result: dict[str, Any]) -> str:
        """As `_process_trial_result`: stopper, scheduler, searcher, callback, in this order."""
        flat = dict(result)
        if self._parts.interruptions.takes(trial.trial_id) or flat["done"]:
            decision = TrialScheduler.STOP
        else:
            decision = self._parts.scheduler.on_trial_result(self, trial, flat)  # pyright: ignore[reportArgumentType]
        if decision == TrialScheduler.STOP:
            result["done"] = True
        else:
            self._parts.bridge.on_trial_result(trial.trial_id, flat)
        self._parts.recorder.on_trial_result(self._iteration, self._seen(), trial, result)
        trial.last_result = result
        return decision

    def _decide(self, trial: Any, decision: str) -> None:
        """As `_execute_action`."""
        if decision == TrialScheduler.CONTINUE:
            self._later("report", trial)
        elif decision == TrialScheduler.PAUSE:
            trial.status = Trial.PAUSED
        else:
            assert decision == TrialScheduler.STOP, decision
            self._stop(trial)

    def _stop(self, trial: Any) -> None:
        """As `stop_trial` for one that is running."""
        flat = dict(trial.last_result)
        self._parts.scheduler.on_trial_complete(self, trial, flat)  # pyright: ignore[reportArgumentType]
        self._parts.bridge.on_trial_complete(trial.trial_id, result=flat)
        self._parts.recorder.on_trial_complete(self._iteration, self._seen(), trial)
        trial.status, trial.worker = Trial.TERMINATED, None

    def _fail(self, trial: Any, error: LeftError) -> None:
        """As `_process_trial_failure` without another attempt of Tune's: going on is the bridge's."""
        trial.error = error
        self._parts.scheduler.on_trial_error(self, trial)  # pyright: ignore[reportArgumentType]
        self._parts.bridge.on_trial_complete(trial.trial_id, error=True)
        trial.status, trial.worker = Trial.ERROR, None
        self._parts.recorder.on_trial_error(self._iteration, self._seen(), trial)

    def _stop_experiment_if_needed(self) -> bool:
        """As the method of this name with our stopper's `stop_all`: what is left is dropped without a word."""
        if not (self._parts.stopping() and self._parts.recorder.idle()):
            return False
        self._finished = True
        for trial in self._trials:
            if not trial.is_finished():
                trial.status = Trial.TERMINATED
        return True
