"""`mnistlab search FILE`: a whole search."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from mnistlab.cli.options import (
    RUNS,
    Address,
    Color,
    DataDir,
    Executor,
    File,
    Like,
    Log,
    NoPlugins,
    Plugins,
    Runs,
    Seed,
    Set,
    View,
    command_line,
    listed,
    overrides,
)
from mnistlab.errors import ExitCode

if TYPE_CHECKING:
    from mnistlab.events import RunFinished
    from mnistlab.leaderboard import Leaderboard

_CUT = (ExitCode.INTERRUPTED, ExitCode.TERMINATED)
TOP = 5  # rows of the ranking at the end of a search; `mnistlab leaderboard` prints all


def search(
    file: File,
    set_: Set = None,
    trials: Annotated[
        int | None, typer.Option("--trials", help="The same as --set search.trials=N.", show_default=False)
    ] = None,
    time_budget: Annotated[
        str | None,
        typer.Option("--time-budget", help='The same as --set search.time_budget, e.g. "15m".', show_default=False),
    ] = None,
    seed: Seed = None,
    like: Like = None,
    data_dir: DataDir = None,
    plugin: Plugins = None,
    no_plugins: NoPlugins = False,
    runs: Runs = RUNS,
    ui: View = "auto",
    color: Color = "auto",
    address: Address = None,
    executor: Executor = "ray",
    log: Log = None,
) -> None:
    """Search the space of FILE, confirm the best plans on fresh seeds and print the ranking."""
    from mnistlab.experiment.spec import read, validate
    from mnistlab.tuning.ray.private import begun, import_for_workers

    changes = overrides(
        set_, search__trials=trials, search__time_budget=time_budget, seed=seed, search__like=listed(like)
    )
    _, faults = validate(read(file, changes))  # a file that is not there is told before what takes seconds to import
    with nullcontext() if faults else begun(executor, address):  # faults are told with those of the plugins' part
        from mnistlab.console.redirect import held_back  # numpy comes with it: what is imported earlier has its threads
        from mnistlab.console.views import chosen, open_console
        from mnistlab.store.layout import DRIVER_LOG
        from mnistlab.util.text import resume_command

        view, reading = chosen(ui, color, executor), f"mnistlab: reading {file} and its plugins"
        with announced(reading, drawn=view.kind in {"live", "full"}):
            with held_back():  # seconds long: torch and Ray are imported
                import_for_workers()
                from mnistlab.python_api import run_file

            finished = run_file(
                file,
                changes,
                plugins=plugin or (),
                no_plugins=no_plugins,
                data_dir=data_dir,
                runs=runs,
                address=address,
                executor=executor,
                log=log or (),
                command=command_line(),
                view=lambda path: open_console(view, path / DRIVER_LOG, again=resume_command(path, executor)),
            )
    # Standard output carries one thing: the ranking or, where it was asked for, the stream of events.
    stream = sys.stderr if view.kind == "json" else sys.stdout
    with suppress(OSError, SystemExit):  # whoever reads it may have gone, and there rich would end the process
        print_ranking(finished.path, finished.end, stream)
    raise typer.Exit(int(finished.exit_code))


@contextmanager
def announced(text: str, *, drawn: bool) -> Generator[None]:
    """Say on a terminal what is being waited for until the dashboard is drawn over it; nothing of it stays."""
    if not drawn:
        yield
        return
    from mnistlab.util.text import visible

    _show(visible(text))
    try:
        yield
    finally:
        _show("\r\x1b[2K")


def said(text: str, *, drawn: bool) -> None:
    """Say something on a line of its own above what `announced` has said."""
    _show("\r\x1b[2K" * drawn)
    typer.echo(text, err=True)


def _show(text: str) -> None:
    with suppress(OSError, ValueError):  # the terminal may have gone
        sys.stderr.write(text)
        sys.stderr.flush()


def print_ranking(path: Path, end: RunFinished | None, stream: TextIO) -> None:
    """Print the end of a run, or where it stands without one."""
    from functools import reduce

    from mnistlab import store
    from mnistlab.console.next_steps import left_undone
    from mnistlab.console.ranking import ended_text, print_leaderboard, result_console
    from mnistlab.console.state import ViewState, advance
    from mnistlab.leaderboard import rank
    from mnistlab.store.layout import RUN

    if not (path / RUN).exists():
        return
    board, cut = rank(store.read_run(path)), end is not None and end.exit_code in _CUT
    onward = left_undone(reduce(advance, store.read_events(path), ViewState()), path) if end else []
    print_leaderboard(
        board,
        result_console(stream),
        ended=ended_text(end) if end else "",
        files=_written(path),
        commands=[*onward, *(f"mnistlab {command}" for command in _next(board, cut=cut))],
        top=TOP,
    )


def _next(board: Leaderboard, *, cut: bool) -> list[str]:
    """Return what may be typed next: what a winner is for, or how a best trial becomes one; a cut run has neither."""
    run = shlex.quote(str(board.path))
    if cut:
        return [f"leaderboard {run}"]
    if board.champion is None:
        return [f"leaderboard {run}", f"replay {run}"]
    confirmed = board.champion.state == "confirmed"
    return [f"leaderboard {run}", f"report {run}" if confirmed else f"confirm {run}"]


def _written(path: Path) -> list[str]:
    """Return the files of a run that people open."""
    from mnistlab.store import layout

    records = [layout.record_name(number) for number in range(1, layout.newest_record(path) + 1)]
    files = (*records, layout.EVENTS, layout.STUDY, layout.CONFIRMATION, layout.LEDGER, layout.DRIVER_LOG)
    return [str(path / name) for name in (*files, layout.TRIALS, layout.TENSORBOARD) if (path / name).exists()]
