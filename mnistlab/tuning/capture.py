"""What a trial prints goes to a file, at the level of file descriptors: Python, C libraries and all."""

from __future__ import annotations

import os
import sys
import tempfile

MAX_CHUNK = 256 << 10  # bytes sent to the driver with one report, an even number; the driver caps the whole log


class Capture:
    """Standard output and error of this process, held in an unnamed temporary file from `start` on."""

    def __init__(self) -> None:
        """Open the file; nothing is redirected yet."""
        self._file = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115 - lives as long as the worker
        self._read = 0

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
        text = self._text(0, size) if size <= MAX_CHUNK else self._ends(size)
        if size:
            os.ftruncate(self._file.fileno(), 0)
            os.lseek(self._file.fileno(), 0, os.SEEK_SET)
        return text

    def _ends(self, size: int) -> str:
        half = MAX_CHUNK // 2
        cut = f"\n[{size - 2 * half} bytes that were printed here were dropped]\n"
        return self._text(0, half) + cut + self._text(size - half, half)

    def _text(self, start: int, size: int) -> str:
        return os.pread(self._file.fileno(), size, start).decode("utf-8", "backslashreplace")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
