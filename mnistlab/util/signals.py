"""What the signals that this process gets ask of a run: to stop, to stop at once, or to say where it stands."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from types import FrameType

TERM_SECONDS = 10.0  # a batch system that ends a job kills it soon after it has asked


ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOST = signal.SIGUSR2  # what a run needs is gone: it breaks off, and waits for nothing


class Requests:
    """What signals have asked of the run: to stop (the first asks, the second insists), or to say where it stands."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.signal: signal.Signals | None = None
        self.begun = False  # whether a trial has been started: until then there is nothing to wait for
        self.over = False  # whether the run has ended: from then on there is nothing to stop
        self.told = False  # whether the user has been told that the request was heard
        self.status = False
        self._process = os.getpid()

    def __call__(self) -> bool:
        """Return whether to stop."""
        return self.signal is not None

    def reason(self) -> str:
        """Return in words who asked to stop: `Ctrl-C`, or the name of another signal; "" where nobody has."""
        if self.signal is None:
            return ""
        return "Ctrl-C" if self.signal == signal.SIGINT else self.signal.name

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal that ends the run; all but Ctrl-C set a limit to how long that may take.

        Raises:
            KeyboardInterrupt: at the second one, and at the first where no trial has begun and so nothing can be saved.
        """
        if os.getpid() != self._process:  # a process that a plugin has forked: it is nobody's driver
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if self.over:
            return
        insists, self.signal = self.signal is not None, self.signal or signal.Signals(number)
        if not insists and number != signal.SIGINT:
            signal.setitimer(signal.ITIMER_REAL, TERM_SECONDS)
        if insists or not self.begun:
            raise KeyboardInterrupt

    def insist(self, _number: int, _frame: FrameType | None) -> None:
        """End the run at once: the time is up."""
        if not self.over:
            raise KeyboardInterrupt

    def ask_status(self, _number: int, _frame: FrameType | None) -> None:
        """Have the run say where it stands, at the next turn of its loop."""
        self.status = True

    def claim(self) -> Mapping[signal.Signals, object]:
        """Have this process's signals sent here, and return who had them. Only the main thread may: others get none.

        A signal that is ignored stays ignored: that is what `nohup` is for.
        """
        if threading.current_thread() is not threading.main_thread():
            return {}
        ends = [number for number in ENDS if signal.getsignal(number) != signal.SIG_IGN]
        handlers = {**dict.fromkeys(ends, self.receive), signal.SIGALRM: self.insist, signal.SIGUSR1: self.ask_status}
        return {number: signal.signal(number, handler) for number, handler in handlers.items()}


_early: list[int] = []  # what `hear_early` has heard


def hear_early() -> None:
    """Note each Ctrl-C until a run begins: a library that is imported may catch what it raises."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        _early.append(number)
        raise KeyboardInterrupt

    _early.clear()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


@contextmanager
def signals_as(requests: Requests) -> Generator[None]:
    """Send the signals that this process gets to `requests` for a while.

    Raises:
        KeyboardInterrupt: if one of them came before, and was lost.
    """
    if _early:
        raise KeyboardInterrupt
    before = requests.claim()
    try:
        yield
    finally:
        if before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType] - what `signal.signal` itself gave


@contextmanager
def signals_held() -> Generator[Callable[[], None]]:
    """Let the signals that end a run wait until this context is left.

    Yields what is to be called again and again where somebody else may take them meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    came: list[int] = []
    had = {number: signal.getsignal(number) for number in (*ENDS, signal.SIGALRM, LOST)}
    before = {number: handler for number, handler in had.items() if handler != signal.SIG_IGN}

    def hold() -> None:
        for number in before:
            signal.signal(number, lambda number, _frame: came.append(number))

    hold()
    try:
        yield hold
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
