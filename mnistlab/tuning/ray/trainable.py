"""A worker process of Ray Tune's: it seals the test set, captures what is printed, and trains trials as a `Worker`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray import tune

from mnistlab.tuning.worker.forks import keep_from_children
from mnistlab.tuning.worker.leftovers import place_of
from mnistlab.tuning.worker.output import Capture
from mnistlab.tuning.worker.trial import Shared, Worker, watch_of
from mnistlab.util.seal import seal_for_good

CHECKPOINT = "state.safetensors"


class PlanTrainable(tune.Trainable):
    """One trial: each `step` is an epoch. `config["task"]` is a worker's task.

    `config["state"]`, if there, refers to the packed state from which a trial goes on that an earlier worker has begun.
    """

    def setup(self, config: dict[str, Any], shared: Shared | None = None) -> None:
        """Begin the first trial of this process."""
        assert shared is not None
        seal_for_good()
        keep_from_children()
        self._capture = Capture(place_of(self.trial_id))
        self._capture.start()
        self._worker = Worker(shared, self._capture, watch_of(shared, self._capture.descriptor))
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process."""
        self._capture.rename(place_of(self.trial_id))
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        get: Any = ray.get
        state = config.get("state")
        self._worker.begin(config["task"], None if state is None else lambda: get(state))

    def cleanup(self) -> None:
        """Leave nothing behind."""
        self._capture.remove()

    def step(self) -> dict[str, Any]:
        """Train one epoch and report (see `Worker.step`)."""
        return self._worker.step()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the training's state, for a trial that is paused or copied."""
        packed = self._worker.pack()
        if packed is None:
            return
        try:
            (Path(checkpoint_dir) / CHECKPOINT).write_bytes(packed)
        except OSError as error:
            self._worker.refused(error)
            raise

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a state, perhaps another trial's."""
        path = Path(str(checkpoint)) / CHECKPOINT
        if path.exists():
            self._worker.take_over(path.read_bytes())
