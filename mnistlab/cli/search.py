"""`mnistlab search FILE`: a whole search."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from mnistlab.cli.options import RUNS, Color, DataDir, File, NoPlugins, Plugins, Runs, Seed, Set, View, overrides

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
    data_dir: DataDir = None,
    plugin: Plugins = None,
    no_plugins: NoPlugins = False,
    runs: Runs = RUNS,
    ui: View = "auto",
    color: Color = "auto",
    address: Annotated[
        str | None,
        typer.Option("--address", help="Join this Ray cluster; without it a private Ray is used.", show_default=False),
    ] = None,
) -> None:
    """Search the space of FILE, confirm the best plans on fresh seeds and print the ranking."""
    from mnistlab import store
    from mnistlab.console.summary import ended_text, print_leaderboard, result_console
    from mnistlab.console.ui import chosen, open_console
    from mnistlab.leaderboard import rank
    from mnistlab.python import run_file

    view = chosen(ui, color)
    finished = run_file(
        file,
        overrides(set_, search__trials=trials, search__time_budget=time_budget, seed=seed),
        plugins=plugin or (),
        no_plugins=no_plugins,
        data_dir=data_dir,
        runs=runs,
        address=address,
        command=shlex.join(["mnistlab", *sys.argv[1:]]),
        view=lambda path: open_console(view, path / "driver.log"),
    )
    if (finished.path / "run.json").exists():
        # Standard output carries one thing: the ranking or, where it was asked for, the stream of events.
        console = result_console(sys.stderr if view.kind == "json" else None)
        print_leaderboard(
            rank(store.read_run(finished.path)),
            console,
            ended=ended_text(finished.end),
            files=_written(finished.path),
            commands=[f"mnistlab leaderboard {finished.path}", f"mnistlab replay {finished.path}"],
            top=TOP,
        )
    raise typer.Exit(int(finished.exit_code))


def _written(path: Path) -> list[str]:
    """Return the files of a run that people open."""
    names = ("run.json", "events.jsonl", "study.db", "test_ledger.jsonl", "driver.log", "trials")
    return [str(path / name) for name in names if (path / name).exists()]
