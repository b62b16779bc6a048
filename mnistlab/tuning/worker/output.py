"""What a trial prints goes to a file, at the level of file descriptors: Python, C libraries and all."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

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
        self._before: list[int] = []  # where descriptors 1 and 2 led
        self._streams = sys.stdout, sys.stderr
        self._own: TextIO | None = None  # stands for streams of `sys` that lead elsewhere, as a notebook's do

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
        with suppress(OSError, ValueError, AttributeError):  # whoever reads them may have gone
            _flush()
        for descriptor in (1, 2):
            os.dup2(self._file.fileno(), descriptor)

    @contextmanager
    def on(self) -> Generator[None]:
        """Redirect descriptors 1 and 2, and Python's streams wherever they lead, into the file for a while."""
        self._before = [os.dup(descriptor) for descriptor in (1, 2)]
        self._streams = sys.stdout, sys.stderr
        self.start()
        self._stand_in()
        try:
            yield
        finally:
            self._undo()
            for copy in self._before:
                os.close(copy)
            self._before = []

    @contextmanager
    def off(self) -> Generator[None]:
        """Have all of them lead to where they led before, for a while within `on`."""
        inside = sys.stdout, sys.stderr
        self._undo()
        try:
            yield
        finally:
            self.start()
            sys.stdout, sys.stderr = inside

    def _stand_in(self) -> None:
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            if _descriptor_of(getattr(sys, name)) != descriptor:
                self._own = self._own or open(  # noqa: SIM115 - closed with the file
                    self.descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
                )
                setattr(sys, name, self._own)

    def _undo(self) -> None:
        with suppress(OSError, ValueError, AttributeError):  # a plugin may have closed a stream, or filled the disk
            _flush()
        for descriptor, copy in zip((1, 2), self._before, strict=True):
            os.dup2(copy, descriptor)
        sys.stdout, sys.stderr = self._streams

    def close(self) -> None:
        """Close the file."""
        if self._own:
            self._own.close()
        self._file.close()

    def take(self) -> str:
        """Return what was printed since the last call and forget it.

        Of more than `MAX_CHUNK` bytes only the two ends are kept: a traceback, which comes last, survives any chatter.
        """
        with suppress(OSError, ValueError, AttributeError):
            _flush()
        size = os.fstat(self._file.fileno()).st_size
        text = ends_of(self.descriptor)
        if size:
            os.ftruncate(self._file.fileno(), 0)
            os.lseek(self._file.fileno(), 0, os.SEEK_SET)
        return text


class NotCaptured:
    """Stands for a capture where somebody else has one."""

    def take(self) -> str:
        """Return nothing."""
        return ""

    def remove(self) -> None:
        """Do nothing."""


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


def _descriptor_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
