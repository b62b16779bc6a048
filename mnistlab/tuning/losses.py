"""What becomes of a trial whose worker is gone: why it is, and whether another worker goes on with the trial.

By cause, as Determined's log policies do: what the machine did is tried again, what the plan did is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ray.exceptions import OutOfMemoryError, RayTaskError

from mnistlab.tuning.watch import was_ended
from mnistlab.tuning.worker import NoRoomError

Cause = Literal["worker", "memory", "hang", "timeout"]

AGAIN: Mapping[Cause, int] = {"worker": 3, "memory": 1}  # how often a trial is gone on with; after other causes, never
_RAY_ON_MEMORY = ("OOM", "out of memory", "memory pressure", "running low on memory")


@dataclass(frozen=True)
class Loss:
    """Why a trial has no worker any more; `message` says it in words."""

    cause: Cause
    message: str


def loss_of(error: object, log: str, seconds: float, limit: float | None) -> Loss:
    """Return why a worker is gone, from Ray's error, the log that it left, the trial's seconds and what it may take."""
    if was_ended(log):
        if limit is not None and seconds >= limit:
            return Loss("timeout", f"the trial has had the {limit:g} s that it may take, and answered no more")
        return Loss("hang", "nothing moved any more: the stacks of its threads are in its log")
    original = error.as_instanceof_cause() if isinstance(error, RayTaskError) else error
    if isinstance(original, NoRoomError):
        return Loss("memory", next((str(part) for part in original.args), "out of memory"))
    text = " ".join(str(error or "").split())[:500] or "its process ended without a word"
    if isinstance(original, OutOfMemoryError) or any(words in text for words in _RAY_ON_MEMORY):
        return Loss("memory", f"worker lost: {text}")
    return Loss("worker", f"worker lost: {text}")


class Retries:
    """Counts how often each trial was gone on with, by cause."""

    def __init__(self, *, more_room: bool) -> None:
        """Go on after a lack of memory only where there is `more_room` for a trial than it has at first."""
        self._more_room = more_room
        self._taken: Counter[tuple[str, Cause]] = Counter()

    def takes(self, trial: str, cause: Cause) -> bool:
        """Return whether a trial is to be gone on with, and count that."""
        if cause == "memory" and not self._more_room:
            return False
        self._taken[trial, cause] += 1
        return self._taken[trial, cause] <= AGAIN.get(cause, 0)
