"""What becomes of a trial whose worker is gone: why it is, and whether another worker goes on with the trial.

By cause, as Determined's log policies do: what the machine did is tried again, what the plan did is not. The table of
causes is `mnistlab.training.causes`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from mnistlab.training.causes import cause_named
from mnistlab.tuning.ray.nodes import Nodes
from mnistlab.tuning.worker.leaving import LastWords, last_words
from mnistlab.tuning.worker.trial import NoRoomError
from mnistlab.tuning.worker.watchdog import was_ended

BROKEN_FOR = 3  # trials in a row: then a device is broken, whatever the plans
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
    """Why a trial has no worker any more; `message` says it in words.

    `words` are what the worker itself said last; None where it could say nothing.
    """

    cause: str
    message: str
    words: LastWords | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Leftover:
    """What is left of a worker: what Ray says of its end, and what it had printed and not yet reported."""

    error: str = ""
    log: str = ""


def loss_of(left: Leftover, seconds: float, limit: float | None) -> Loss:
    """Return why a worker is gone, given how many seconds its trial has taken and how many it may take."""
    if (words := last_words(left.log)) is not None:
        return Loss(words.cause, words.message, words)
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
    printed = left.log if loss.words is None else left.log.rstrip().rpartition("\n")[0]
    return "\n".join(filter(None, (printed, loss.message, left.error.rstrip()))) + "\n"


class Retries:
    """Decides whether a trial goes on that has lost its worker, by the cause; counts how often each has."""

    def __init__(self, *, more_room: bool, nodes: Nodes | None = None) -> None:
        """Go on after a lack of memory only where there is `more_room` for a trial than it has at first."""
        self._more_room, self._nodes = more_room, nodes or Nodes()
        self._taken: Counter[tuple[str, str]] = Counter()
        self._broke: dict[str, set[str]] = {}  # by trial: where it lost the device
        self._works: dict[str, set[str]] = {}  # by trial: where of these another trial has trained since
        self._idle: dict[str, set[str]] = {}  # by place: which trials lost the device there since one last trained

    def takes(self, trial: str, loss: Loss) -> bool:
        """Return whether a trial is to be gone on with, and count that.

        What its node lacked is not counted: the node gets no more trials. A node is closed, too, once three trials lost
        the same device there, with none trained in between.
        """
        cause, words = cause_named(loss.cause), loss.words
        if cause.word == "absent":
            return words is not None and self._nodes.sends_on(trial, words)
        if cause.owner == "node" and words is not None:
            self._nodes.shut(words)
            return True
        if cause.owner == "device" and words is not None:
            self._nodes.avoid(trial, words)
            self._broke.setdefault(trial, set()).add(words.place)
            self._idle.setdefault(words.place, set()).add(trial)
            if len(self._idle[words.place]) >= BROKEN_FOR:
                self._nodes.shut(words)
                return True
        if cause.word == "memory" and not (self._more_room and self._nodes.have_room()):
            return False
        self._taken[trial, cause.word] += 1
        return self._taken[trial, cause.word] <= cause.again

    def trained(self, trial: str, place: str) -> None:
        """Note that a trial has trained an epoch at `place`: device and node are in order there."""
        self._nodes.trained(trial)
        self._idle.pop(place, None)
        for other, broke in self._broke.items():
            if other != trial and place in broke:
                self._works.setdefault(other, set()).add(place)

    def verdict(self, trial: str, loss: Loss) -> Loss:
        """Return why a trial has failed that is not gone on with.

        It is the plan's fault if more than one node lacks what it looks for, or if it broke a device in every attempt,
        each in a new process, while other trials trained on the same devices.
        """
        if loss.cause == "absent":
            return Loss("plugin", loss.message, loss.words)
        broke = self._broke.get(trial, set())
        if loss.cause == "device" and broke and broke <= self._works.get(trial, set()):
            count = self._taken[trial, "device"]
            said = f"the device broke in each of {count} new processes, while other trials trained on it"
            return Loss("plugin", f"{said}: {loss.message}", loss.words)
        return loss
