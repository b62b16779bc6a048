"""The terminal belongs to the console: whatever else writes while a search runs goes into a file.

Ray, workers, C libraries, warnings and plugins in the driver write to descriptors 1 and 2, or to Python's own streams;
both lead to `driver.log` until the guard ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mnistlab.errors import RunWriteError


@dataclass(frozen=True)
class Streams:
    """Standard output and error as they were before the guard."""

    out: TextIO
    err: TextIO


@contextmanager
def guarded(log: Path) -> Generator[Streams]:
    """Yield the streams that lead to the user; everything that is written elsewhere is appended to `log`.

    A log in which nothing was written is removed.

    Raises:
        RunWriteError: if `log` can't be opened.
    """
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        with suppress(OSError, ValueError):
            stream.flush()
    saved = [_duplicate(number) for number in (1, 2)]
    mine = [_leading_to(stream, number, copy) for stream, number, copy in zip(streams, (1, 2), saved, strict=True)]
    descriptor = _open(log)
    try:
        _lead((1, 2), (descriptor, descriptor))
        chatter = open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        with chatter, redirect_stdout(chatter), redirect_stderr(chatter):
            yield Streams(*mine)
    finally:
        _lead((1, 2), saved)
        for own, stream in zip(mine, streams, strict=True):
            if own is not stream:
                with suppress(OSError, ValueError):
                    own.close()
        for copy in saved:
            if copy is not None:
                os.close(copy)
        if not os.fstat(descriptor).st_size:
            log.unlink(missing_ok=True)
        os.close(descriptor)


def _open(log: Path) -> int:
    try:
        return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise RunWriteError(f"can't write {log}: {error.strerror}") from error


def _duplicate(number: int) -> int | None:
    """Return a copy of a descriptor that no child process inherits, or None where it is closed."""
    try:
        return os.dup(number)
    except OSError:
        return None


def _leading_to(stream: TextIO, number: int, copy: int | None) -> TextIO:
    """Return a stream of its own where `stream` writes to the descriptor that is about to be redirected."""
    try:
        if copy is None or stream.fileno() != number:
            return stream
    except (OSError, ValueError, AttributeError):  # a stream in memory: redirecting descriptors does not touch it
        return stream
    return open(copy, "w", encoding=stream.encoding, errors=stream.errors, buffering=1, closefd=False)


def _lead(numbers: Sequence[int], to: Sequence[int | None]) -> None:
    for number, descriptor in zip(numbers, to, strict=True):
        if descriptor is not None:
            os.dup2(descriptor, number)
