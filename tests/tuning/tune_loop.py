"""Ray Tune's own loop over workers that are not there: they start, train and end by a clock of ours, without a Ray.

Everything of `TuneController` is Ray's but the manager of its actors, of which the calls are those of 2.60.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from ray.exceptions import RayActorError
from ray.train._internal.storage import StorageContext
from ray.tune import Callback, PlacementGroupFactory, Trainable, register_trainable
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import SearchAlgorithm
from ray.tune.stopper import Stopper

from mnistlab.tuning.ray.surroundings import environment

Seconds = Callable[[], float]
NEVER = 1e9  # seconds


@dataclass(eq=False)
class Actor:
    """A worker as Tune tracks it."""

    name: int
    on_start: Any = None
    on_stop: Any = None
    on_error: Any = None
    actor_id: int = 0
    cpus: int = 1

    def set_on_stop(self, then: Any) -> None:
        self.on_stop = then

    def set_on_error(self, then: Any) -> None:
        self.on_error = then


@dataclass
class Told:
    """What became of the workers."""

    started: list[Actor] = field(default_factory=list)
    up: set[Actor] = field(default_factory=set)
    dropped: list[Actor] = field(default_factory=list)  # while they were starting
    dropped_early: list[Actor] = field(default_factory=list)  # of these, while there were trials to hand out
    lost: int = 0
    idle: float = 0.0  # worker-seconds in which one was up with nothing to do, while there were trials to hand out
    clock: float = 0.0


class Actors:
    """As `RayActorManager`: gives places while there are CPUs, starts workers in them, has them do what they are told.

    `starting` and `epoch` draw how long a start and an epoch take; `lost` whether a worker dies in an epoch; `over`
    tells whether there are no more trials to hand out.
    """

    def __init__(
        self, cpus: int, starting: Seconds, epoch: Seconds, lost: Callable[[], bool], over: Callable[[], bool]
    ) -> None:
        self._free, self._starting, self._epoch, self._lost = cpus, starting, epoch, lost
        self.told, self._over = Told(), over
        self._waiting: list[Actor] = []
        self._live_actors_to_ray_actors_resources: dict[Actor, tuple[object, object]] = {}
        self._failed: set[Actor] = set()
        self._removed: set[Actor] = set()
        self._up_at: dict[Actor, float] = {}
        self._busy: Counter[Actor] = Counter()
        self._come: list[tuple[float, int, Actor, Callable[[], None]]] = []
        self._count = 0

    # --- what Tune asks ---

    @property
    def num_pending_actors(self) -> int:
        return len(self._waiting)

    @property
    def num_live_actors(self) -> int:
        return len(self._live_actors_to_ray_actors_resources)

    @property
    def num_total_actors(self) -> int:
        return self.num_live_actors + self.num_pending_actors

    @property
    def num_actor_tasks(self) -> int:
        return len(self._come)

    def is_actor_started(self, tracked_actor: Actor) -> bool:
        return tracked_actor in self._live_actors_to_ray_actors_resources and tracked_actor not in self._failed

    def is_actor_failed(self, tracked_actor: Actor) -> bool:
        return tracked_actor in self._failed

    def add_actor(self, *, cls: Any, resource_request: Any, kwargs: Any, **then: Any) -> Actor:
        self._count += 1
        actor = Actor(self._count, **then, actor_id=self._count, cpus=int(resource_request.bundles[0]["CPU"]))
        self._waiting.append(actor)
        return actor

    def schedule_actor_task(
        self, tracked_actor: Actor, method_name: str, on_result: Any = None, on_error: Any = None, **more: Any
    ) -> object:
        if method_name == "stop":
            return "stop"
        takes = self._epoch() if method_name == "train" else 0.01
        dies = method_name == "train" and self._lost()
        self._busy[tracked_actor] += 1

        def done() -> None:
            self._busy[tracked_actor] -= 1
            if dies:
                self._fails(tracked_actor, on_error)
            else:
                on_result(tracked_actor, ANSWERS[method_name]())

        self._later(takes, tracked_actor, done)
        return method_name if more.get("_return_future") else None

    def remove_actor(self, tracked_actor: Actor, kill: bool = False, stop_future: object = None) -> bool:
        if tracked_actor in self._failed:
            return False
        if tracked_actor in self._waiting:
            self._waiting.remove(tracked_actor)
            return False
        if tracked_actor not in self.told.up:
            self.told.dropped.append(tracked_actor)
            self.told.dropped_early += [] if self._over() else [tracked_actor]
        self.clear_actor_task_futures(tracked_actor)
        self._removed.add(tracked_actor)
        comes_up = max(0.0, self._up_at[tracked_actor] - self.told.clock)  # only then it hears that it is to stop
        self._later(comes_up + 0.1, tracked_actor, lambda: self._gone(tracked_actor))
        return True

    def clear_actor_task_futures(self, tracked_actor: Actor) -> None:
        self._come = [one for one in self._come if one[2] is not tracked_actor]
        heapq.heapify(self._come)
        self._busy[tracked_actor] = 0

    def cleanup(self) -> None:
        self._come.clear()

    def next(self, timeout: float | None = None) -> bool:
        self._give_places()
        if not self._come or self._come[0][0] >= NEVER:
            return False  # the clock jumps to what comes next, if anything does
        before = self.told.clock
        self.told.clock, _, _, then = heapq.heappop(self._come)
        idle = [one for one in self.told.up if not self._busy[one] and one not in self._removed | self._failed]
        self.told.idle += 0.0 if self._over() else (self.told.clock - before) * len(idle)
        then()
        return True

    # --- what comes of it ---

    def _give_places(self) -> None:
        for actor in list(self._waiting):
            if actor.cpus <= self._free:
                self._free -= actor.cpus
                self._waiting.remove(actor)
                self._live_actors_to_ray_actors_resources[actor] = MagicMock(), None
                self.told.started.append(actor)
                takes = self._starting()
                self._up_at[actor] = self.told.clock + takes
                self._later(takes, actor, lambda actor=actor: self._up(actor))

    def _up(self, actor: Actor) -> None:
        self.told.up.add(actor)
        actor.on_start(actor)

    def _gone(self, actor: Actor) -> None:
        del self._live_actors_to_ray_actors_resources[actor]
        self._free += actor.cpus
        if actor.on_stop:
            actor.on_stop(actor)

    def _fails(self, actor: Actor, on_error: Any) -> None:
        self.told.lost += 1
        self._failed.add(actor)
        del self._live_actors_to_ray_actors_resources[actor]
        self._free += actor.cpus
        lost = RayActorError()
        actor.on_error(actor, lost)
        on_error(actor, lost)

    def _later(self, seconds: float, actor: Actor, then: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._come, (self.told.clock + seconds, self._count, actor, then))


ANSWERS: dict[str, Callable[[], Any]] = {
    "train": lambda: {"done": False},
    "reset": lambda: True,
    "save": lambda: SimpleNamespace(checkpoint=None),
}


class Ends(FIFOScheduler):
    """Ends a trial after its `epochs`; with `pausing` the others get a turn first, as in population-based training."""

    def __init__(self, pausing: bool) -> None:
        super().__init__()
        self._pausing = pausing
        self.done: Counter[str] = Counter()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self.done[trial.trial_id] += 1
        if self.done[trial.trial_id] >= trial.config["epochs"]:
            return TrialScheduler.STOP
        waiting = any(one.status in {Trial.PENDING, Trial.PAUSED} for one in tune_controller.get_trials())
        return TrialScheduler.PAUSE if self._pausing and waiting else TrialScheduler.CONTINUE

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        if not self._pausing:
            return super().choose_trial_to_run(tune_controller)
        waiting = [one for one in tune_controller.get_trials() if one.status in {Trial.PENDING, Trial.PAUSED}]
        return min(waiting, key=lambda one: self.done[one.trial_id], default=None)


class Proposals(SearchAlgorithm):
    """As the bridge: hands out a trial while fewer than `parallel` are live; one that lost its worker comes again."""

    def __init__(self, make: Callable[[int], Trial], trials: int, parallel: int | None) -> None:
        self._make, self._left, self._parallel = make, trials, parallel
        self._live: set[str] = set()
        self._again = 0
        self._finished = False
        self.handed_out: list[str] = []

    def next_trial(self) -> Trial | None:
        if self._parallel is not None and len(self._live) >= self._parallel:
            return None
        if not (self._left or self._again):
            self._finished = not self._live
            return None
        again = self._again > 0
        self._left, self._again = self._left - (not again), self._again - again
        trial = self._make(len(self.handed_out))
        self._live.add(trial.trial_id)
        self.handed_out.append(trial.trial_id)
        return trial

    @property
    def over(self) -> bool:
        """Return whether there is nothing left to hand out."""
        return not (self._left or self._again)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        self._live.discard(trial_id)
        self._again += error

    def is_finished(self) -> bool:
        return self._finished

    def set_finished(self) -> None:
        self._finished = True


class Storage(StorageContext):
    """Keeps what Tune writes about its trials in one folder; Ray's own one is in the session of a Ray."""

    def _get_session_path(self) -> str:
        return str(self.storage_fs_path)


