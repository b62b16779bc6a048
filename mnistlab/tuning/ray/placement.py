"""Whether Ray still gives anybody a place: one lost call between its parts can leave a reservation half made, for ever.

Tune waits for such a one without end, with all of the machine free (seen with `RAY_testing_rpc_failure` and the calls
that prepare and commit bundles, Ray 2.60).
"""

from __future__ import annotations

import time
from typing import Any

import ray
from ray._private import worker as ray_worker
from ray.tune import Callback
from ray.tune.experiment import Trial

from mnistlab.tuning.ray.heartbeat import ClusterLostError, disarm
from mnistlab.tuning.tune_compat import Unsaved

# On a private Ray a place takes milliseconds. What a worker needs to start comes later, and takes as long as it takes.
PLACE_SECONDS = 30.0
LOOK_SECONDS = 2.0
LOOKS = 8


class Places(Unsaved, Callback):
    """Ends a search in which trials wait, none runs, and Ray has given none a place, though nobody else has one.

    On a cluster that was joined others may have them, and more nodes may come: there a search waits as long as it must.
    """

    def __init__(self, again: str) -> None:
        """Begin to look at the first turn of Tune's loop; `again` is the command that goes on with the run."""
        self._again = again
        self._since: float | None = None  # when it was seen first that nobody has a place
        self._seen = 0  # and how often since: the clock alone goes on while a driver is stopped (Ctrl-Z)
        self._next = 0.0

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:  # noqa: ARG002 - Tune's signature
        """Look, from time to time.

        Raises:
            ClusterLostError: if nobody has had a place for `PLACE_SECONDS`.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        states = {trial.status for trial in trials}
        if Trial.PENDING not in states or Trial.RUNNING in states or not _nobody_has_a_place():
            self._since, self._seen = None, 0
            return
        self._since, self._seen = self._since or now, self._seen + 1
        if now - self._since >= PLACE_SECONDS and self._seen >= LOOKS:
            disarm()
            found_none = f"Ray has found no place for a worker for {PLACE_SECONDS:.0f} s, with nothing running"
            raise ClusterLostError(found_none, self._again)


def _nobody_has_a_place() -> bool:
    """Return whether this process has a Ray of its own, of which places were asked for and none was made."""
    node: Any = vars(ray_worker)["_global_node"]
    if node is None or not node.is_head():
        return False
    states = {str(one["state"]) for one in ray.util.placement_group_table().values()}
    return "CREATED" not in states and bool(states - {"REMOVED"})
