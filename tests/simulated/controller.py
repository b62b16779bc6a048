"""Ray Tune's loop without Ray: a discrete-event simulation over a fake clock, as an `Executor` of a search.

Bridge, scheduler and recorder are called in the order of `ray.tune.execution.tune_controller.TuneController` (2.60), of
which each method here names its own. Population-based training is left out: it copies trials by Tune's own saving.
"""

from __future__ import annotations

import copy
import heapq
import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from mnistlab.tuning.job import Executor, Parts, Search
from mnistlab.tuning.leaving import MARK, LastWords
from mnistlab.tuning.losses import Leftover
from tests.simulated.worker import Worker, WorkerDiedError


class StarvedError(AssertionError):
    """The search is not over, and nothing will ever happen in it again."""


@dataclass(frozen=True)
class World:
    """What is drawn for a simulation: how long epochs take, how many plans fail, how often states are kept.

    `spread` is by how much the longest epoch outlasts the shortest one: 1 for all the same.
    """

    seed: int = 0
    spread: float = 10.0
    failing: float = 0.2
    keep_every: int = 1
    nodes: Mapping[str, str] = field(default_factory=dict[str, str])  # by name: the cause of all failures there, or ""
    doomed: tuple[int, str] | None = None  # the number of a plan, and the cause by which each of its workers ends

    def ends_by(self, trial: SimulatedTrial) -> str:
        """Return the cause by which the worker of a trial ends itself, or ""."""
        if lacks := self.nodes.get(trial.node):
            return lacks
        number, cause = self.doomed or (-1, "")
        return cause if trial.number == number else ""


@dataclass(eq=False)
class SimulatedTrial:
    """What bridge, scheduler and recorder see of one of Tune's trials."""

    trial_id: str
    config: dict[str, Any]
    status: str = Trial.PENDING
    staged: bool = False  # a worker is coming up for it
    worker: Worker | None = None
    node: str = ""
    number: int = -1
    last_result: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None

    def is_finished(self) -> bool:
        return self.status in {Trial.TERMINATED, Trial.ERROR}


