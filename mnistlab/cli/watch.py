"""`mnistlab watch`, `replay` and `status`: the views of a run, from its event stream alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnistlab.cli.options import RUNS, Color, RunName, Runs, View

if TYPE_CHECKING:
    from mnistlab.console.state import ViewState
    from mnistlab.events import Stamped

POLL_SECONDS = 0.25
HINT = "Ctrl-C: leave this view; the run goes on"


def watch(run: RunName, runs: Runs = RUNS, ui: View = "auto", color: Color = "auto") -> None:
    """Show a run that another process is driving, until it ends; of one that has ended, its last state."""
    from mnistlab import store
    from mnistlab.console.ui import chosen, open_view
    from mnistlab.events import RunFinished

    view, path = chosen(ui, color), store.find_run(run, runs)
    ended = False

    def waiting() -> bool:
        time.sleep(POLL_SECONDS)
        return not ended and store.is_running(path)

    with open_view(view, hint=HINT) as handle:
        for stamped in store.follow_events(path, waiting):
            handle(stamped)
            ended = isinstance(stamped.event, RunFinished)
    _say_the_end(path)


def replay(
    run: RunName,
    runs: Runs = RUNS,
    speed: Annotated[float, typer.Option("--speed", help="How many times faster than it was.")] = 20.0,
    ui: View = "auto",
    color: Color = "auto",
) -> None:
    """Show a run again as it was, --speed times faster."""
    from mnistlab import store
    from mnistlab.console.ui import chosen, open_view
    from mnistlab.errors import Fault, SpecError

    if not 0 < speed < float("inf"):
        raise SpecError("replay", [Fault("--speed", "must be a number greater than 0", speed)])
    view, path = chosen(ui, color), store.find_run(run, runs)
    start = time.monotonic()

    def clock() -> float:
        return (time.monotonic() - start) * speed

    with open_view(view, clock=clock, hint="Ctrl-C: leave this replay") as handle:
        for stamped in _paced(store.read_events(path), clock, speed):
            handle(stamped)
    _say_the_end(path)


def _paced(stream: Iterator[Stamped], clock: Callable[[], float], speed: float) -> Iterator[Stamped]:
    for stamped in stream:
        time.sleep(max(0.0, (stamped.t - clock()) / speed))
        yield stamped


def status(
    run: RunName,
    runs: Runs = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as one JSON object.")] = False,
) -> None:
    """Print once where a run stands."""
    import json

    from mnistlab import store
    from mnistlab.console.status import as_record, as_text

    path = store.find_run(run, runs)
    state, now = _state_of(path)
    running = store.is_running(path)
    if as_json:
        typer.echo(json.dumps(as_record(state, now, running=running), indent=1))
        return
    for line in as_text(state, now, encoding=sys.stdout.encoding):
        typer.echo(line)
    if not running and state.end is None:
        typer.echo("The process that drove this run is gone; what it had written is kept.")


def _state_of(path: Path) -> tuple[ViewState, float]:
    """Return the last state of a run, and what time of the run it is now: of a running one, time has gone on."""
    from datetime import UTC, datetime

    from mnistlab import store
    from mnistlab.console.state import ViewState, advance

    state, last = ViewState(), None
    for last in store.read_events(path):
        state = advance(state, last)
    if last is None or state.end is not None or not store.is_running(path):
        return state, state.t
    return state, state.t + max(0.0, (datetime.now(UTC) - last.time).total_seconds())


def _say_the_end(path: Path) -> None:
    """Say on standard error what to type next, or that the driver has gone without a last word."""
    state, _ = _state_of(path)
    if state.end is None:
        typer.echo(f"mnistlab: {path} has no end yet, and no process is driving it", err=True)
    typer.echo(f"Next: mnistlab leaderboard {path}", err=True)
