"""How a worker ends that can't train any more, and how the driver learns why: by the last words in its log.

After a failure that is not the plan's, the process is of no more use: its device is broken, or its node lacks
something. Ray would give it the next trial or task. So it writes one line into its log and ends itself.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import NoReturn

import ray
import torch

from mnistlab.training.causes import cause_named, cause_of, is_absence
from mnistlab.util.text import error_text, unbroken

MARK = "mnistlab: this worker ends itself: "
EXIT_CODE = 1
LOG = 2  # the descriptor of standard error, which `capture` leads into the log


@dataclass(frozen=True)
class LastWords:
    """Why a worker has ended itself: the cause, the same in words, and where it ran (see `place_here`)."""

    cause: str
    message: str
    place: str = ""

    @property
    def node(self) -> str:
        """Return the id of its node."""
        return self.place.partition("/")[0]

    @property
    def device(self) -> str:
        """Return the numbers of its GPUs."""
        return self.place.partition("/")[2]


class LackError(Exception):
    """What all plans need could not be had: `cause` is the word for why."""

    def __init__(self, cause: str, message: str) -> None:
        """Keep the cause and say it in words."""
        super().__init__(message)
        self.cause = cause


@contextmanager
def lacking(cause: str) -> Generator[None]:
    """Take whatever is raised inside for a lack of the node's: it happens before any plan's code runs.

    Raises:
        LackError: with `cause`, unless the error has a cause of its own, such as a full disk.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        found = cause_of(error)
        raise LackError(cause if found == "plugin" else found, one_line(error)) from error


def judged(error: BaseException, *, more_nodes: bool = False, begun: bool = False) -> str:
    """Return the word for why a training failed in this process.

    With `more_nodes`, a file or a module that a plan's code did not find is `absent`, to be looked for on another one;
    not once the training has `begun`, because then it was there.
    """
    if isinstance(error, LackError):
        return "device" if device_is_lost() else error.cause
    word = "device" if device_is_lost() else cause_of(error)
    return "absent" if word == "plugin" and more_nodes and not begun and is_absence(error) else word


def device_is_lost() -> bool:
    """Return whether this process has a CUDA context that does no work any more.

    After some errors every call fails, whatever raised first; only a try can tell. A try for which there is no memory
    says nothing.
    """
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
        return float(torch.ones(1, device="cuda").add_(1)) != 2.0
    except Exception as error:  # noqa: BLE001, RUF100 - a lost device may raise anything
        return cause_of(error) != "memory"


class LeftError(Exception):
    """A training in the driver's own process can't go on, by no fault of its plan. Its text are the last words."""


def leave_unless_the_plans(error: BaseException, cause: str, *, here: bool = False) -> None:
    """End this worker if `cause` is not the plan's fault: the process, or `here`, in the driver's own, the training.

    Raises:
        LeftError: if `here`.
    """
    if cause_named(cause).owner == "plan":
        return
    if here:
        raise LeftError(_in_a_line(cause, one_line(error))) from error
    leave(cause, one_line(error))


def _in_a_line(cause: str, message: str) -> str:
    return f"{MARK}{json.dumps(asdict(LastWords(cause, message, place_here())))}"


def leave(cause: str, message: str) -> NoReturn:
    """Write why into the log, then end this process."""
    words = f"\n{_in_a_line(cause, message)}\n".encode()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    try:
        os.write(LOG, words)
    except OSError:  # the disk of the log is full: what the log holds makes room for why
        with suppress(OSError):
            os.ftruncate(LOG, 0)
            os.lseek(LOG, 0, os.SEEK_SET)
            os.write(LOG, words)
    os._exit(EXIT_CODE)


def say_in_log(error: BaseException) -> None:
    """Print an error's traceback into the log, if its disk takes it."""
    with suppress(OSError):
        traceback.print_exception(error)


def place_here() -> str:
    """Return where this process runs: the id of its node, a slash, and the GPUs that Ray lets it see."""
    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
    return f"{node}/{os.environ.get('CUDA_VISIBLE_DEVICES', '')}"


def last_words(log: str) -> LastWords | None:
    """Return why a worker has ended itself, as the end of its log says; None where it says nothing."""
    last = log.rstrip().rpartition("\n")[2]
    if not last.startswith(MARK):
        return None
    try:
        return LastWords(**json.loads(last.removeprefix(MARK)))
    except (ValueError, TypeError):  # a plugin may print anything
        return None


def one_line(error: BaseException) -> str:
    """Return an error with its kind, on one line of at most 500 characters."""
    return (unbroken(str(error)) if isinstance(error, LackError) else error_text(error))[:500]
