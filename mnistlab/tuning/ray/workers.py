"""Ray Tune's loop with two changes, so that all workers that were promised are there and stay.

**A worker that is starting is kept.** When a trial ends, Tune (2.60) hands its worker to the trial that has waited
longest. If that trial's own worker is still starting, Tune drops it and starts another one for the next trial. A worker
takes seconds to start. Where trials are shorter than that, the next trial ends first and the new worker is dropped too:
one worker trains everything, beside others that never come up. Here a free worker takes a trial that has no worker yet.
It takes the trial of a starting worker only when no other trial is left: at the end of a search, or where that worker
hangs.

**A trial that needs a larger place gets it.** After it ran out of memory, a trial waits for a whole device. Tune ends
each worker that gets free for it, and gives the place to a new worker for the next trial of the usual size. Here no
such worker is started while a larger trial waits. If none of our workers is in its way and it still gets no place,
because other jobs of a cluster have it, the search continues without it.

Names that are private in Ray Tune are used in this module alone; tests/tuning/ray/test_workers.py lists them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import ray
from ray.tune import tune as ray_tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from mnistlab.tuning.ray.start_worker import VARIABLE

PATIENCE_SECONDS = 30.0  # for a larger place, once all workers are out of its way


class KeepingController(TuneController):
    """A `TuneController` that drops no starting worker while there is another trial to hand out."""

    _left_out: frozenset[Trial] = frozenset()  # the trials that get no worker at present
    _out_of_the_way: float | None = None  # since when a larger trial waits with no worker of ours in its way
    _given_up: frozenset[Trial] = frozenset()  # trials for which others wait no more

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Take what Tune gives its controller."""
        super().__init__(*arguments, **named)
        if VARIABLE in os.environ:
            self._class_cache = _Plain()

    def _maybe_add_actors(self) -> None:
        """Hand free workers to trials without one; what is left then takes over the trials of starting workers."""
        behind, placed = self._behind_larger_ones(), {one for one in self._pending_trials if self._has_place(one)}
        self._hand_out(behind | placed)
        if self._actor_cache.num_cached_objects:
            self._hand_out(behind | {one for one in placed if not self._is_starting(one)})

    def _hand_out(self, left_out: frozenset[Trial]) -> None:
        listed: list[Trial] = self._pending_trials_list
        self._pending_trials_list = [one for one in listed if one not in left_out]
        self._left_out = left_out
        try:
            super()._maybe_add_actors()
        finally:
            self._left_out = frozenset()
            self._pending_trials_list = [one for one in listed if one in left_out] + self._pending_trials_list

    def get_trials(self) -> list[Trial]:
        """Return all trials; while the scheduler chooses one to run, those among which it may choose."""
        return [one for one in super().get_trials() if one not in self._left_out]

    def _maybe_reuse_cached_actor(self, trial: Trial) -> bool:
        """Hand a free worker to a trial, unless the trial is left out."""
        return trial not in self._left_out and bool(super()._maybe_reuse_cached_actor(trial))

    def __getstate__(self) -> dict[str, Any]:
        """Return what Tune writes into its snapshot: nothing that this class adds to it."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name not in vars(KeepingController)}

    def _is_starting(self, trial: Trial) -> bool:
        """Return whether the process of a trial that has one is not up yet."""
        return self._trial_to_actor[trial] not in self._started_actors

    def _has_place(self, trial: Trial) -> bool:
        """Return whether a process was started for a trial, or a free one was given to it."""
        actor: Any = self._trial_to_actor.get(trial)
        return actor is not None and self._actor_manager.is_actor_started(actor)

    def _behind_larger_ones(self) -> frozenset[Trial]:
        """Return the trials without a worker that need less than one that waits for a place."""
        without = [one for one in (*self._pending_trials, *self._paused_trials) if one not in self._trial_to_actor]
        waiting = [one for one in self._staged_trials - self._given_up if not self._has_place(one)]
        larger = {one for one in waiting if any(_is_larger(one, other) for other in without)}
        if self._lasts_too_long(bool(larger)):
            self._given_up |= larger
            return frozenset()
        return frozenset(one for one in without if any(_is_larger(other, one) for other in larger))

    def _lasts_too_long(self, waiting: bool) -> bool:
        """Return whether larger trials have waited for long with no worker of this search in their way."""
        if not waiting or self._actor_manager.num_live_actors:
            self._out_of_the_way = None
            return False
        self._out_of_the_way = self._out_of_the_way or time.monotonic()
        return time.monotonic() - self._out_of_the_way > PATIENCE_SECONDS


class _Plain:
    """Makes actors of classes as Tune does, but leaves a worker's environment as it is.

    Tune would set some of its variables for each worker anew, so that it could use no worker that is ready. In a
    private Ray, workers have the environment of this process.
    """

    def __init__(self) -> None:
        self.made: dict[type[Any], Any] = {}

    def get(self, trainable_cls: type[Any]) -> Any:
        """Return the class as an actor's."""
        if trainable_cls not in self.made:
            self.made[trainable_cls] = ray.remote(trainable_cls)
        return self.made[trainable_cls]


def _is_larger(one: Trial, other: Trial) -> bool:
    """Return whether a trial needs more of anything than another one."""
    needs, has = _resources(one), _resources(other)
    return any(amount > has.get(name, 0.0) for name, amount in needs.items())


def _resources(trial: Trial) -> dict[str, float]:
    factory: Any = trial.placement_group_factory
    return factory.required_resources


@contextmanager
def workers_kept() -> Generator[None]:
    """Have Tune carry out its searches by a `KeepingController`; it has no parameter for that."""
    tune: Any = ray_tune
    before, tune.TuneController = tune.TuneController, KeepingController
    try:
        yield
    finally:
        tune.TuneController = before
