"""Which view a run gets, and its life from the first event to the last."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Literal, TextIO, cast, get_args

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.live import Live

from mnistlab.console.live import REFRESHES_PER_SECOND, render
from mnistlab.console.plain import line
from mnistlab.console.state import ViewState, advance
from mnistlab.console.text import encodable
from mnistlab.errors import Fault, SpecError, near_miss
from mnistlab.events import Stamped

Ui = Literal["auto", "live", "plain", "quiet"]
Handle = Callable[[Stamped], None]

VARIABLE = "MNISTLAB_UI"
LEAST_WIDTH, LEAST_HEIGHT = 60, 10


@contextmanager
def open_console(
    ui: Ui = "auto", stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Generator[Handle]:
    """Yield what is to be called with every event; the view closes with the context and leaves its last frame.

    `stream` is standard error unless given: progress goes there, results go to standard output. `clock` counts
    seconds from anywhere; it moves the elapsed times on between two events. A stream that can't be written to any
    more silences the view and never stops the search.

    Raises:
        SpecError: if `ui`, or MNISTLAB_UI where `ui` is `auto`, names no view.
    """
    out: TextIO = stream or sys.stderr
    kind = choose_ui(ui, out, os.environ)
    if kind == "live":
        with _live(out, clock) as handle:
            yield handle
    else:
        yield _plain(out) if kind == "plain" else _ignore


def choose_ui(ui: str, stream: TextIO, environ: Mapping[str, str]) -> Ui:
    """Return `live`, `plain` or `quiet`. `auto` asks MNISTLAB_UI first and then looks at the stream.

    Live needs an interactive terminal of at least 60 x 10 that can move its cursor, outside continuous integration.

    Raises:
        SpecError: if the name is none of auto, live, plain, quiet.
    """
    place = "--ui"
    if ui == "auto" and environ.get(VARIABLE):
        place, ui = VARIABLE, environ[VARIABLE]
    if ui not in get_args(Ui):
        rule = f"must be one of {', '.join(get_args(Ui))}"
        raise SpecError("user interface", [Fault(place, rule, ui, near_miss(ui, get_args(Ui)))])
    if ui == "auto":
        return "live" if _can_live(stream, environ) else "plain"
    return cast("Ui", ui)


def _can_live(stream: TextIO, environ: Mapping[str, str]) -> bool:
    in_ci = environ.get("CI", "").lower() not in {"", "0", "false"}
    if in_ci or environ.get("TERM", "").lower() in {"dumb", "unknown"} or not stream.isatty():
        return False
    width, height = _size(stream)
    return width >= LEAST_WIDTH and height >= LEAST_HEIGHT


def _console(stream: TextIO) -> Console:
    return Console(file=stream, markup=False, emoji=False, highlight=False)


def _size(stream: TextIO) -> tuple[int, int]:
    """Return columns and lines of the stream's own terminal; rich would ask standard input's."""
    try:
        width, height = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        width, height = 0, 0
    return width or 80, height or 24


def _ignore(_stamped: Stamped) -> None:
    pass


def _plain(stream: TextIO) -> Handle:
    state, broken = ViewState(), False

    def handle(stamped: Stamped) -> None:
        nonlocal state, broken
        state = advance(state, stamped)
        text = line(stamped, state)
        if text is None or broken:
            return
        try:
            stream.write(encodable(text, getattr(stream, "encoding", None)) + "\n")
            stream.flush()
        except (OSError, ValueError):  # the reader of the pipe has gone, or the stream is closed
            broken = True

    return handle


@contextmanager
def _live(stream: TextIO, clock: Callable[[], float]) -> Generator[Handle]:
    console = _console(stream)
    state, offset = ViewState(), -clock()

    def frame() -> RenderableType:
        console.size = ConsoleDimensions(*_size(stream))
        return render(state, max(state.t, clock() + offset), console.width, console.height)

    def handle(stamped: Stamped) -> None:
        nonlocal state, offset
        state, offset = advance(state, stamped), stamped.t - clock()

    live = Live(
        console=console,
        get_renderable=frame,
        refresh_per_second=REFRESHES_PER_SECOND,
        redirect_stdout=sys.stdout.isatty(),  # what goes into a pipe must not end up on the terminal
        vertical_overflow="crop",
    )
    live.start()
    try:
        yield handle
    finally:
        with suppress(OSError):  # the terminal may have gone
            live.stop()
