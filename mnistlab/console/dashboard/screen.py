"""Frames on a terminal: painted over each other by a thread of their own, at most a few times a second.

A frame goes out in one write between the marks of a synchronized update (DEC mode 2026; terminals that don't know it
ignore it), so that none is seen half drawn. After each one the cursor goes back to the frame's first line and waits
there. When the size of the terminal changes, some terminals cut the lines that have become too long and others wrap
them, but in all of them the cursor stays with its line: erasing from there on erases the old frame and nothing else.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TextIO

from rich.console import Console
from rich.text import Text

from mnistlab.console.dashboard.eta import SteadyEstimate
from mnistlab.console.dashboard.frame import frame
from mnistlab.console.dashboard.glyphs import Signs, signs_for
from mnistlab.console.dashboard.viewport import Look
from mnistlab.console.state import ViewState, advance
from mnistlab.console.terminal import in_front, never_stop_for_output, set_echo, size_of
from mnistlab.events import Stamped, StatusAsked
from mnistlab.util.text import encodable, visible

INTERVAL = 0.5  # seconds between two frames
LONGEST = 2.0  # seconds; a longer pause in a storm of events would only leave more of them for the next frame
SHARE = 0.01  # of one core that drawing may cost on average: an expensive frame is followed by a longer pause
PATIENCE = 1.0  # seconds that someone who insists on leaving waits for the terminal to be put in order

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"
ENTER, LEAVE = "\x1b[?1049h\x1b[H", "\x1b[?1049l"
CROP, WRAP = "\x1b[?7l", "\x1b[?7h"  # the terminal may have become narrower since it was asked for its width
ERASE_LINE, ERASE_BELOW = "\x1b[2K", "\x1b[J"
# What gives the terminal back wherever the drawing was broken off, by view.
GIVE_BACK = {"live": f"{END}{WRAP}\r{ERASE_BELOW}{SHOW}", "full": f"{END}{WRAP}{SHOW}{LEAVE}"}


class TerminalGoneError(Exception):
    """The terminal was closed, or its line hung up: nothing can be shown there any more."""


class Painter:
    """Paints lists of lines on a terminal, each over the one before.

    What writes raises TerminalGoneError where there is nothing to write on any more.
    """

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
        self._taken = self._echo = False
        self._drawn: list[str] = []
        self._size = 0, 0

    def paint(self, lines: Sequence[Text], width: int, height: int) -> None:
        """Draw `lines`, none of them wider than `width`, over what was drawn before; take the terminal if need be.

        Nothing is written where the same lines stand there already.
        """
        drawn = [self._ansi(line) for line in lines]
        if self._taken and drawn == self._drawn and self._size == (width, height):
            return
        # After a change of size what is left of the old frame may stand anywhere below.
        clean = ERASE_BELOW if self._size != (width, height) else ""
        self._write(self._take() + BEGIN + self._home() + clean + _over_each_other(drawn) + END)
        self._drawn, self._size = drawn, (width, height)

    def say(self, lines: Sequence[Text]) -> None:
        """Leave `lines` above what is drawn."""
        text = "".join(self._ansi(line) + "\r\n" for line in lines)
        if not self._taken:
            self._write(text)
            return
        # On the whole screen they would be drawn over: they go to the other one, and are there when this one is left.
        around = LEAVE + text + ENTER if self._whole else self._home() + ERASE_BELOW + text
        self._write(BEGIN + around + _over_each_other(self._drawn) + END)

    def give_back(self) -> None:
        """Give the terminal back as it was: nothing drawn, the cursor visible, what is typed shown."""
        if not self._taken:
            return
        self._taken, self._drawn = False, []
        try:
            self._write(self._home() + ERASE_BELOW + SHOW + (LEAVE if self._whole else ""))
        finally:
            if self._echo:
                set_echo(self._stream, on=True)

    def lose(self) -> None:
        """Take note that somebody else draws on the terminal now."""
        self._taken, self._drawn = False, []

    def _take(self) -> str:
        """Return what is to be written before the first frame, and have nothing drawn into it that is typed."""
        if self._taken:
            return ""
        self._taken = True
        self._echo = set_echo(self._stream, on=False) or self._echo  # a shell brings back what it found at a stop
        return ("\r" + ERASE_BELOW + ENTER if self._whole else "") + HIDE

    def _home(self) -> str:
        return "\x1b[H" if self._whole else "\r"

    def _ansi(self, line: Text) -> str:
        return "".join(
            segment.style.render(segment.text, color_system=self._console._color_system)  # pyright: ignore[reportPrivateUsage]
            if segment.style
            else segment.text
            for segment in Text.assemble(line).render(self._console)  # a text alone is rendered without its own style
        )

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError) as error:
            raise TerminalGoneError from error


def _over_each_other(lines: Sequence[str]) -> str:
    """Return what draws `lines` from the cursor on, erases all that stood below and goes back to the first of them.

    The last line comes after the erasing: a line of full width leaves the cursor on its last character.
    """
    *above, last = lines or [""]
    text = "".join(f"{ERASE_LINE}{line}\r\n" for line in above)
    back = f"\x1b[{len(above)}A" if above else ""
    return f"{CROP}{text}{ERASE_BELOW}{last}\r{back}{WRAP}"


def pause_after(cost: float, interval: float) -> float:
    """Return the seconds until the next frame, after one of `cost` seconds of processor time."""
    return max(interval, min(LONGEST, cost / SHARE))


class Screen:
    """The dashboard of a run, live: events come in from any thread, frames go out from this one's own."""

    def __init__(
        self,
        painter: Painter,
        stream: TextIO,
        clock: Callable[[], float],
        hint: str,
        interval: float = INTERVAL,
    ) -> None:
        """Draw with `painter` for the size of `stream`, every `interval` seconds; `clock` counts from anywhere."""
        self._painter, self._stream, self._clock, self._hint = painter, stream, clock, hint
        self._interval = interval
        self._signs: Signs = signs_for(getattr(stream, "encoding", None))
        self._waiting: deque[tuple[Stamped, float]] = deque()
        self._state, self._offset, self._eta = ViewState(), -clock(), SteadyEstimate()
        self._blind = False  # whether there is nothing to draw on any more
        self._lock = threading.RLock()  # of the painter
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mnistlab-screen", daemon=True)

    def handle(self, stamped: Stamped) -> None:
        """Take an event. This is all that the search waits for: folding and drawing are the thread's."""
        self._waiting.append((stamped, self._clock()))

    def begin(self) -> None:
        """Start drawing."""
        atexit.register(self._give_back)  # for when `end` is never reached
        self._thread.start()

    def end(self) -> ViewState:
        """Stop drawing, give the terminal back and return the last state."""
        self._over.set()
        try:
            self._thread.join()
        except BaseException:  # someone insists; the thread needs but a moment to put the terminal in order
            self._thread.join(PATIENCE)
            raise
        atexit.unregister(self._give_back)
        return self._state

    @contextmanager
    def aside(self) -> Generator[None]:
        """Give the terminal back for a while."""
        with self._lock:
            self._give_back()
            yield

    def _run(self) -> None:
        never_stop_for_output()
        pause = 0.0
        while not self._over.wait(pause):
            started = time.thread_time()
            self._turn()
            pause = pause_after(time.thread_time() - started, self._interval)
        with self._lock:
            self._guarded(self._fold)
            self._give_back()

    def _turn(self) -> None:
        with self._lock:
            if self._blind:
                self._waiting.clear()
            else:
                self._guarded(self._draw)

    def _guarded(self, work: Callable[[], object]) -> None:
        """Do `work`; neither the end of the terminal nor a fault in a drawing may reach the search."""
        try:
            work()
        except TerminalGoneError:
            self._blind = True
        except Exception as fault:  # whatever it is, the search goes on without this view
            self._blind = True
            self._give_back()
            self._report(fault)

    def _draw(self) -> None:
        asked = self._fold()
        width, height = size_of(self._stream)
        now = max(self._state.t, self._clock() + self._offset)
        if asked:
            self._painter.say(self._lines(Look(width, 200, self._signs, ""), now))
        if in_front(self._stream):
            self._painter.paint(self._lines(Look(width, height, self._signs, self._hint), now), width, height)
        else:
            self._painter.lose()

    def _lines(self, look: Look, now: float) -> list[Text]:
        return frame(self._state, now, look, self._eta.at(self._state, now))

    def _fold(self) -> bool:
        """Take in the events that have come; return whether someone has asked for the status."""
        asked = False
        for _ in range(len(self._waiting)):  # those that come meanwhile wait for the next frame
            stamped, came = self._waiting.popleft()
            self._state, self._offset = advance(self._state, stamped), stamped.t - came
            asked = asked or isinstance(stamped.event, StatusAsked)
        return asked

    def _give_back(self) -> None:
        if self._lock.acquire(timeout=PATIENCE):  # a terminal that hangs may keep the thread that holds it
            try:
                self._painter.give_back()
            except TerminalGoneError:
                self._blind = True
            finally:
                self._lock.release()

    def _report(self, fault: Exception) -> None:
        """Say on the terminal that the view is over, and where nobody reads it on the terminal, where it broke."""
        what = visible(f"{type(fault).__name__}: {fault}")
        text = f"mnistlab: this view can't be drawn any more ({what}); the run itself goes on\n"
        with suppress(OSError, ValueError):
            self._stream.write(encodable(text, getattr(self._stream, "encoding", None)))
            self._stream.flush()
        if sys.stderr is not self._stream:  # the guard has led it into the log
            traceback.print_exception(fault)
