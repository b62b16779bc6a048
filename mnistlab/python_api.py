"""Searches from Python, in a script or in a notebook: `mnistlab.search`, `mnistlab.open_run` and what they return.

The command line starts its searches here too. Importing this module costs seconds, because torch and Ray come with
it, so `import mnistlab` waits with it until one of its names is used.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import cast

import pandas as pd

from mnistlab import store
from mnistlab.console import html
from mnistlab.console.notebook import notebook_output, open_notebook
from mnistlab.console.ranking import ended_text, ranking_text
from mnistlab.console.redirect import held_back
from mnistlab.console.views import VARIABLE, chosen, open_console
from mnistlab.data import default_place
from mnistlab.errors import ExitCode, Fault, SpecError
from mnistlab.events import RunFinished, Stamped
from mnistlab.experiment import loader
from mnistlab.experiment.spec import Table
from mnistlab.leaderboard import Leaderboard, Row, rank
from mnistlab.leaderboard.statistics import MeanSd
from mnistlab.plugins.discovery import selection
from mnistlab.store.layout import DRIVER_LOG, RUN
from mnistlab.store.results import EnsembleResult, RunRecord
from mnistlab.tuning import run
from mnistlab.tuning.environment import check_environment
from mnistlab.tuning.like import taken
from mnistlab.tuning.trackers import check_trackers
from mnistlab.util.credentials import without_credentials
from mnistlab.util.text import Plan, counted, resume_command, settings, varying

TOP = 10  # rows of the ranking that a result shows of itself; `trials` holds all
IN_A_NOTEBOOK = frozenset({"auto", "live", "full"})  # the views that a notebook shows as HTML


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SearchResult:
    """What a run has found, and how it ended. A notebook shows it as its ranking, `print` does the same.

    `path` is the run directory, `leaderboard` the ranking, `record` every result as it was written. `end` is the last
    event of the run: None where a run is still going on or its process has died.
    """

    path: Path
    leaderboard: Leaderboard
    record: RunRecord
    end: RunFinished | None

    @property
    def outcome(self) -> str:
        """Return in words how the run ended, such as `done` or `interrupted`; "" where it has not."""
        return self.end.outcome if self.end else ""

    @property
    def exit_code(self) -> int | None:
        """Return the exit code that `mnistlab search` would have had, 130 of an interrupt; None without an end."""
        return self.end.exit_code if self.end else None

    @property
    def best(self) -> Row | None:
        """Return the champion's row of the ranking, or None where no trial has used its full budget."""
        return self.leaderboard.champion

    @property
    def ensemble(self) -> EnsembleResult | None:
        """Return what the champion's seeds scored together: `test.accuracy`, `val_accuracy`; None where nobody asked.

        They are its `replicates`. A prediction of all of them takes as many times that of one model.
        """
        return self.leaderboard.ensemble

    @property
    def trials(self) -> pd.DataFrame:
        """Return a row for each trial, in the order of the ranking.

        Its columns are rank, trial, state, model and optimizer; the run's metric, say val_accuracy, which of confirmed
        plans is the mean over val_accuracy_n fresh seeds, with the standard deviation val_accuracy_sd; test_accuracy
        with test_accuracy_sd and the 95 % interval test_low to test_high; parameters, epochs, and the seconds of one
        training; other metrics that the run has; cause and message of a failure; then every setting that differs
        between trials, under its key in the file. Accuracies are shares of 1; what is not known is NaN or NA.
        """
        plans = {trial.trial: trial.plan for trial in self.record.plans}
        keys = varying(plans.values())
        rows = [_trial_cells(row, plans[row.trial], self.leaderboard.metrics, keys) for row in self.leaderboard.rows]
        columns = pd.DataFrame(rows, dtype=object) if rows else pd.DataFrame(columns=["rank", "trial", "state"])
        return pd.DataFrame({name: _typed(column) for name, column in columns.items()})

    @property
    def epochs(self) -> pd.DataFrame:
        """Return the learning curves, a row for each trial and epoch, with val_accuracy, val_loss and so on."""
        rows = [
            {"trial": trial.trial, "epoch": number, **metrics}
            for trial in self.record.trials
            for number, metrics in enumerate(trial.history, start=1)
        ]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["trial", "epoch"])

    def __str__(self) -> str:
        """Return the ranking as the command line prints it, for the width of the terminal."""
        width = shutil.get_terminal_size((100, 24)).columns
        return ranking_text(self.leaderboard, width, ended=self._ended(), top=TOP)

    def __repr__(self) -> str:
        best = f"best trial {self.best.trial}, {self.best.model}" if self.best else "no trial used its full budget"
        outcome = self.outcome or "without an end"
        return f"<SearchResult {self.path}: {outcome}, {counted(len(self.leaderboard.rows), 'trial')}, {best}>"

    def _repr_html_(self) -> str:
        return html.ranking(self.leaderboard, ended=self._ended(), top=TOP)

    def _ended(self) -> str:
        return ended_text(self.end) if self.end else ""


