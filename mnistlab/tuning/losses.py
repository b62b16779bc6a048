"""What becomes of a trial whose worker is gone: why it is, and whether another worker goes on with the trial.

By cause, as Determined's log policies do: what the machine did is tried again, what the plan did is not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mnistlab.tuning.watch import was_ended
from mnistlab.tuning.worker import NoRoomError

Cause = Literal["worker", "memory", "hang", "timeout"]

AGAIN: Mapping[Cause, int] = {"worker": 3, "memory": 1}  # how often a trial is gone on with; after other causes, never
_NO_ROOM = re.compile(rf"\b{NoRoomError.__name__}: (.*)")
# Of its monitor. That the kernel's own may have been it, Ray says of any process that is gone.
_RAY_ON_MEMORY = "running low on memory"


@dataclass(frozen=True)
class Loss:
    """Why a trial has no worker any more; `message` says it in words."""

    cause: Cause
    message: str


@dataclass(frozen=True)
class Leftover:
    """What is left of a worker: what Ray says of its end, and what it had printed and not yet reported."""

    error: str = ""
    log: str = ""


def loss_of(left: Leftover, seconds: float, limit: float | None) -> Loss:
    """Return why a worker is gone, given how many seconds its trial has taken and how many it may take."""
    if was_ended(left.log):
        if limit is not None and seconds >= limit:
            return Loss("timeout", f"the trial has had the {limit:g} s that it may take, and answered no more")
        return Loss("hang", "nothing moved any more: the stacks of its threads are in its log")
    if (found := _NO_ROOM.search(left.error)) is not None:
        return Loss("memory", found[1])
    text = " ".join(left.error.split())[:500] or "its process ended without a word"
    return Loss("memory" if _RAY_ON_MEMORY in left.error else "worker", f"worker lost: {text}")


def log_of(left: Leftover, loss: Loss) -> str:
    """Return what a trial's log keeps of a lost worker: what that had printed, and all that Ray says of its end."""
    return "\n".join(filter(None, (left.log, loss.message, left.error.rstrip()))) + "\n"


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
