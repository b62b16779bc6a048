"""Ray's own folder, which goes with its search. What a driver has left that was killed goes with the next search."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from mnistlab.errors import ResourceError

# 107 bytes for a socket's path, less "/mnistlab-XXXXXXXX/r", Ray's session and "/sockets/plasma_store".
LONGEST_BASE = 22
PREFIX = "mnistlab-"
LOCK = "driver.lock"  # held as long as the driver lives: the kernel lets go of it then, however it dies


@contextmanager
def private_folder() -> Generator[Path]:
    """Yield a new folder that only this user can read, where Ray's sockets fit into 107 bytes; then remove it.

    Raises:
        ResourceError: if there is no place for one.
    """
    base = _base()
    _sweep(base)
    folder, descriptor = _locked_folder(base)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _locked_folder(base: Path) -> tuple[Path, int]:
    """Make a folder and lock it. Another search may take it for abandoned before it is locked: then make another."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        descriptor = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return folder, descriptor
        os.close(descriptor)


def in_use(folder: Path) -> Iterator[psutil.Process]:
    """Yield the processes of which the command line names something in `folder`."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(str(folder) in word for word in process.cmdline()):
                yield process


def _base() -> Path:
    for base in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes a folder of its own in it
        if len(base) <= LONGEST_BASE and os.access(base, os.W_OK):
            return Path(base)
    rule = f"Ray needs a temporary folder whose path has at most {LONGEST_BASE} characters"
    raise ResourceError(f"{rule}, but TMPDIR is {tempfile.gettempdir()} and /tmp can't be written")


def _sweep(base: Path) -> None:
    """Remove this user's folders of which the driver is gone, and all that it had started."""
    for folder in base.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.lstat().st_uid == os.getuid():
                _remove_if_abandoned(folder)


def _remove_if_abandoned(folder: Path) -> None:
    """Remove a folder of which nobody holds the lock; one without a lock is somebody else's, or just being made."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not any(in_use(folder)):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
