"""`mnistlab resume RUN` and `mnistlab retry RUN`: go on with a search where it stands."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnistlab.cli.options import (
    RUNS,
    Address,
    Color,
    DataDir,
    Executor,
    Log,
    Runs,
    View,
    command_line,
    overrides,
)

if TYPE_CHECKING:
    from mnistlab.tuning.reopen import Reopened
    from mnistlab.tuning.run import Finished

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or its name in --runs.")]
Trials = Annotated[
    int | None, typer.Option("--trials", min=1, help="How many trials in all from now on.", show_default=False)
]
Budget = Annotated[
    str | None,
    typer.Option("--time-budget", help='How long in all, earlier times included, e.g. "2h".', show_default=False),
]
Changed = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of [resources], or a time-out of [search], for example resources.max_parallel=4.",
    ),
]
Amend = Annotated[
    Path | None,
    typer.Option(
        "--amend",
        metavar="FILE",
        help="Go on in the larger space of this experiment file: the run's, with options or tables added.",
        show_default=False,
    ),
]


def resume(
    run: RunArgument,
    trials: Trials = None,
    time_budget: Budget = None,
    set_: Changed = None,
    amend: Amend = None,
    data_dir: DataDir = None,
    runs: Runs = RUNS,
    ui: View = "auto",
    color: Color = "auto",
    address: Address = None,
    executor: Executor = "ray",
    log: Log = None,
) -> None:
    """Go on with a search that was interrupted or killed, or that is to try more."""
    changes = overrides(set_, search__trials=trials, search__time_budget=time_budget)
    about = _About(data_dir, runs, ui, color, address, executor, log)
    _go_on(run, about, changes, amend=amend)


def retry(
    run: RunArgument,
    failed: Annotated[bool, typer.Option("--failed", help="Start the trials that have failed once more.")] = False,
    trials: Trials = None,
    time_budget: Budget = None,
    set_: Changed = None,
    data_dir: DataDir = None,
    runs: Runs = RUNS,
    ui: View = "auto",
    color: Color = "auto",
    address: Address = None,
    executor: Executor = "ray",
    log: Log = None,
) -> None:
    """Start the failed trials of RUN once more, with the same plans and seeds, and go on with its search."""
    if not failed:
        raise typer.BadParameter("say --failed: it is the only kind of trial that can be tried again.")
    changes = overrides(set_, search__trials=trials, search__time_budget=time_budget)
    _go_on(run, _About(data_dir, runs, ui, color, address, executor, log), changes, again=True)


@dataclass(frozen=True)
class _About:
    """What both commands may be told of data, view and machine."""

    data_dir: Path | None
    runs: Path
    ui: str
    color: str
    address: str | None
    executor: str
    log: Sequence[str] | None


def _go_on(
    run: str, about: _About, changes: Sequence[str] = (), *, amend: Path | None = None, again: bool = False
) -> None:
    from mnistlab import store
    from mnistlab.cli.search import announced, print_ranking, said
    from mnistlab.console.redirect import held_back
    from mnistlab.console.views import chosen, open_console
    from mnistlab.experiment.spec import read
    from mnistlab.store.layout import DRIVER_LOG
    from mnistlab.util.text import resume_command

    view = chosen(about.ui, about.color, about.executor)
    path, command = store.find_run(run, about.runs), command_line()
    onward = resume_command(path, about.executor)
    drawn = view.kind in {"live", "full"}
    if amend is not None:
        read(amend)  # a file that is not there is told before what takes seconds to import
    with announced(f"mnistlab: reading {path}, its plugins and its data", drawn=drawn):
        with held_back():  # seconds long: torch and Ray come with it; and plugins may print when they are imported
            from mnistlab.data import default_place
            from mnistlab.tuning import run as runner
            from mnistlab.tuning.environment import check_environment
            from mnistlab.tuning.reopen import reopen_search
            from mnistlab.tuning.trackers import check_trackers

            check_environment()
            trackers = check_trackers(about.log or ())
            place = default_place(about.data_dir)
            found = reopen_search(path, place, changes, amend)
        for note in _notes(found, amend):
            said(f"mnistlab: {note}", drawn=drawn)
        finished = runner.resume(
            found,
            runner.Options(
                runs=about.runs,
                place=place,
                address=about.address,
                command=command,
                executor=about.executor,
                log=trackers,
            ),
            lambda path: open_console(view, path / DRIVER_LOG, past=store.read_events(path), again=onward),
            again=again,
        )
    if finished is not None:
        stream = sys.stderr if view.kind == "json" else sys.stdout
        with suppress(OSError, SystemExit):  # whoever reads it may have gone, and there rich would end the process
            print_ranking(path, finished.end, stream)
    if finished is None or finished.end_only:
        typer.echo(f"mnistlab: {_nothing_left(found, finished, again=again)}", err=True)
    if finished is None:
        typer.echo(f"Next: mnistlab leaderboard {shlex.quote(str(path))}", err=True)
    raise typer.Exit(int(finished.exit_code) if finished else 0)


def _notes(found: Reopened, amend: Path | None) -> Iterator[str]:
    """Yield what whoever goes on with a run may take for granted, and is otherwise."""
    from mnistlab.store.layout import PLUGINS

    if amend is not None and not found.added:
        yield f"{amend} adds nothing to the space of the run: it stays as it is"
    for name in found.record.run.get("plugin_files", {}):
        yield (
            f"plugin {name}: the run's own copy is used ({found.path / PLUGINS / name}); a changed one is another "
            f"plugin, and needs a new search: mnistlab search FILE --plugin {name}"
        )


def _nothing_left(found: Reopened, finished: Finished | None, *, again: bool) -> str:
    """Return in words why there is nothing to go on with, and what would be."""
    said = _why(found, again=again)
    if finished is not None:
        said = f"the driver died before it could write the end of the run: it is written now; {said}"
    return f"{said}; nothing was amended" if found.added else said


def _why(found: Reopened, *, again: bool) -> str:
    from mnistlab.console.next_steps import more_time, time_is_up
    from mnistlab.store import read_events
    from mnistlab.util.text import counted

    states, search = Counter(trial.state for trial in found.record.trials), found.experiment.spec.search
    trials, ended, failed = states.total(), states.total() - states["interrupted"], states["failed"]
    budget, seconds = search.time_budget or 0.0, max((one.t for one in read_events(found.path)), default=0.0)
    time = f"--time-budget {more_time(budget, seconds)}" if time_is_up(budget, seconds) else ""
    if again and failed and time:
        return f"nothing is started: {counted(failed, 'trial')} failed, but the time is up; give it more by {time}"
    if again and not failed and (not time or ended >= search.trials):
        return "nothing is left to do: no trial has failed, and all else is done"
    if trials > search.trials:
        return f"nothing is left to do: the run has {trials} trials already, and --trials is the number in all"
    if time and ended < search.trials:
        return f"nothing is started: the time is up after {ended} of {search.trials} trials; give it more by {time}"
    more = f"--trials and {time}" if time else "--trials"
    return f"nothing is left to do: each of {search.trials} trials has ended; give it more by {more}"
