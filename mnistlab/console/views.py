"""Which view a run gets, and its life from the first event to the last."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO, cast, get_args

from mnistlab.console.dashboard.viewport import DRIVER_HINT
from mnistlab.console.lines import Lines, in_words
from mnistlab.console.redirect import Streams, guarded
from mnistlab.console.terminal import left_in_order, size_of
from mnistlab.errors import Fault, SpecError, must_be_one_of
from mnistlab.events import RunFinished, RunStarted, Stamped, to_json
from mnistlab.util.last_words import last_words, note_begun
from mnistlab.util.text import EXECUTOR_NAMES, encodable, resume_command

Kind = Literal["auto", "live", "full", "plain", "json", "quiet"]
Color = Literal["auto", "always", "never"]
Handle = Callable[[Stamped], None]

VARIABLE, FPS_VARIABLE = "MNISTLAB_UI", "MNISTLAB_FPS"
LEAST_WIDTH, LEAST_HEIGHT = 60, 10
FPS, LEAST_FPS, MOST_FPS = 2.0, 0.1, 4.0


@dataclass(frozen=True)
class Ui:
    """A view that was chosen: `kind` is not `auto` any more; `fps` is how many frames a second it draws at most."""

    kind: Kind
    color: bool
    fps: float = FPS


def choose_ui(ui: str, color: str, stream: TextIO, environ: Mapping[str, str], executor: str = EXECUTOR_NAMES[0]) -> Ui:
    """Return the view and whether it is coloured; `auto` asks MNISTLAB_UI first and then looks at the stream.

    Live needs an interactive terminal of at least 60 x 10 that can move its cursor, outside continuous integration,
    and an executor whose trials run in other processes: a dashboard would be drawn over a debugger in this one.
    NO_COLOR (not empty) takes colour away, FORCE_COLOR gives it, `--color` beats both. MNISTLAB_FPS is the number of
    frames a second.

    Raises:
        SpecError: if a name is none of those known, or the number of frames out of range.
    """
    place = "--ui"
    if ui == "auto" and environ.get(VARIABLE):
        place, ui = VARIABLE, environ[VARIABLE]
    faults = [*_fault(place, ui, get_args(Kind)), *_fault("--color", color, get_args(Color))]
    faults += _fault("--executor", executor, EXECUTOR_NAMES)
    fps = _fps(environ.get(FPS_VARIABLE) or str(FPS), faults)
    if faults:
        raise SpecError("user interface", faults)
    if ui == "auto":
        ui = "live" if executor != "local" and _can_live(stream, environ) else "plain"
    return Ui(cast("Kind", ui), color == "always" or (color == "auto" and _is_colored(environ)), fps)


def _fault(place: str, word: str, known: tuple[str, ...]) -> list[Fault]:
    return [] if word in known else [must_be_one_of(place, word, known)]


def _fps(word: str, faults: list[Fault]) -> float:
    """Return the number that `word` stands for; add to `faults` if that is none or out of range."""
    with suppress(ValueError):
        if LEAST_FPS <= float(word) <= MOST_FPS:
            return float(word)
    faults.append(Fault(FPS_VARIABLE, f"must be a number from {LEAST_FPS:g} to {MOST_FPS:g} (frames a second)", word))
    return FPS


def _is_colored(environ: Mapping[str, str]) -> bool:
    return not environ.get("NO_COLOR") and (bool(environ.get("FORCE_COLOR")) or environ.get("TERM", "") != "dumb")


def _can_live(stream: TextIO, environ: Mapping[str, str]) -> bool:
    in_ci = environ.get("CI", "").lower() not in {"", "0", "false"}
    if in_ci or environ.get("TERM", "").lower() in {"dumb", "unknown"} or not stream.isatty():
        return False
    width, height = size_of(stream)
    return width >= LEAST_WIDTH and height >= LEAST_HEIGHT


@contextmanager
def open_console(
    ui: Ui,
    log: Path,
    past: Iterable[Stamped] = (),
    again: str = "",
) -> Generator[Handle]:
    """Yield what is to be called with every event, and keep the terminal for the view alone until the context ends.

    Progress goes to standard error; the event stream of `json` goes to standard output. Whatever else writes there
    meanwhile is appended to `log`. `past` are the events of a run that is gone on with: views that say where it
    stands know them, and nothing of them is said again. Should this process be killed meanwhile, the terminal is given
    back and told `again`, the command that goes on with the run; before a run without a past has begun there is none.
    """
    from mnistlab.console.dashboard.screen import GIVE_BACK  # noqa: PLC0415 - most of a second, and `chosen` comes first

    again, past = again or resume_command(log.parent), list(past)
    with (
        last_words(again, GIVE_BACK.get(ui.kind, ""), begun=bool(past)),
        guarded(log) as streams,
        open_view(ui, streams, time.monotonic, past=past) as handle,
    ):
        yield handle if past else _noting(handle)


def _noting(handle: Handle) -> Handle:
    """Return what passes events on, and notes that their run has begun."""

    def note(stamped: Stamped) -> None:
        if isinstance(stamped.event, RunStarted):
            note_begun()
        handle(stamped)

    return note


@contextmanager
def open_view(
    ui: Ui,
    streams: Streams | None = None,
    clock: Callable[[], float] = time.monotonic,
    hint: str = DRIVER_HINT,
    past: Iterable[Stamped] = (),
) -> Generator[Handle]:
    """Yield what is to be called with every event; `clock` moves the elapsed times on between two of them.

    `past` is as for `open_console`.

    A stream that can't be written to any more silences the view and never stops the search.
    """
    streams = streams or Streams(sys.stdout, sys.stderr)
    if ui.kind in {"live", "full"}:
        with _screen(ui, streams.err, clock, hint, past) as handle:
            yield handle
    elif ui.kind == "plain":
        lines = Lines(_writer(streams.err), clock, past)
        with lines.beating():
            yield lines.handle
    elif ui.kind == "json":
        yield _records(streams.out)
    else:
        yield lambda _stamped: None


@contextmanager
def _screen(
    ui: Ui, stream: TextIO, clock: Callable[[], float], hint: str, past: Iterable[Stamped]
) -> Generator[Handle]:
    """Draw a dashboard; at the end it goes, and a line that says how the run ended takes its place."""
    from mnistlab.console.dashboard.screen import Painter, Screen  # noqa: PLC0415

    painter = Painter(stream, color=ui.color, whole_screen=ui.kind == "full")
    screen = Screen(painter, stream, clock, hint, 1 / ui.fps)
    last: list[Stamped] = []

    def handle(stamped: Stamped) -> None:
        screen.handle(stamped)
        if isinstance(stamped.event, RunFinished):
            last.append(stamped)

    with left_in_order(screen.aside):
        for stamped in past:
            screen.handle(stamped)
        screen.begin()
        try:
            yield handle
        finally:
            state = screen.end()
            say = _writer(stream)
            for stamped in last:
                say(in_words(stamped, state))


def _records(stream: TextIO) -> Handle:
    say = _writer(stream)
    return lambda stamped: say(json.dumps(to_json(stamped), separators=(",", ":"), allow_nan=False))


def _writer(stream: TextIO) -> Callable[[str | None], None]:
    """Return what writes a line, and nothing any more once the reader of the pipe has gone."""
    broken = False

    def say(text: str | None) -> None:
        nonlocal broken
        if text is None or broken:
            return
        try:
            stream.write(encodable(text, getattr(stream, "encoding", None)) + "\n")
            stream.flush()
        except (OSError, ValueError):  # the reader of the pipe has gone, or the stream is closed
            broken = True

    return say


def chosen(ui: str, color: str, executor: str = EXECUTOR_NAMES[0]) -> Ui:
    """Return the view for this process's own standard error and environment.

    Raises:
        SpecError: as `choose_ui`.
    """
    return choose_ui(ui, color, sys.stderr, os.environ, executor)
