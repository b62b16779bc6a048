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
_RAY_UNREACHED = "is temporarily unavailable"
# What the texts of ray.exceptions and of the raylet say (ray 2.60), wherever that stands in a traceback.
_RAY_ON_PROCESS = re.compile(r"The (actor|worker) died unexpectedly")
_NODE_GONE = re.compile(r"node has died|node it was running on is dead|Owner's node has crashed")
_PID = re.compile(r"^\s*pid: (\d+)$", re.MULTILINE)
_NODE = re.compile(r"(?:^\s*ip: |IP: )([0-9A-Fa-f.:]*[0-9A-Fa-f])", re.MULTILINE)
_EXIT_CODE = re.compile(r"Worker exits with an exit code (-?\d+)")
_MEMORY_USED = re.compile(r"was (\S+ used / \S+) limit")
_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b")  # the last line of a traceback


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
    return Loss("memory" if _RAY_ON_MEMORY in left.error else "worker", f"worker lost: {_in_words(left.error)}")


def _in_words(error: str) -> str:
    """Return in a plain sentence what Ray's long text about a lost worker says, and nothing that it only supposes.

    Its "common causes" are the same whatever it was; it knows of no signals.
    """
    pid, node, code = (_found(pattern, error) for pattern in (_PID, _NODE, _EXIT_CODE))
    process = (f"process {pid}" if pid else "its process") + (f" on node {node}" if node else "")
    if _RAY_ON_MEMORY in error:
        used = _found(_MEMORY_USED, error)
        return f"Ray ended {process}, whose memory was nearly full{f' ({used})' if used else ''}"
    if _NODE_GONE.search(error):
        return f"its node {node} is gone" if node else "its node is gone"
    raised = [line for line in error.splitlines() if _RAISED.match(line) and not line.startswith("ray.exceptions.")]
    if raised and not _RAY_ON_PROCESS.search(error):
        return raised[-1][:300]
    return f"{process} {_end_in_words(error, code)}"


def _end_in_words(error: str, code: str) -> str:
    if code:
        return f"ended with exit code {code}"
    if "ray.kill" in error:
        return "was ended by Ray"
    return "can't be reached any more" if _RAY_UNREACHED in error else "ended without a word"


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


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
