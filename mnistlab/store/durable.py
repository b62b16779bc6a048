"""The few operations on which the promises of a run directory rest: every writer of one goes through here.

What a disk can refuse, and where a process can die, is then a short list that tests can walk through, as SQLite's tests
fail the n-th operation for every n (https://www.sqlite.org/testing.html). MNISTLAB_CRASH_AT=POINT:N kills the process
with SIGKILL when it passes POINT for the N-th time.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mnistlab.errors import Fault, SpecError, must_be_one_of

T = TypeVar("T")

CRASH_AT = "MNISTLAB_CRASH_AT"
OPERATIONS = ("open", "make-folder", "write", "truncate", "fsync", "replace", "fsync-folder", "remove")
MID_WRITE = "mid-write"  # half of the bytes are written
POINTS = (MID_WRITE, *(f"{when}-{operation}" for operation in OPERATIONS for when in ("before", "after")))

_passed: Counter[str] = Counter()


def reached(point: str) -> None:
    """Note that `point` (one of POINTS) is passed, and die there if MNISTLAB_CRASH_AT says so.

    Raises:
        SpecError: if MNISTLAB_CRASH_AT is not POINT:N: a test that kills nothing would pass.
    """
    if _is_due(point):
        os.kill(os.getpid(), signal.SIGKILL)


def open_file(path: Path, flags: int) -> int:
    """Open a file to write it, made if it is missing; a symbolic link in its place is not followed (ELOOP)."""
    return _between("open", lambda: os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o644))


def make_folder(path: Path) -> None:
    """Make a folder whose parent is there, its name on the disk; one that is there already stays as it is."""
    new = not path.exists()
    _between("make-folder", lambda: path.mkdir(exist_ok=True))
    if new:
        fsync_folder(path.parent)


def write(descriptor: int, data: bytes | memoryview) -> int:
    """Write what the disk takes of `data` in one call; return how many bytes those are."""
    if _is_due(MID_WRITE):
        os.write(descriptor, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return _between("write", lambda: os.write(descriptor, data))


def truncate(descriptor: int, size: int) -> None:
    """Cut a file to `size` bytes."""
    _between("truncate", lambda: os.ftruncate(descriptor, size))


def fsync(descriptor: int) -> None:
    """Return once the file's content is on the disk."""
    _between("fsync", lambda: os.fsync(descriptor))


def replace(source: Path, target: Path) -> None:
    """Put a file in the place of another one of the same file system, at once for every reader."""
    _between("replace", lambda: os.replace(source, target))


def remove(path: Path) -> None:
    """Remove a file; one that is not there is none too many."""
    _between("remove", lambda: path.unlink(missing_ok=True))


def fsync_folder(path: Path) -> None:
    """Return once the folder's list of names is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _between("fsync-folder", lambda: os.fsync(descriptor))
    finally:
        os.close(descriptor)


def _between(operation: str, work: Callable[[], T]) -> T:
    reached(f"before-{operation}")
    done = work()
    reached(f"after-{operation}")
    return done


def _is_due(point: str) -> bool:
    wanted = os.environ.get(CRASH_AT)
    if not wanted:
        return False
    name, _, number = wanted.partition(":")
    if name not in POINTS:
        raise SpecError("the environment", [must_be_one_of(CRASH_AT, name, POINTS)])
    if not (number.isascii() and number.isdigit() and int(number) > 0):
        rule = "must be POINT:N with N counted from 1"
        raise SpecError("the environment", [Fault(CRASH_AT, rule, wanted, f"for example {name}:1")])
    _passed[point] += 1
    return point == name and _passed[point] == int(number)