class Starts(Callback):
    """Notes which trials have begun, in that order."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.trial_id not in self.order:
            self.order.append(trial.trial_id)


@dataclass
class Loop:
    """A search in Tune's loop."""

    controller: TuneController
    proposals: Proposals
    actors: Actors
    starts: Starts
    scheduler: Ends

    def run(self, most: int = 20_000) -> Told:
        """Step to the end of the search."""
        for _ in self.steps(most):
            pass
        return self.actors.told

    def steps(self, most: int = 20_000) -> Iterator[None]:
        for _ in range(most):
            if self.controller.is_finished():
                return
            self.controller.step()
            yield
        raise AssertionError(f"no end: {Counter(trial.status for trial in self.controller.get_trials())}")


def loop(
    kind: type[TuneController],
    folder: Path,
    *,
    workers: int,
    trials: int,
    starting: Seconds,
    epoch: Seconds = lambda: 1.0,
    epochs: Callable[[int], int] = lambda _: 1,
    cpus: Callable[[int], int] = lambda _: 1,
    lost: Callable[[], bool] = lambda: False,
    pausing: bool = False,
    stopper: Stopper | None = None,
    others: int = 0,
) -> Loop:
    """Return a search of `trials` trials by `workers` workers; trial i has `epochs(i)` epochs and takes `cpus(i)`.

    There are as many CPUs as workers; `others` of them are taken by somebody else.
    """
    storage = Storage(storage_path=str(folder), experiment_dir_name="x")
    register_trainable("nobody", Trainable, warn=False)

    def make(number: int) -> Trial:
        return Trial(
            "nobody",
            trial_id=f"{number:04}",
            config={"epochs": epochs(number)},
            storage=storage,
            placement_group_factory=PlacementGroupFactory([{"CPU": cpus(number)}]),
        )

    proposals, starts, scheduler = Proposals(make, trials, None if pausing else workers), Starts(), Ends(pausing)
    with environment({"TUNE_MAX_PENDING_TRIALS_PG": str(workers), "TUNE_RESULT_BUFFER_LENGTH": "0"}):
        controller = kind(
            search_alg=proposals,
            scheduler=scheduler,
            stopper=stopper,
            reuse_actors=True,
            storage=storage,
            callbacks=[starts],
        )
    actors = Actors(workers - others, starting, epoch, lost, lambda: proposals.over)
    vars(controller).update(_actor_manager=actors, checkpoint=lambda: None)
    return Loop(controller, proposals, actors, starts, scheduler)
