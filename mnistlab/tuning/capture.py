"""What a trial prints goes to a file, at the level of file descriptors: Python, C libraries and all."""

from __future__ import annotations

import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

_NONDETERMINISTIC = re.compile(r"(?s).*deterministic", re.IGNORECASE)
_show = warnings.showwarning
MAX_CHUNK = 256 << 10  # bytes sent to the driver with one report, an even number; the driver caps the whole log


class Capture:
    """Standard output and error of this process, held in a file from `start` on.

    The file has the name that was last given to it, so that what a process has left that died can be found.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, which only this user can read; nothing is redirected yet."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(path, flags, 0o600), "w+b", buffering=0)

    @property
    def descriptor(self) -> int:
        """Return the file's descriptor."""
        return self._file.fileno()

    def rename(self, path: Path) -> None:
        """Give the file another name."""
        self._path = self._path.rename(path)

    def remove(self) -> None:
        """Take the file's name away; what is printed from now on goes nowhere once the process has ended."""
        self._path.unlink(missing_ok=True)

    def start(self) -> None:
        """Redirect descriptors 1 and 2 into the file."""
        _flush()
        for descriptor in (1, 2):
            os.dup2(self._file.fileno(), descriptor)

    def take(self) -> str:
        """Return what was printed since the last call and forget it.

        Of more than `MAX_CHUNK` bytes only the two ends are kept: a traceback, which comes last, survives any chatter.
        """
        _flush()
        size = os.fstat(self._file.fileno()).st_size
        text = ends_of(self.descriptor)
        if size:
            os.ftruncate(self._file.fileno(), 0)
            os.lseek(self._file.fileno(), 0, os.SEEK_SET)
        return text


def hear_nondeterminism() -> None:
    """Print torch's warnings of operations without a deterministic form, each once from now on; no others.

    Workers ignore warnings (see `cluster`): libraries have hundreds for their own developers. These are the user's:
    what they name may give other numbers at the next training.
    """
    torch.set_warn_always(True)  # else some come once in a process, which has many trials
    warnings.filterwarnings("always", message=_NONDETERMINISTIC.pattern, category=UserWarning)
    told = set[str]()

    def show(message: Warning | str, *others: Any, **named: Any) -> None:
        # Python's own memory of what it has told is gone whenever a library changes the filters for a while.
        text = str(message)
        if text not in told:
            _show(message, *others, **named)
        if _NONDETERMINISTIC.match(text):
            told.add(text)

    warnings.showwarning = show


def ends_of(file: int) -> str:
    """Return what stands in the file of a descriptor; of more than `MAX_CHUNK` bytes the two ends."""
    size, half = os.fstat(file).st_size, MAX_CHUNK // 2
    if size <= MAX_CHUNK:
        return _text(file, 0, size)
    cut = f"\n[{size - 2 * half} bytes that were printed here were dropped]\n"
    return _text(file, 0, half) + cut + _text(file, size - half, half)


def _text(file: int, start: int, size: int) -> str:
    return os.pread(file, size, start).decode("utf-8", "backslashreplace")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
