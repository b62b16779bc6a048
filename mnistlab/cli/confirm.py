"""`mnistlab confirm RUN`: more fresh seeds, or more plans, for a run that has ended."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated

import typer

from mnistlab.cli.options import RUNS, Address, Color, DataDir, Executor, Runs, View, command_line


def confirm(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or its name in --runs.")],
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="How many plans; as the experiment says if not given.", show_default=False),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, help="Seeds of each plan in all, old ones included.", show_default=False),
    ] = None,
    baseline: Annotated[
        bool | None,
        typer.Option(
            "--baseline/--no-baseline",
            help="Also the plan of all defaults; as the experiment says if not given.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    runs: Runs = RUNS,
    ui: View = "auto",
    color: Color = "auto",
    address: Address = None,
    executor: Executor = "ray",
) -> None:
    """Train the best plans of a finished RUN on fresh seeds that they lack, then open the test set for those models."""
    from mnistlab import store
    from mnistlab.cli.search import announced, print_ranking
    from mnistlab.console.redirect import held_back
    from mnistlab.console.views import chosen, open_console
    from mnistlab.store.layout import DRIVER_LOG
    from mnistlab.util.text import resume_command

    view, path = chosen(ui, color, executor), store.find_run(run, runs)
    with announced(f"mnistlab: reading {path}, its plugins and its data", drawn=view.kind in {"live", "full"}):
        with held_back():  # seconds long: torch and Ray come with it; and plugins may print when they are imported
            from mnistlab.data import default_place
            from mnistlab.tuning.confirm_work import left_of
            from mnistlab.tuning.environment import check_environment
            from mnistlab.tuning.reopen import reopen_run
            from mnistlab.tuning.run import Options, add_confirmation

            check_environment()
            place = default_place(data_dir)
            found = reopen_run(path, place, top=top, seeds=seeds, baseline=baseline)
        command = command_line()
        finished = add_confirmation(
            found,
            Options(runs=runs, place=place, address=address, command=command, executor=executor),
            lambda path: open_console(view, path / DRIVER_LOG, past=store.read_events(path), again=command),
        )
    stream = sys.stderr if view.kind == "json" else sys.stdout
    with suppress(OSError, SystemExit):  # whoever reads it may have gone, and there rich would end the process
        print_ranking(path, finished.end if finished else None, stream)
    if finished is None:
        said = "all of these plans have all of these seeds: nothing was trained"
        if left_of(found.experiment.spec, found.record.trials, found.record):
            said += f"; one that asked for more was cut off, and goes on by: {resume_command(path, executor)}"
        typer.echo(f"mnistlab: {said}", err=True)
    raise typer.Exit(int(finished.exit_code) if finished else 0)
