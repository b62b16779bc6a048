"""Ray Tune's loop with one change: a worker that is starting is kept for the trial that it starts for.

When a trial ends, Tune (2.60) hands its worker to the trial that has waited longest. If that trial's own worker is
still starting, Tune drops it and starts another one for the next trial. A worker takes seconds to start. Where trials
are shorter than that, the next trial ends first and the new worker is dropped too: one worker does everything, and the
cores that were promised to the others load torch again and again.

Here a free worker takes a trial that has no worker yet. It takes the trial of a starting worker only when no other
trial is left: at the end of a search, or where that worker hangs.

Names that are private in Ray Tune are used in this module alone; tests/tuning/test_workers.py lists them.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from ray.tune import tune as ray_tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial


class KeepingController(TuneController):
    """A `TuneController` that does not drop a worker that is starting while there is another trial to hand out."""

    _keeping = False  # whether trials whose workers are starting are left to those workers

    def _maybe_add_actors(self) -> None:
        """Hand free workers to trials without one; what is left then takes over the trials of starting workers."""
        self._keeping = True
        try:
            super()._maybe_add_actors()
        finally:
            self._keeping = False
        if self._actor_cache.num_cached_objects:
            super()._maybe_add_actors()

    def get_trials(self) -> list[Trial]:
        """Return all trials; where the scheduler chooses one for a free worker, without those that must not get it."""
        trials: list[Trial] = super().get_trials()
        return [one for one in trials if not self._is_starting(one)] if self._keeping else trials

    def _maybe_reuse_cached_actor(self, trial: Trial) -> bool:
        """Hand a free worker to a trial, except where its own one is starting."""
        if self._keeping and self._is_starting(trial):
            return False
        return bool(super()._maybe_reuse_cached_actor(trial))

    def _is_starting(self, trial: Trial) -> bool:
        """Return whether a process was started for a trial and is not up yet. Waiting for a place does not count."""
        actor: Any = self._trial_to_actor.get(trial)
        return actor is not None and actor not in self._started_actors and self._actor_manager.is_actor_started(actor)


@contextmanager
def starting_workers_kept() -> Generator[None]:
    """Have Tune run its searches by a `KeepingController`; it has no parameter that says so."""
    tune: Any = ray_tune
    before, tune.TuneController = tune.TuneController, KeepingController
    try:
        yield
    finally:
        tune.TuneController = before
