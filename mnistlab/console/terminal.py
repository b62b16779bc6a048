"""The terminal that a stream leads to: its size, who is in front of it, and how it is left when a signal comes.

A view that draws takes three things away from a terminal: the cursor, the echo of keys, which would be drawn into the
frame, and in whole-screen mode what stood there. All of it is given back before this process ends, whatever ends it
(SIGKILL excepted), and before it is stopped by Ctrl-Z.
"""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import TextIO

from mnistlab.errors import ExitCode

_GONE = (OSError, ValueError, termios.error)  # not a terminal, hung up, or closed
_LOCAL_MODES = 3  # where termios keeps ECHO


def size_of(stream: TextIO) -> tuple[int, int]:
    """Return columns and lines of the stream's own terminal, which need not be that of standard input."""
    try:
        width, height = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        width, height = 0, 0
    return width or 80, height or 24


def in_front(stream: TextIO) -> bool:
    """Return whether this process may draw: false for a job of a shell that is in the background.

    A terminal that does not control this process has no foreground to ask for; there the answer is yes.
    """
    try:
        return os.tcgetpgrp(stream.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return True


def set_echo(stream: TextIO, on: bool) -> bool:
    """Have the terminal show what is typed, or not, and return whether it did before; Ctrl-C works either way."""
    with suppress(*_GONE):
        modes = termios.tcgetattr(stream.fileno())
        before = bool(modes[_LOCAL_MODES] & termios.ECHO)
        if before != on:
            modes[_LOCAL_MODES] ^= termios.ECHO
            termios.tcsetattr(stream.fileno(), termios.TCSANOW, modes)
        return before
    return False


def never_stop_for_output() -> None:
    """Let the calling thread write on its terminal even if the process has gone into the background this moment."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})


Handler = Callable[[int, FrameType | None], None]


@contextmanager
def left_in_order(aside: Callable[[], AbstractContextManager[None]]) -> Generator[None]:
    """Have signals that end or stop this process do so in a way that leaves its terminal in order.

    SIGTERM and SIGHUP raise SystemExit(143), so that every `finally` on the way out is executed. Ctrl-Z stops the
    process inside `aside()`, which gives the terminal back for that while. A signal that is ignored (`nohup`) or that
    has a handler already is left alone, and so are all of them outside the main thread.
    """
    ours: dict[signal.Signals, Handler] = {
        signal.SIGTERM: _leave,
        signal.SIGHUP: _leave,
        signal.SIGTSTP: _stopper(aside),
    }
    if threading.current_thread() is not threading.main_thread():
        ours = {}
    taken = {number: ours[number] for number in ours if signal.getsignal(number) == signal.SIG_DFL}
    for number, handler in taken.items():
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(int(ExitCode.TERMINATED))


def _stopper(aside: Callable[[], AbstractContextManager[None]]) -> Handler:
    def stop(number: int, _frame: FrameType | None) -> None:
        with aside():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)  # here the process sleeps until the shell wakes it
            signal.signal(number, stop)

    return stop
