"""The lock of a run directory: one driver at a time, and who it is. The kernel frees it when the driver dies."""

from __future__ import annotations

import fcntl
import os
import shlex
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from mnistlab.errors import RunDirectoryError
from mnistlab.store import durable
from mnistlab.store.files import open_to_write, refusals_told
from mnistlab.store.layout import LOCK

LOCK_TRIES = 4
_held = set[int]()  # the descriptors of the locks that this process holds


def lock(path: Path) -> int:
    """Take the lock of the run directory `path`, write down who holds it, and return its descriptor for `unlock`.

    Raises:
        RunDirectoryError: if another process holds it; the message names it. And where nothing can be locked.
        RunWriteError: if the disk refuses.
    """
    descriptor = open_to_write(path / LOCK, os.O_RDWR)
    _held.add(descriptor)
    try:
        _lock_now(descriptor)
        with refusals_told(path / LOCK):
            durable.truncate(descriptor, 0)
            since = datetime.now(UTC).isoformat(" ", "seconds").removesuffix("+00:00")
            durable.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since} UTC\n".encode())
    except BlockingIOError:
        name = _name_in(descriptor)
        unlock(descriptor)
        watch = f"mnistlab watch {shlex.quote(str(path))}"
        raise RunDirectoryError(f"{path} is in use by {name}; to see what it does: {watch}") from None
    except OSError as error:
        unlock(descriptor)
        why = f"{path / LOCK} can't be locked: {error.strerror}"
        raise RunDirectoryError(f"{why}; a run needs a file system on which `flock` works") from None
    except BaseException:
        unlock(descriptor)
        raise
    return descriptor


def unlock(descriptor: int) -> None:
    """Let go of a lock; in a process that was forked from the one which holds it, there is none to let go of."""
    if descriptor in _held:
        _held.discard(descriptor)
        os.close(descriptor)


def _let_go() -> None:
    """Leave the locks to the parent: a process that a plugin has forked may outlive the driver."""
    for descriptor in tuple(_held):
        unlock(descriptor)


os.register_at_fork(after_in_child=_let_go)


def is_running(run: Path) -> bool:
    """Return whether a driver holds the run directory's lock."""
    return bool(holder(run))


def holder(run: Path) -> str:
    """Return who holds the run directory's lock (`process 17 on host since 2026-11-28 21:30:00 UTC`), or ""."""
    try:
        descriptor = os.open(run / LOCK, os.O_RDONLY)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _name_in(descriptor)
    except OSError:  # nothing can be locked there, so nobody has
        return ""
    finally:
        os.close(descriptor)
    return ""


def _name_in(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"


def _lock_now(descriptor: int) -> None:
    """Lock a file; who only looks whether it is locked (`holder`) holds it for a moment."""
    for _ in range(LOCK_TRIES - 1):
        with suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.05)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
