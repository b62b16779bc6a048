"""Frames on a terminal: painted over each other by a thread of their own, at most a few times a second.

A frame goes out in one write between the marks of a synchronized update (DEC mode 2026; terminals that don't know it
ignore it), so that none is seen half drawn. What was drawn is never left behind: the frame is erased at the end, and
the summary takes its place.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

from rich.console import Console
from rich.text import Text

from mnistlab.console.eta import SteadyEstimate
from mnistlab.console.frame import frame
from mnistlab.console.look import Look
from mnistlab.console.signs import Signs, signs_for
from mnistlab.console.state import ViewState, advance
from mnistlab.events import Stamped, StatusAsked

INTERVAL = 0.5  # seconds between two frames
SHARE = 0.01  # of one core that drawing may cost on average: an expensive frame is followed by a longer pause

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
ENTER, LEAVE = "\x1b[?1049h\x1b[H", "\x1b[?1049l"
ERASE_LINE, ERASE_BELOW = "\x1b[2K", "\x1b[J"


def size_of(stream: TextIO) -> tuple[int, int]:
    """Return columns and lines of the stream's own terminal, which need not be that of standard input."""
    try:
        width, height = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        width, height = 0, 0
    return width or 80, height or 24


class Painter:
    """Paints lists of lines on a terminal, each over the one before."""

    def __init__(self, stream: TextIO, *, color: bool = True, whole_screen: bool = False) -> None:
        """Paint on `stream`; on the whole screen, or below what stands there already."""
        self._stream, self._whole = stream, whole_screen
        self._console = Console(
            file=stream,
            force_terminal=True,
            color_system="standard" if color else None,
            no_color=not color,
            legacy_windows=False,
            markup=False,
            emoji=False,
            highlight=False,
        )
        self._drawn: list[Text] = []

    def begin(self) -> None:
        """Take the terminal."""
        self._write((ENTER if self._whole else "") + HIDE)

    def paint(self, lines: Sequence[Text], width: int, height: int) -> None:
        """Draw `lines`, none of them wider than `width`, over what was drawn before."""
        body = "\r\n".join(ERASE_LINE + self._ansi(line) for line in lines)
        self._write(BEGIN + self._home(width, height) + body + ERASE_BELOW + END)
        self._drawn = list(lines)

    def say(self, lines: Sequence[Text], width: int, height: int) -> None:
        """Leave `lines` above what is drawn."""
        frame, text = self._drawn, "".join(self._ansi(line) + "\r\n" for line in lines)
        self._write(self._home(width, height) + ERASE_BELOW + text)
        self._drawn = []
        self.paint(frame, width, height)

    def end(self, width: int, height: int) -> None:
        """Give the terminal back as it was: nothing drawn, the cursor visible."""
        self._write(self._home(width, height) + ERASE_BELOW + SHOW + (LEAVE if self._whole else ""))
        self._drawn = []

    def _home(self, width: int, height: int) -> str:
        """Return what moves the cursor to where the last frame began.

        A terminal that has become narrower has wrapped the old lines, so they are counted as it shows them now.
        """
        if self._whole:
            return "\x1b[H"
        rows = sum(max(1, -(-line.cell_len // width)) for line in self._drawn)
        up = min(rows, height) - 1
        return "\r" + (f"\x1b[{up}A" if up > 0 else "")

    def _ansi(self, line: Text) -> str:
        return "".join(
            segment.style.render(segment.text, color_system=self._console._color_system)  # pyright: ignore[reportPrivateUsage]
            if segment.style
            else segment.text
            for segment in line.render(self._console)
        )

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Screen:
    """The dashboard of a run, live: events come in from any thread, frames go out from this one's own."""

    def __init__(self, painter: Painter, stream: TextIO, clock: Callable[[], float], hint: str) -> None:
        """Draw with `painter` for the size of `stream`; `clock` counts seconds from anywhere."""
        self._painter, self._stream, self._clock, self._hint = painter, stream, clock, hint
        self._signs: Signs = signs_for(getattr(stream, "encoding", None))
        self._waiting: deque[tuple[Stamped, float]] = deque()
        self._state, self._offset, self._eta = ViewState(), -clock(), SteadyEstimate()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="mnistlab-screen", daemon=True)

    def handle(self, stamped: Stamped) -> None:
        """Take an event. This is all that the search waits for: folding and drawing are the thread's."""
        self._waiting.append((stamped, self._clock()))

    def begin(self) -> None:
        """Take the terminal and start drawing."""
        self._painter.begin()
        self._thread.start()

    def end(self) -> ViewState:
        """Stop drawing, give the terminal back and return the last state."""
        self._over.set()
        self._thread.join()
        with suppress(OSError, ValueError):  # the terminal may have gone
            self._painter.end(*size_of(self._stream))
        self._fold()
        return self._state

    def _draw(self) -> None:
        before: tuple[list[str], int, int] | None = None
        pause = 0.0
        while not self._over.wait(pause):
            started = time.thread_time()
            try:
                asked = self._fold()
                width, height = size_of(self._stream)
                now = max(self._state.t, self._clock() + self._offset)
                look = Look(width, height, self._signs, self._hint)
                lines = frame(self._state, now, look, self._eta.at(self._state, now))
                if asked:
                    self._painter.say(self._status(now), width, height)
                seen = [line.plain for line in lines], width, height
                if seen != before:
                    self._painter.paint(lines, width, height)
                    before = seen
            except (OSError, ValueError):  # the terminal has gone; the search goes on
                return
            pause = max(INTERVAL, (time.thread_time() - started) / SHARE)

    def _fold(self) -> bool:
        """Take in the events that have come; return whether someone has asked for the status."""
        asked = False
        while self._waiting:
            stamped, came = self._waiting.popleft()
            self._state, self._offset = advance(self._state, stamped), stamped.t - came
            asked = asked or isinstance(stamped.event, StatusAsked)
        return asked

    def _status(self, now: float) -> list[Text]:
        look = Look(size_of(self._stream)[0], 200, self._signs, "")
        return frame(self._state, now, look, self._eta.at(self._state, now))
