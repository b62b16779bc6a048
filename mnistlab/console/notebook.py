"""The dashboard in a notebook: one output, updated in place at most once a second.

Updates go to the front end by the kernel's own channel, not by standard output, so the guard of the terminal does not
touch them: what Ray and its like write ends in the log here too.
"""

from __future__ import annotations

import contextvars
import secrets
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mnistlab.console.dashboard.eta import SteadyEstimate
from mnistlab.console.html import dashboard
from mnistlab.console.redirect import guarded
from mnistlab.console.state import ViewState, advance
from mnistlab.events import Stamped

INTERVAL = 1.0  # seconds between two updates, at least
GLANCE = 0.1  # seconds between two looks at whether one is due

Show = Callable[[str, bool], None]
"""What shows HTML: as a new output or, if the second argument is True, in the place of what it has shown before."""


def notebook_output() -> Show | None:
    """Return what shows HTML in the cell that is running, or None where this process is no notebook's kernel.

    IPython is asked only where it is loaded: elsewhere nobody needs to have it.
    """
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is None:
        return None
    name = f"mnistlab-{secrets.token_hex(8)}"

    def show(html: str, update: bool) -> None:
        data = {"text/html": html, "text/plain": "the dashboard of a search, as HTML"}
        shell.display_pub.publish(data, transient={"display_id": name}, update=update)

    return show


@contextmanager
def open_notebook(show: Show, log: Path) -> Generator[Callable[[Stamped], None]]:
    """Yield what is to be called with every event, and keep everything else that is written out of the notebook.

    The last state stays. What is written meanwhile to standard output and error is appended to `log`.
    """
    view = HtmlView(show, time.monotonic)
    with guarded(log, terminal=False), view.drawing():
        yield view.handle


class HtmlView:
    """The dashboard of a run as an output of a notebook: events come in from any thread, a thread of its own shows."""

    def __init__(self, show: Show, clock: Callable[[], float]) -> None:
        """Show with `show`; `clock` counts seconds from anywhere."""
        self._show, self._clock = show, clock
        self._waiting: deque[tuple[Stamped, float]] = deque()
        self._state, self._offset, self._eta = ViewState(), -clock(), SteadyEstimate()
        self._shown, self._due, self._broken = "", clock(), False
        self._over = threading.Event()

    def handle(self, stamped: Stamped) -> None:
        """Take an event. This is all that the search waits for: folding and drawing are the thread's."""
        self._waiting.append((stamped, self._clock()))

    @contextmanager
    def drawing(self) -> Generator[None]:
        """Show what there is, update it for a while, and leave the last state at the end."""
        # The thread must know which cell it draws for, and a kernel keeps that in the context.
        run = contextvars.copy_context().run
        thread = threading.Thread(target=run, args=(self._draw,), name="mnistlab-notebook", daemon=True)
        self.turn()
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            self.update()

    def _draw(self) -> None:
        while not self._over.wait(GLANCE):
            self.turn()

    def turn(self) -> None:
        """Update the output if that is due."""
        if self._clock() >= self._due:
            self.update()

    def update(self) -> None:
        """Take in the events that have come, and show the dashboard if it has changed."""
        if self._broken:
            return
        self._due = self._clock() + INTERVAL
        try:
            html = self._drawn()
            if html != self._shown:
                self._show(html, bool(self._shown))
                self._shown = html
        except Exception:  # no view is worth a search, and a front end may be gone for good
            self._broken = True
            traceback.print_exc()  # into the log, where the guard leads

    def _drawn(self) -> str:
        while self._waiting:
            stamped, came = self._waiting.popleft()
            self._state, self._offset = advance(self._state, stamped), stamped.t - came
        now = max(self._state.t, self._clock() + self._offset)
        return dashboard(self._state, now, self._eta.at(self._state, now))