def search(
    file: str | Path,
    *,
    set: Mapping[str, object] | Sequence[str] = (),  # noqa: A002 - the name of the option
    trials: int | None = None,
    time_budget: str | float | None = None,
    seed: int | None = None,
    data_dir: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
    no_plugins: bool = False,
    runs: str | Path = "runs",
    ui: str = "auto",
    color: str = "auto",
    address: str | None = None,
    executor: str = "ray",
    log: Sequence[str] = (),
    like: str | Path | Sequence[str | Path] = (),
) -> SearchResult:
    """Search the space of the experiment `file`, confirm the best plans on fresh seeds and return what was found.

    The arguments are the options of `mnistlab search`. `set` overrides keys of the file: {"training.epochs": 4,
    "model.cnn.kernel": [3, 5]}, or ["training.epochs=4"] as the command line takes them. `time_budget` is "15m" or a
    number of seconds. `executor="local"` runs the trials in this process, one after the other and without Ray: there
    a breakpoint in a plugin works. `log` names trackers that are written to as well: "tensorboard", "mlflow". `like`
    names earlier runs, whose plans and results the search starts from.

    In a notebook `ui="auto"` shows one dashboard that is updated in place, at most once a second; elsewhere it is the
    view that the command line would choose. The ranking is returned, not printed.

    Interrupting the kernel (or Ctrl-C) once lets the running trials end their epoch, twice stops at once. Either way
    what was found until then is returned, with the exit code 130. SIGTERM, which ends a process, does so once all of
    this is written.

    Raises:
        MnistlabError: if the experiment, its data or a plugin is wrong, the machine lacks what it asks for, or the run
            directory can't be written.
        KeyboardInterrupt: if it is interrupted before the search has begun, so that there is nothing to return.
    """
    given = {"search.trials": trials, "search.time_budget": time_budget, "seed": seed, "search.like": _runs(like)}
    changes = [*_overrides(set), *_overrides({key: value for key, value in given.items() if value is not None})]
    finished = run_file(
        Path(file),
        changes,
        plugins=[Path(plugin) for plugin in plugins],
        no_plugins=no_plugins,
        data_dir=None if data_dir is None else Path(data_dir),
        runs=Path(runs),
        address=address,
        executor=executor,
        log=log,
        command=_call(str(file), changes),
        view=_view(ui, color, executor),
    )
    if finished.exit_code == ExitCode.TERMINATED:
        signal.raise_signal(signal.SIGTERM)  # the search has taken it for as long as it had something to write
    if not (finished.path / RUN).exists():
        raise KeyboardInterrupt("the search was interrupted before it had begun")
    return _result(finished.path, finished.end)


def _runs(like: str | Path | Sequence[str | Path]) -> list[str] | None:
    """Return the runs that are named, or None where there are none, so that those of the file count."""
    return [str(one) for one in ([like] if isinstance(like, (str, Path)) else like)] or None


def open_run(name: str | Path, *, runs: str | Path = "runs") -> SearchResult:
    """Return what a run has found, so far if it is still going on. `name` is its directory, or its name in `runs`.

    Raises:
        MnistlabError: if there is no such run, or this version can't read it.
    """
    path = store.find_run(str(name), Path(runs))
    last = None
    for stamped in store.read_events(path):
        last = stamped.event
    return _result(path, last if isinstance(last, RunFinished) else None)  # a run that was over may go on


def run_file(
    file: Path,
    overrides: Sequence[str],
    *,
    plugins: Sequence[Path],
    no_plugins: bool,
    data_dir: Path | None,
    runs: Path,
    address: str | None,
    executor: str,
    log: Sequence[str],
    command: str,
    view: run.View,
) -> run.Finished:
    """Search with `file` and overrides ("key=value") of it; `command` is what the run directory says was typed.

    Raises:
        MnistlabError: as `search`.
    """
    trackers = check_trackers(log)
    with held_back() as said:  # what plugins print when they are imported
        check_environment()
        loaded = selection(plugins, only_built_in=no_plugins)
        wanted, registry = loader.open_with(file, overrides, loaded, partial(taken, runs))
    options = run.Options(
        runs=runs, place=default_place(data_dir), address=address, command=command, executor=executor, log=trackers
    )

    def view_and_log(path: Path) -> AbstractContextManager[Callable[[Stamped], None]]:
        if said():
            store.write_bytes(path / DRIVER_LOG, said())
        return view(path)

    return run.search(wanted, options, registry, view_and_log)