class Controller:
    """One search, from its first proposal to the end of its last trial."""

    def __init__(self, search: Search, parts: Parts, world: World) -> None:
        """Simulate as many workers as trials may run at once."""
        self._parts, self._world, self._workers = parts, world, search.share.parallel
        self._draw = random.Random(world.seed)
        self._trials: list[SimulatedTrial] = []
        self._finished = False  # whether the searcher has said that there are no more trials
        self._happenings: list[tuple[float, int, Literal["started", "report"], SimulatedTrial]] = []
        self._now, self._count, self._iteration = 0.0, 0, 0

    # --- what schedulers ask ---

    def get_trials(self) -> list[SimulatedTrial]:
        return self._trials

    def get_live_trials(self) -> set[SimulatedTrial]:
        return {trial for trial in self._trials if trial.status != Trial.TERMINATED}

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
        return all(trial.is_finished() for trial in self._trials) and self._searcher_is_finished()

    def _searcher_is_finished(self) -> bool:
        """As `SearchGenerator.is_finished` of any number of samples."""
        return self._finished

    def _update_trial_queue(self) -> None:
        """As `_maybe_update_trial_queue`: no more trials wait than are to be started at once."""
        while sum(trial.status == Trial.PENDING for trial in self._trials) < self._workers:
            if self._searcher_is_finished() or not self._add_trial():
                return

    def _add_trial(self) -> bool:
        trial_id = f"{self._draw.getrandbits(32):08x}_{len(self._trials):05}"
        suggested = self._parts.bridge.suggest(trial_id)
        if suggested == Searcher.FINISHED:
            self._finished = True
        if suggested == Searcher.FINISHED or suggested is None:
            return False
        trial = SimulatedTrial(trial_id, copy.deepcopy(suggested))
        self._trials.append(trial)
        self._parts.scheduler.on_trial_add(self, trial)
        return True

    def _add_actors(self) -> None:
        """As `_maybe_add_actors`: the scheduler's choice first, then those that wait, then those that pause."""
        chosen: Any = self._parts.scheduler.choose_trial_to_run(self)
        waiting = [trial for trial in self._trials if trial.status == Trial.PENDING]
        paused = [trial for trial in self._trials if trial.status == Trial.PAUSED]
        for trial in [*([chosen] if chosen else []), *waiting, *paused]:
            busy = sum(one.staged or one.status == Trial.RUNNING for one in self._trials)
            if busy < self._workers and not trial.staged and trial.status != Trial.RUNNING:
                trial.status, trial.staged = Trial.PENDING, True
                self._later("started", trial)

    def _later(self, what: Literal["started", "report"], trial: SimulatedTrial) -> None:
        self._count += 1
        takes = self._world.spread ** self._draw.random()
        heapq.heappush(self._happenings, (self._now + takes, self._count, what, trial))

    def _next_happening(self) -> bool:
        """Let the clock jump to what comes next; return whether there was anything."""
        if not self._happenings:
            return False
        self._now, _, what, trial = heapq.heappop(self._happenings)
        if what == "started":
            self._actor_started(trial)
        elif trial.status == Trial.RUNNING:
            self._report(trial)
        return True

    def _actor_started(self, trial: SimulatedTrial) -> None:
        """As `_actor_started`; a trial that paused goes on in its own worker."""
        trial.staged = False
        if trial.is_finished():
            return
        self._place(trial)
        trial.worker = trial.worker or Worker(trial.config, self._world.failing, self._world.keep_every)
        self._parts.recorder.on_trial_start(self._iteration, self._seen(), trial)
        trial.status = Trial.RUNNING
        self._later("report", trial)

    def _place(self, trial: SimulatedTrial) -> None:
        """Put a trial on a node that is not barred to it, as Ray does by the labels of nodes."""
        barred = json.loads(trial.config["task"]).get("away", [])
        open_to_it = [name for name in self._world.nodes if name not in barred]
        assert open_to_it or not self._world.nodes, "a trial was handed out for which there is no node"
        trial.node = self._draw.choice(open_to_it) if open_to_it else ""
        trial.number = self._parts.bridge.number(trial.trial_id)

    def _report(self, trial: SimulatedTrial) -> None:
        assert trial.worker is not None
        try:
            result = self._step(trial.worker, trial)
        except WorkerDiedError as error:
            self._fail(trial, error)
        else:
            self._decide(trial, self._process(trial, result | {"trial_id": trial.trial_id}))

    def _step(self, worker: Worker, trial: SimulatedTrial) -> dict[str, Any]:
        if cause := self._world.ends_by(trial):
            words = LastWords(cause, f"simulated: {cause}", f"{trial.node}/")
            raise WorkerDiedError(f"{MARK}{json.dumps(asdict(words))}")
        return worker.step() | {"place": f"{trial.node}/"}

    def _process(self, trial: SimulatedTrial, result: dict[str, Any]) -> str:
        """As `_process_trial_result`: stopper, scheduler, searcher, callback, in this order."""
        flat = dict(result)
        if self._parts.interruptions.takes(trial.trial_id) or flat["done"]:
            decision = TrialScheduler.STOP
        else:
            decision = self._parts.scheduler.on_trial_result(self, trial, flat)
        if decision == TrialScheduler.STOP:
            result["done"] = True
        else:
            self._parts.bridge.on_trial_result(trial.trial_id, flat)
        self._parts.recorder.on_trial_result(self._iteration, self._seen(), trial, result)
        trial.last_result = result
        return decision

    def _decide(self, trial: SimulatedTrial, decision: str) -> None:
        """As `_execute_action`."""
        if decision == TrialScheduler.CONTINUE:
            self._later("report", trial)
        elif decision == TrialScheduler.PAUSE:
            trial.status = Trial.PAUSED
        else:
            assert decision == TrialScheduler.STOP, decision
            self._stop(trial)

    def _stop(self, trial: SimulatedTrial) -> None:
        """As `stop_trial` for one that is running."""
        flat = dict(trial.last_result)
        self._parts.scheduler.on_trial_complete(self, trial, flat)
        self._parts.bridge.on_trial_complete(trial.trial_id, result=flat)
        self._parts.recorder.on_trial_complete(self._iteration, self._seen(), trial)
        trial.status = Trial.TERMINATED

    def _fail(self, trial: SimulatedTrial, error: Exception) -> None:
        """As `_process_trial_failure` without another attempt of Tune's: going on is the bridge's."""
        trial.error = error
        self._parts.scheduler.on_trial_error(self, trial)
        self._parts.bridge.on_trial_complete(trial.trial_id, error=True)
        trial.status = Trial.ERROR
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


def simulated(world: World) -> Executor:
    """Return an executor that simulates `world`; a trial's state is handed to its worker as it is."""

    def left_by(trial: Any) -> Leftover:
        said = str(trial.error)
        return Leftover(log=said) if said.startswith(MARK) else Leftover(error=said)

    return Executor(
        put=lambda state: state, run=lambda search, parts: Controller(search, parts, world).run(), leftover=left_by
    )
