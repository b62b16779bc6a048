"""What a trial prints goes to a file, at the level of file descriptors: Python, C libraries and all."""

from __future__ import annotations

import os
import sys
import tempfile

MAX_CHUNK = 256 << 10  # bytes sent to the driver with one report; the driver caps the whole log


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
        """Return what was printed since the last call, cut to `MAX_CHUNK` bytes, and forget it."""
        _flush()
        size = os.fstat(self._file.fileno()).st_size
        data = os.pread(self._file.fileno(), min(size, MAX_CHUNK), 0)
        if size:
            os.ftruncate(self._file.fileno(), 0)
            os.lseek(self._file.fileno(), 0, os.SEEK_SET)
        cut = f"\n[{size - len(data)} more bytes were printed and dropped]\n" if size > len(data) else ""
        return data.decode("utf-8", "backslashreplace") + cut


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
