"""The plain view: a line an event and, while no event has one, a sign of life within each minute."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import reduce

from mnistlab.console.plain import heartbeat, line
from mnistlab.console.state import ViewState, advance
from mnistlab.events import Stamped
from mnistlab.util.text import seconds_text, visible

SILENCE = 55.0  # seconds; the heartbeats of a search, which its events bring, come a little earlier
GLANCE = 1.0  # seconds between two looks at whether one is due

Say = Callable[[str | None], None]


class Lines:
    """Says what happens, line by line. Events and the clock come from different threads."""

    def __init__(self, say: Say, clock: Callable[[], float], past: Iterable[Stamped] = ()) -> None:
        """Hand each line to `say`; nothing of the `past` is said again. `clock` counts seconds from anywhere."""
        self._say, self._clock = say, clock
        self._state = reduce(advance, past, ViewState())
        self._said = self._came = clock()
        self._lock, self._over = threading.Lock(), threading.Event()

    def handle(self, stamped: Stamped) -> None:
        """Say the line of an event, if it has one."""
        with self._lock:
            self._came = self._clock()
            try:
                self._state = advance(self._state, stamped)
            except Exception as fault:  # a fault in a view must not reach the search
                self._tell(unspeakable(stamped, fault))
            else:
                self._tell(in_words(stamped, self._state))

    def turn(self) -> None:
        """Give a sign of life where nothing has been said for nearly a minute and the run is not over."""
        with self._lock:
            now = self._clock()
            if now - self._said < SILENCE or self._state.phase == "over":
                return
            doing = heartbeat(self._state) if self._state.start else f"still {self._state.step or 'starting'}"
            self._tell(visible(f"[{seconds_text(self._state.t + now - self._came):>6}] {doing}"))

    @contextmanager
    def beating(self) -> Generator[None]:
        """Look now and then whether a sign of life is due."""
        thread = threading.Thread(target=self._beat, name="mnistlab-lines", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(2 * GLANCE)  # a pipe that nobody reads may hold it

    def _beat(self) -> None:
        while not self._over.wait(GLANCE):
            self.turn()

    def _tell(self, text: str | None) -> None:
        if text is not None:
            self._said = self._clock()
            self._say(text)


def in_words(stamped: Stamped, state: ViewState) -> str | None:
    """Return the line of an event, or what is wrong with the view that should make it."""
    try:
        return line(stamped, state)
    except Exception as fault:  # whatever it is
        return unspeakable(stamped, fault)


def unspeakable(stamped: Stamped, fault: Exception) -> str:
    """Return in a line that an event could not be shown."""
    return visible(f"mnistlab: event {stamped.seq} can't be put into words ({type(fault).__name__}: {fault})")
