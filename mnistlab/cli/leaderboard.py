"""`mnistlab leaderboard [RUN ...]`: the ranking of one run, or of all."""

from __future__ import annotations

from typing import Annotated

import typer

from mnistlab.cli.options import RUNS, Runs


def leaderboard(
    run: Annotated[
        list[str] | None, typer.Argument(help="Run directories, or names in --runs; all runs if none is given.")
    ] = None,
    runs: Runs = RUNS,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="Show this many rows a run.", show_default=False)
    ] = None,
) -> None:
    """Print the ranking of the RUNs given, or of every run in the folder of runs."""
    from mnistlab import store
    from mnistlab.console.summary import print_leaderboard, result_console
    from mnistlab.errors import MnistlabError
    from mnistlab.leaderboard import rank

    paths = [store.find_run(name, runs) for name in run] if run else store.find_runs(runs)
    if not paths:
        raise store.NoSuchRunError(f"no runs in {runs}; start one with: mnistlab search experiments/quick.toml")
    console, troubles = result_console(), list[MnistlabError]()
    for path in paths:
        try:
            record = store.read_run(path)
        except MnistlabError as error:  # one damaged run must not hide the others
            troubles.append(error)
            continue
        print_leaderboard(rank(record), console, top=top)
        console.print()
    for error in troubles:
        typer.echo(f"mnistlab: {error}", err=True)
    if troubles:
        raise typer.Exit(int(troubles[0].exit_code))