def _result(path: Path, end: RunFinished | None) -> SearchResult:
    record = store.read_run(path)
    return SearchResult(path=path, leaderboard=rank(record), record=record, end=end)


# --- what was asked for -------------------------------------------------------------------------------------------


def _view(ui: str, color: str, executor: str) -> run.View:
    """Return what shows the run: in a notebook HTML, unless a view of lines or none at all was asked for."""
    wanted, show = chosen(ui, color, executor), notebook_output()
    asked = ui if ui != "auto" else os.environ.get(VARIABLE) or ui
    if show is not None and asked in IN_A_NOTEBOOK:
        return lambda path: open_notebook(show, path / DRIVER_LOG)
    return lambda path: open_console(wanted, path / DRIVER_LOG, again=resume_command(path, executor))


def _call(file: str, overrides: Sequence[str]) -> str:
    """Return the call for the run's record."""
    return without_credentials(f"mnistlab.search({file!r}{f', set={list(overrides)!r}' if overrides else ''})")


def _overrides(given: Mapping[str, object] | Sequence[str]) -> list[str]:
    """Return overrides as the command line takes them.

    Raises:
        SpecError: naming every value that TOML has no words for.
    """
    if not isinstance(given, Mapping):
        return [given] if isinstance(given, str) else list(given)
    texts: list[str] = []
    faults: list[Fault] = []
    for key, value in given.items():
        try:
            texts.append(f"{key}={_toml(value)}")
        except TypeError:
            rule = "must be a number, a string, true or false, or a list or table of these"
            faults.append(Fault(f"set {key}", rule, repr(value)))
    if faults:
        raise SpecError("mnistlab.search", faults)
    return texts


def _toml(value: object) -> str:
    """Return a value as it stands in TOML, which but for its tables is written as JSON is.

    Raises:
        TypeError: if TOML has nothing like it.
    """
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_toml(str(key))} = {_toml(one)}' for key, one in cast('Table', value).items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(one) for one in cast('Sequence[object]', value))}]"
    return json.dumps(value if value is not None else _plain(value), ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    """Return a path as text and a number of numpy's as one of Python's."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    raise TypeError(f"{value!r} can't be written as TOML")


# --- tables -------------------------------------------------------------------------------------------------------


def _trial_cells(row: Row, plan: Plan, metrics: Sequence[str], keys: Sequence[str]) -> dict[str, object]:
    """Return a row of `SearchResult.trials`."""
    flat = settings(plan)
    first = {
        "rank": row.rank,
        "rank_low": row.rank_low,
        "rank_high": row.rank_high,
        "trial": row.trial,
        "state": row.state,
        "baseline": row.baseline,
        "model": flat.get("model"),
        "optimizer": flat.get("optimizer"),
        **_mean_cells(metrics[0], row.validation),
        **_mean_cells("test_accuracy", row.test.accuracy if row.test else None),
        "test_low": row.test.interval.low if row.test else math.nan,
        "test_high": row.test.interval.high if row.test else math.nan,
    }
    then = {
        "parameters": row.parameters,
        "epochs": row.epochs,
        "seconds": row.seconds,
        **{metric: row.objectives.get(metric, math.nan) for metric in metrics[1:]},
        "cause": row.cause,
        "message": row.message,
        **{key: flat.get(key) for key in keys},
    }
    return {**first, **{key: value for key, value in then.items() if key not in first}}


def _mean_cells(metric: str, means: MeanSd | None) -> dict[str, object]:
    if means is None:
        return {metric: math.nan, f"{metric}_sd": math.nan, f"{metric}_n": 0}
    return {metric: means.mean, f"{metric}_sd": math.nan if means.sd is None else means.sd, f"{metric}_n": means.n}


def _typed(column: pd.Series) -> pd.Series:
    """Return a column of objects in the type of its values: whole numbers stay whole where some are missing."""
    kinds = {type(value) for value in column.dropna()}
    whole = {int: "Int64", bool: "boolean"}.get(kinds.pop()) if len(kinds) == 1 and column.hasnans else None
    return column.astype(whole) if whole else column.infer_objects()
