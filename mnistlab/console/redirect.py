"""The terminal belongs to the console: whatever else writes while a search runs goes into a file.

Ray, workers, C libraries, warnings and plugins in the driver write to descriptors 1 and 2, or to Python's own streams;
both lead to `driver.log` until the guard ends.
"""

from __future__ import annotations

import ctypes
import inspect
import io
import os
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO, cast

from mnistlab.store import open_to_write
from mnistlab.util.text import encodable, visible

Name = Literal["stdout", "stderr"]

# Ray sets it in each process that it has been in, and the children of that inherit it; it answers in workers alone.
_RAYS_DEBUGGER = "ray.util.rpdb."
DESCRIPTORS: dict[Name, int] = {"stdout": 1, "stderr": 2}


@dataclass(frozen=True)
class Streams:
    """Standard output and error as they were before the guard."""

    out: TextIO
    err: TextIO


def open_what_is_closed() -> None:
    """Lead a standard stream that this process was started without (`2>&-`) to nowhere.

    Otherwise its descriptor would be the next file that is opened, and what a library prints would be written into it.
    """
    for number in (0, *DESCRIPTORS.values()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    for name in DESCRIPTORS:
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the process lives


@contextmanager
def guarded(log: Path, *, terminal: bool = True) -> Generator[Streams]:
    """Yield the streams that lead to the user; everything that is written elsewhere is appended to `log`.

    At a `terminal` a breakpoint speaks with the user too; a notebook has a debugger of its own. A log in which nothing
    was written is removed.

    Raises:
        RunWriteError: if `log` can't be opened.
        RunDirectoryError: if it is a symbolic link.
    """
    open_what_is_closed()
    descriptor = _open(log)
    try:
        with _led_to(descriptor) as streams, _debugger_at(streams) if terminal else nullcontext():
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


def _open(log: Path) -> int:
    return open_to_write(log, os.O_WRONLY | os.O_APPEND)


# --- redirection --------------------------------------------------------------------------------------------------


@contextmanager
def _led_to(descriptor: int) -> Generator[Streams]:
    """Lead descriptors 1 and 2 and Python's streams to `descriptor`; yield what leads to where they led before."""
    with ExitStack() as stack:
        yield Streams(*(stack.enter_context(_one_led_to(descriptor, name)) for name in DESCRIPTORS))


@contextmanager
def _debugger_at(streams: Streams) -> Generator[None]:
    """Have `breakpoint()` speak with the user, where nobody has chosen another debugger."""
    chosen = os.environ.get("PYTHONBREAKPOINT", "")
    if sys.breakpointhook is not sys.__breakpointhook__ or (chosen and not chosen.startswith(_RAYS_DEBUGGER)):
        yield
        return

    def stop_here(*_: object, **__: object) -> None:
        frame = inspect.currentframe()
        debugger_at(streams).set_trace(frame.f_back if frame else None)

    sys.breakpointhook = stop_here
    try:
        yield
    finally:
        sys.breakpointhook = sys.__breakpointhook__


def debugger_at(streams: Streams) -> Any:
    """Return a debugger that speaks with the user; who quits it ends the run, as who insists on leaving."""
    import pdb  # noqa: PLC0415 - nearly nobody needs it
    from bdb import BdbQuit  # noqa: PLC0415

    class Debugger(pdb.Pdb):
        def trace_dispatch(self, frame: Any, event: str, arg: Any) -> Any:
            try:
                return super().trace_dispatch(frame, event, arg)
            except BdbQuit:  # an Exception, which would be taken for the plan's
                raise KeyboardInterrupt from None

    return Debugger(stdin=sys.stdin, stdout=streams.err, nosigint=True)


@contextmanager
def _one_led_to(descriptor: int, name: Name) -> Generator[TextIO]:
    number, stream = DESCRIPTORS[name], cast("TextIO", getattr(sys, name))
    _flush(stream)
    copy = os.dup(number)  # no child process inherits it
    try:
        os.dup2(descriptor, number)
        if _number_of(stream) == number:
            with _copied(stream, copy) as own, _prompt(stream):
                yield own
        else:  # a stream in memory, say: redirecting descriptors does not touch it
            with _replaced(name, descriptor):
                yield stream
    finally:
        _flush(stream)  # whoever kept it, or writes in C, has written to the descriptor that is ours still
        os.dup2(copy, number)
        os.close(copy)


def _number_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _flush(stream: TextIO) -> None:
    """Have everything written that Python and C hold back in this process."""
    with suppress(OSError, ValueError):
        stream.flush()
    with suppress(OSError, AttributeError, ValueError):  # a C library that has no such name
        library = ctypes.CDLL(None)
        library.fflush(ctypes.c_void_p.in_dll(library, "stdout"))  # not all of them: someone may wait in another one


@contextmanager
def _copied(stream: TextIO, descriptor: int) -> Generator[TextIO]:
    """Yield a stream like `stream` that leads to `descriptor`; at its end nobody may be there any more to read it."""
    own = open(descriptor, "w", encoding=stream.encoding, errors=stream.errors, buffering=1, closefd=False)  # noqa: SIM115
    try:
        yield own
    finally:
        with suppress(OSError, ValueError):
            own.close()


@contextmanager
def _prompt(stream: TextIO) -> Generator[None]:
    """Have `stream` write every line at once, and take every character: it leads into a log."""
    if not isinstance(stream, io.TextIOWrapper):
        yield
        return
    by_line, errors = stream.line_buffering, stream.errors
    stream.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            stream.reconfigure(line_buffering=by_line, errors=errors)


@contextmanager
def _replaced(name: Name, descriptor: int) -> Generator[None]:
    """Put a stream that leads to `descriptor` in the place of `sys.stdout` or `sys.stderr`."""
    before = getattr(sys, name)
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False) as file:
        setattr(sys, name, _Stand(name, file))
        try:
            yield
        finally:
            setattr(sys, name, before)


class _Stand(io.TextIOBase):
    """Stands in for a stream of `sys`. Whoever keeps it, as loggers do, writes later to what stands there then."""

    def __init__(self, name: Name, file: TextIO) -> None:
        self._name: Name = name
        self._file = file

    def write(self, s: str) -> int:
        return self._now().write(s)

    def flush(self) -> None:
        self._now().flush()

    def _now(self) -> TextIO:
        now: TextIO = getattr(sys, self._name)
        return self._file if now is cast("object", self) else now
