"""`mnistlab watch`, `replay` and `status`: the views of a run, from its event stream alone."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mnistlab.cli.options import RUNS, Color, RunName, Runs, View
from mnistlab.cli.output import write_output

if TYPE_CHECKING:
    from mnistlab.console.state import ViewState
    from mnistlab.console.views import Ui
    from mnistlab.events import Stamped

POLL_SECONDS = 0.25
NOT_BEGUN = "Nothing had begun yet, so there is nothing to go on with; start it anew."


def watch(run: RunName = None, runs: Runs = RUNS, ui: View = "auto", color: Color = "auto") -> None:
    """Show a run that another process is driving, until it ends; of one that has ended, its last state.

    Without RUN, the newest one.
    """
    from mnistlab.console.views import chosen, open_view
    from mnistlab.events import RunFinished
    from mnistlab.store import follow

    view, path = chosen(ui, color), follow.find_stream(run, runs)
    ended = False

    def waiting() -> bool:
        time.sleep(POLL_SECONDS)
        return not ended and follow.is_running(path)

    left = False
    with open_view(view, hint="Ctrl-C: leave this view; the run goes on") as handle:
        try:
            for stamped in follow.follow_events(path, waiting):
                handle(stamped)
                ended = isinstance(stamped.event, RunFinished)
        except KeyboardInterrupt:  # how a view is left
            left = True
    _say_the_end(path, view, left=left)


def replay(
    run: RunName = None,
    runs: Runs = RUNS,
    speed: Annotated[float, typer.Option("--speed", help="How many times faster than it was.")] = 20.0,
    ui: View = "auto",
    color: Color = "auto",
) -> None:
    """Show a run again as it was, --speed times faster. Without RUN, the newest one."""
    from mnistlab import store
    from mnistlab.console.views import chosen, open_view
    from mnistlab.errors import Fault, SpecError
    from mnistlab.store import follow

    if not 0 < speed < float("inf"):
        raise SpecError("replay", [Fault("--speed", "must be a number greater than 0", speed)])
    view, path = chosen(ui, color), follow.find_stream(run, runs)
    start = time.monotonic()

    def clock() -> float:
        return (time.monotonic() - start) * speed

    # Ctrl-C is how a view is left.
    with open_view(view, clock=clock, hint="Ctrl-C: leave this replay") as handle, suppress(KeyboardInterrupt):
        for stamped in _paced(store.read_events(path), clock, speed):
            handle(stamped)
    _say_the_end(path, view)


def _paced(stream: Iterator[Stamped], clock: Callable[[], float], speed: float) -> Iterator[Stamped]:
    for stamped in stream:
        time.sleep(max(0.0, (stamped.t - clock()) / speed))
        yield stamped


def status(
    run: RunName = None,
    runs: Runs = RUNS,
    at: Annotated[
        str | None,
        typer.Option("--at", help='As it stood at this time of the run, e.g. "90s" or "2m".', show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as one JSON object.")] = False,
    picture: Annotated[
        Path | None,
        typer.Option("--svg", metavar="FILE", help="Write it as a picture instead.", show_default=False),
    ] = None,
    size: Annotated[str, typer.Option("--size", help="Columns x lines of that picture.")] = "110x30",
    theme: Annotated[str, typer.Option("--theme", help="Its colours: dark or light.")] = "dark",
) -> None:
    """Print once where a run stands, or stood. Without RUN, the newest one."""
    import json

    from mnistlab.console.status import as_record, as_text, how_it_ended, picture_of
    from mnistlab.store import follow

    path = follow.find_stream(run, runs)
    state, now = _state_of(path, _moment(at))
    running = follow.is_running(path) and at is None
    if picture is not None:
        drawn = picture_of(state, now, size, theme)
        write_output(picture, drawn.encode())
        typer.echo(f"Written: {picture}", err=True)
    elif as_json:
        typer.echo(json.dumps(as_record(state, now, running=running), indent=1))
    else:
        for line in (*as_text(state, now, sys.stdout), *how_it_ended(state, path)):
            typer.echo(line)
        if not running and state.end is None and at is None:
            typer.echo("The process that drove this run is gone; what it had written is kept.")
            typer.echo(f"To go on with it: {again}" if (again := _resume(state, path)) else NOT_BEGUN)


def _moment(at: str | None) -> float | None:
    from mnistlab.errors import Fault, SpecError
    from mnistlab.experiment.spec import parse_duration

    try:
        return None if at is None else cast("float", parse_duration(at))
    except ValueError as error:
        raise SpecError("status", [Fault("--at", str(error), at)]) from None


def _state_of(path: Path, at: float | None = None) -> tuple[ViewState, float]:
    """Return the last state of a run, and what time of the run it is now: of a running one, time has gone on.

    With `at`, seconds of the run: the state at that time.
    """
    from dataclasses import replace
    from datetime import UTC, datetime

    from mnistlab import store
    from mnistlab.console.state import ViewState, advance
    from mnistlab.store import follow

    state, last = ViewState(), None
    for stamped in store.read_events(path):
        if at is not None and stamped.t > at:
            return state, at
        state, last = advance(state, stamped), stamped
    if last is None or state.end is not None:
        return state, state.t
    if not follow.is_running(path):
        return replace(state, driven=at is not None), state.t
    return state, state.t + max(0.0, (datetime.now(UTC) - last.time).total_seconds())


def _say_the_end(path: Path, view: Ui, *, left: bool = False) -> None:
    """Leave on standard error where the run stands and what to type next: the dashboard is gone by now."""
    from mnistlab.console.status import as_text, how_it_ended

    state, now = _state_of(path)
    if view.kind in {"live", "full"}:
        for line in as_text(state, now, sys.stderr):
            typer.echo(line, err=True)
    if left and state.end is None:
        typer.echo("mnistlab: you have left the view; the run goes on", err=True)
    elif state.end is None:
        typer.echo(f"mnistlab: {path} has no end yet, and no process is driving it", err=True)
        typer.echo(f"Next: {again}" if (again := _resume(state, path)) else NOT_BEGUN, err=True)
    for line in how_it_ended(state, path):
        typer.echo(line, err=True)
    if _resume(state, path):
        typer.echo(f"Next: mnistlab leaderboard {shlex.quote(str(path))}", err=True)


def _resume(state: ViewState, path: Path) -> str:
    """Return the command that goes on with a run, or "" of one that died before it had begun."""
    from mnistlab.util.text import resume_command

    return resume_command(path, state.start.executor) if state.start else ""
