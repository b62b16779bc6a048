"""The terminal belongs to the console: whatever else writes while a search runs goes into a file.

Ray, workers, C libraries, warnings and plugins in the driver write to descriptors 1 and 2, or to Python's own streams;
both lead to `driver.log` until the guard ends.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mnistlab.console.text import encodable, visible
from mnistlab.errors import RunWriteError

OUT_AND_ERR = (1, 2)


@dataclass(frozen=True)
class Streams:
    """Standard output and error as they were before the guard."""

    out: TextIO
    err: TextIO


def open_what_is_closed() -> None:
    """Lead a standard stream that this process was started without (`2>&-`) to nowhere.

    Otherwise its descriptor would be the next file that is opened, and what a library prints would be written into it.
    """
    for number in (0, *OUT_AND_ERR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()


@contextmanager
def guarded(log: Path) -> Generator[Streams]:
    """Yield the streams that lead to the user; everything that is written elsewhere is appended to `log`.

    A log in which nothing was written is removed.

    Raises:
        RunWriteError: if `log` can't be opened.
    """
    open_what_is_closed()
    descriptor = _open(log)
    try:
        with _led_to(descriptor) as streams:
            yield streams
    finally:
        if not os.fstat(descriptor).st_size:
            log.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def held_back() -> Generator[Callable[[], bytes]]:
    """Keep what anybody writes from the terminal; yield what returns it afterwards, for the log of the run.

    It is written to standard error after all where an exception ends the context, because it may tell why.
    """
    open_what_is_closed()
    with tempfile.TemporaryFile(buffering=0) as file:
        said = b""

        def take() -> bytes:
            return said

        try:
            with _led_to(file.fileno()):
                yield take
        except BaseException:
            _say(_content(file.fileno()))
            raise
        said = _content(file.fileno())


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _say(text: bytes) -> None:
    with suppress(OSError, ValueError):
        for line in text.decode("utf-8", "backslashreplace").splitlines():
            sys.stderr.write(encodable(visible(line), sys.stderr.encoding) + "\n")


@contextmanager
def _led_to(descriptor: int) -> Generator[Streams]:
    """Lead descriptors 1 and 2 and Python's streams to `descriptor`; yield what leads to where they led before."""
    streams = (sys.stdout, sys.stderr)
    _flush(streams)
    saved = [os.dup(number) for number in OUT_AND_ERR]  # no child process inherits these
    mine = [_leading_to(stream, number, copy) for stream, number, copy in zip(streams, OUT_AND_ERR, saved, strict=True)]
    chatter = open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    try:
        _lead(OUT_AND_ERR, (descriptor, descriptor))
        with chatter, redirect_stdout(chatter), redirect_stderr(chatter):
            yield Streams(*mine)
    finally:
        _flush(streams)  # whoever kept one of them, or writes in C, has written to the descriptor that is ours still
        _lead(OUT_AND_ERR, saved)
        _close([own for own, stream in zip(mine, streams, strict=True) if own is not stream], saved)


def _flush(streams: Iterable[TextIO]) -> None:
    """Have everything written that Python or C holds back in this process."""
    for stream in streams:
        with suppress(OSError, ValueError):
            stream.flush()
    with suppress(OSError, AttributeError, ValueError):  # a C library that has no such name
        library = ctypes.CDLL(None)
        library.fflush(ctypes.c_void_p.in_dll(library, "stdout"))  # not all of them: someone may wait in another one


def _open(log: Path) -> int:
    try:
        return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise RunWriteError(f"can't write {log}: {error.strerror}") from error


def _leading_to(stream: TextIO, number: int, copy: int) -> TextIO:
    """Return a stream of its own where `stream` writes to the descriptor that is about to be redirected."""
    try:
        if stream.fileno() != number:
            return stream
    except (OSError, ValueError, AttributeError):  # a stream in memory: redirecting descriptors does not touch it
        return stream
    return open(copy, "w", encoding=stream.encoding, errors=stream.errors, buffering=1, closefd=False)


def _lead(numbers: Sequence[int], to: Sequence[int]) -> None:
    for number, descriptor in zip(numbers, to, strict=True):
        os.dup2(descriptor, number)


def _close(streams: Iterable[TextIO], descriptors: Iterable[int]) -> None:
    for stream in streams:
        with suppress(OSError, ValueError):
            stream.close()
    for descriptor in descriptors:
        os.close(descriptor)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
