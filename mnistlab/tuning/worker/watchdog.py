"""Ends a worker in which nothing moves any more, with the stacks of all its threads in the trial's log.

The clock is faulthandler's own thread, which needs no interpreter lock: it also ends a plugin that loops in C, waits
for a lock for ever, or ignores signals. Ray has nothing of the kind (ray#47475).
"""

from __future__ import annotations

import faulthandler
import re
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from statistics import median

from mnistlab.training.causes import TimeLimitError

STALL_SECONDS = 60.0  # without a step, at least, before a worker is taken to hang
MEDIAN_STEPS = 10  # or so many of the usual steps, whichever is longer
REMEMBERED = 101  # of the last steps; the median of these is the usual one
# Where a plugin has printed the beginning of a line, as progress bars do, it follows on that.
_DUMPED = re.compile(r"Timeout \(\d+:\d\d:\d\d(\.\d+)?\)!\n(Current t|T)hread 0x")


class Watch:
    """Watches the steps of one trial after another; all times are in seconds."""

    def __init__(self, file: int | None, stall: float = STALL_SECONDS, also: Callable[[], None] = lambda: None) -> None:
        """Write stacks to the descriptor `file`; allow at least `stall` seconds for a step. `also` is called at each.

        Without a file nothing is ended: it is the driver's own process.
        """
        self._file, self._stall, self._also = file, stall, also
        self._steps: deque[float] = deque(maxlen=REMEMBERED)
        self._limit = self._ends = float("inf")
        self._last = self._due = 0.0
        self._watching = False

    def begin(self, limit: float | None, spent: float = 0.0) -> None:
        """Watch another trial, which may take `limit` seconds (None: any), and has spent some of them already."""
        self._steps.clear()
        self._limit = float("inf") if limit is None else limit
        self._ends = time.monotonic() + self._limit - spent

    @contextmanager
    def over(self) -> Generator[None]:
        """Watch what is done meanwhile; between two such times nothing is expected to move."""
        self._last, self._watching = time.monotonic(), True
        self._arm(self._last)
        try:
            yield
        finally:
            self._watching = False
            if self._file is not None:
                faulthandler.cancel_dump_traceback_later()

    def step(self) -> None:
        """Note that a step has ended; outside `over` that means nothing.

        Raises:
            TimeLimitError: if the trial has had its time.
        """
        self._also()
        if not self._watching:
            return
        now = time.monotonic()
        self._steps.append(now - self._last)
        self._last = now
        if now >= self._ends:
            raise TimeLimitError(f"the trial has had the {self._limit:g} s that it may take")
        if now >= self._due:
            self._arm(now)

    def _arm(self, now: float) -> None:
        """Set the clock again, if there is one.

        Not at each step: it costs a thread, and a limit that is a little late does no harm.
        """
        if self._file is None:
            return
        allowed = max(self._stall, MEDIAN_STEPS * median(self._steps)) if self._steps else self._stall
        self._due = now + min(1.0, allowed / 10)
        # A trial whose time is up in the middle of a step is given as long as a step usually takes to say so itself.
        left = self._ends + allowed / 10 - now
        faulthandler.dump_traceback_later(max(0.01, min(allowed, left)), exit=True, file=self._file)


def was_ended(log: str) -> bool:
    """Return whether the log that a lost worker has left says that its watch ended it."""
    return _DUMPED.search(log) is not None
