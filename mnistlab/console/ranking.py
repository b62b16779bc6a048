"""The end of a run, and `mnistlab leaderboard`: the rule, the ranking, the verdict, what failed, what to do next."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from mnistlab.console.plain import counts_text
from mnistlab.events import RunFinished
from mnistlab.leaderboard import Leaderboard, Row
from mnistlab.leaderboard.prose.ensemble import ensemble_notes
from mnistlab.leaderboard.prose.notes import luck_notes
from mnistlab.leaderboard.prose.ties import rank_notes
from mnistlab.leaderboard.prose.verdict import interval_text, verdict
from mnistlab.leaderboard.rows import state_text
from mnistlab.leaderboard.statistics import MeanSd
from mnistlab.store.layout import LOG, in_trial
from mnistlab.store.results import ReplicateResult
from mnistlab.util.text import ACCURACIES, counted, encodable, listed, metric_text, seconds_text, shortened, visible

PLAN_WIDTH = 20  # the plan's column folds, but not below this
PIPE_WIDTH = 160
UNCONFIRMED_PLAN = 64  # characters shown of a plan that was not confirmed
NAMED = 8  # runs that are named above a ranking of several
FAILURES = 5  # that are told of below a ranking, the newest
BASELINE_NOTE = (
    "(defaults): the plan of all defaults, confirmed beside the best ones to tell what searching gained; that "
    "comparison with the champion has a risk of 5 % of its own, beside that of all pairs."
)
GAP = 2  # a divider of one space, and one of padding


def result_console(stream: TextIO | None = None) -> Console:
    """Return a console for results on `stream` (standard output unless given): plain and wide where it is piped."""
    out: TextIO = stream or sys.stdout
    width = None if out.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH
    return Console(file=out, width=width, markup=False, emoji=False, highlight=False)


def print_leaderboard(
    board: Leaderboard,
    console: Console | None = None,
    *,
    ended: str = "",
    files: Sequence[str] = (),
    commands: Sequence[str] = (),
    top: int | None = None,
    rows: Sequence[Row] | None = None,
) -> None:
    """Print a ranking with the rule above it; below it the verdict, how the run `ended`, footnotes and failures.

    At the very end stand the `files` that were written, and `commands` to go on with. `rows` are shown in place of all
    of the ranking, and `top` limits them; how many are left out is said. Rows that are left out still count in
    everything else.
    """
    console = result_console() if console is None else console
    shown = (board.rows if rows is None else rows)[:top]
    for text in (*_heads(board), *([f"Rule: {board.rule}"] if board.rule else [])):
        _say(console, text)
    if board.rows:
        console.print()
        console.print(ranking_table(board, console.width, rows=shown, encoding=console.encoding))
        console.print()
    for text in notes(board, ended=ended, top=len(shown)):
        _say(console, text)
    for name in files:
        _say(console, f"Written: {name}")
    for command in commands:
        _say(console, f"Next: {command}")


def ranking_text(board: Leaderboard, width: int, *, ended: str = "", top: int | None = None) -> str:
    """Return what `print_leaderboard` prints as plain text for `width` columns, whatever rich makes of the terminal."""
    text = io.StringIO()
    plain = Console(file=text, width=width, force_terminal=False, force_jupyter=False, color_system=None, markup=False)
    print_leaderboard(board, plain, ended=ended, top=top)
    return text.getvalue().rstrip("\n")


def notes(board: Leaderboard, *, ended: str = "", top: int | None = None) -> list[str]:
    """Return what stands below a ranking, a line each: rows left out, verdict, how it `ended`, footnotes, failures."""
    told = [ended] * bool(ended)
    return [*_hidden(board, top), verdict(board), *told, *_footnotes(board), *_failures(board)]


def ended_text(event: RunFinished) -> str:
    """Return for example `Run over: done; 24 trials (9 complete, 15 pruned) in 4m02s, exit code 0.`."""
    trials = sum(event.counts.values())
    states = counts_text(dict(event.counts))
    how = f"{counted(trials, 'trial')} ({states})" if trials else "no trial ended"
    return f"Run over: {event.outcome}; {how} in {seconds_text(event.seconds)}, exit code {event.exit_code}."


def ranking_table(
    board: Leaderboard,
    width: int,
    *,
    top: int | None = None,
    encoding: str | None = None,
    rows: Sequence[Row] | None = None,
) -> Table:
    """Return the ranking as a table that fits `width` columns: the least important columns go, the plan folds."""
    columns = _fitting(_columns(board, (board.rows if rows is None else rows)[:top]), width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column in columns:
        wraps = column.title == "plan"
        table.add_column(
            Text(encodable(column.title, encoding)),
            justify=column.justify,
            no_wrap=not wraps,
            overflow="fold",
            min_width=None if wraps else column.width,
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(encodable(cell, encoding)) for cell in cells))
    return table


# --- columns ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A column with its cells; `always` is False where it may go for want of room."""

    title: str
    always: bool
    cells: tuple[str, ...]
    justify: JustifyMethod = "left"

    @property
    def width(self) -> int:
        """Return how many cells of the terminal the column needs without folding."""
        return max(Text(text).cell_len for text in (self.title, *self.cells))


def _columns(board: Leaderboard, rows: Sequence[Row]) -> list[_Column]:
    """Return every column that has something to say, in the order in which they stand, the important ones first."""
    metric = board.metric
    unit = " %" if metric in ACCURACIES else ""
    made = [
        _column("rank", True, [row.rank for row in rows], "right"),
        _column("range", False, [row.ranks for row in rows], "right"),
        _column("run", True, [row.run for row in rows] if len(board.runs) > 1 else [""] * len(rows)),
        _column("trial", True, [row.trial + "*" * row.front for row in rows]),
        _column("state", True, [_state(row) for row in rows]),
        _column("plan", True, [_plan(row) for row in rows]),
        _column(f"{metric}{unit}", True, [_mean(metric, row.validation) for row in rows], "right"),
        _column("test acc. %", False, [_test(row) for row in rows], "right"),
        _column(
            "95 % interval", False, [interval_text(row.test.interval) if row.test else "" for row in rows], "right"
        ),
        _column("clean %", False, [_clean(row) for row in rows], "right"),
        *(_objective(other, rows) for other in board.metrics[1:] if other not in {"parameters", "seconds"}),
        _column("params", False, [metric_text("parameters", row.parameters) for row in rows], "right"),
        _column("time", False, [seconds_text(row.seconds) for row in rows], "right"),
        _column("MACs", False, [_macs(row) for row in rows], "right"),
        _column("ms for 1 / 256", False, [_latency(row) for row in rows], "right"),
        _column("epochs", False, [f"{row.epochs * row.part:g}/{row.budget}" for row in rows], "right"),
        _column("plugins", False, [_sources(row) for row in rows]),
    ]
    return [column for column in made if any(column.cells)]


def _column(title: str, always: bool, cells: Sequence[str], justify: JustifyMethod = "left") -> _Column:
    return _Column(title, always, tuple(visible(cell) for cell in cells), justify)


def _sources(row: Row) -> str:
    """Return the model's plugin, and those others that are not mnistlab's own; the footnote names all of them."""
    model, *rest = row.plugins or ("",)
    return ", ".join([model, *(plugin for plugin in rest if not plugin.startswith("mnistlab:"))])


def _objective(metric: str, rows: Sequence[Row]) -> _Column:
    return _column(metric, False, [metric_text(metric, row.objectives.get(metric)) for row in rows], "right")


def _fitting(columns: Sequence[_Column], width: int) -> list[_Column]:
    """Return the columns that always stay and, in their order, those others that fit beside them."""
    kept = [column for column in columns if column.always]
    for column in columns:
        if not column.always and _needed([*kept, column]) <= width:
            kept.append(column)
    return [column for column in columns if column in kept]


def _needed(columns: Sequence[_Column]) -> int:
    widths = (min(c.width, PLAN_WIDTH) if c.title == "plan" else c.width for c in columns)
    return sum(widths) + GAP * (len(columns) - 1)


def _plan(row: Row) -> str:
    """Return model, optimizer and settings, and the dataset where it is another one, or not all of it.

    Only confirmed plans show all of their settings: they are the result, and the others would bury them.
    """
    dataset = f"[{row.dataset}]" if "(" in row.dataset else ""
    text = " ".join(filter(None, [row.model, row.settings]))
    shown = text if row.state == "confirmed" else shortened(text, UNCONFIRMED_PLAN)
    return " ".join(filter(None, [shown, dataset]))


def _state(row: Row) -> str:
    return f"failed ({row.cause})" if row.state == "failed" else state_text(row)


def _test(row: Row) -> str:
    """Return mean and deviation, and the number of seeds where it is not that of the validation."""
    if row.test is None:
        return ""
    text = _mean("test_accuracy", row.test.accuracy)
    same = row.validation is not None and row.validation.n == row.test.accuracy.n
    return text.removesuffix(f" ({row.test.accuracy.n})") if same else text


def _clean(row: Row) -> str:
    return "" if row.test_clean is None else _number("test_accuracy", row.test_clean.accuracy.mean)


def _macs(row: Row) -> str:
    """Return for example `15.2M`."""
    macs = row.macs
    if macs is None:
        return ""
    return next(
        (f"{macs / size:.3g}{sign}" for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if macs >= size), str(macs)
    )


def _latency(row: Row) -> str:
    return f"{1000 * row.cost.latency_1:.3g} / {1000 * row.cost.latency_256:.3g}" if row.cost else ""


def _mean(metric: str, means: MeanSd | None) -> str:
    """Return for example `99.61 ± 0.03 (5)`: mean, standard deviation and number of seeds."""
    if means is None:
        return ""
    spread = "" if means.sd is None else f" ± {_number(metric, means.sd)}"
    count = f" ({means.n})" if means.n > 1 else ""
    return f"{_number(metric, means.mean)}{spread}{count}"


def _number(metric: str, value: float) -> str:
    return metric_text(metric, value).removesuffix(" %")


# --- what stands below --------------------------------------------------------------------------------------------


def _heads(board: Leaderboard) -> list[str]:
    """Return what is ranked: a run, or several with their names and what makes them comparable."""
    if len(board.runs) < 2:
        return [f"Run {board.run} on {board.dataset}"]
    names = list(board.runs) if len(board.runs) <= NAMED else [*board.runs[:NAMED], f"{len(board.runs) - NAMED} more"]
    return [
        f"{counted(len(board.runs), 'run')} on {board.dataset}, all with the split {board.split[:12]}",
        f"Runs: {listed(names)}",
    ]


def _hidden(board: Leaderboard, top: int | None) -> list[str]:
    hidden = 0 if top is None else len(board.rows) - top
    return [f"... and {counted(hidden, 'more trial')}."] if hidden > 0 else []


def _footnotes(board: Leaderboard) -> list[str]:
    notes = rank_notes(board)
    if any(row.validation and row.validation.n > 1 for row in board.rows):
        notes.append("mean ± standard deviation (number of fresh seeds); the interval is Wilson's, over test images.")
    notes += luck_notes(board)
    if any(row.front for row in board.rows):
        notes.append(f"* on the Pareto front of {listed(board.metrics)}, by the trials' own values.")
    if any(row.baseline for row in board.rows):
        notes.append(BASELINE_NOTE)
    if again := [f"{board.name(row)} (of {row.repeats})" for row in board.rows if row.repeats]:
        notes.append(f"Another seed of a plan that was tried before, confirmed once at most: {listed(again)}.")
    if board.refit and board.champion:
        notes.append(_refit(board.refit, board.name(board.champion)))
    notes += ensemble_notes(board)
    if left := [board.name(row) for row in board.rows if row.left_race]:
        notes.append(
            f"Out of the race before all seeds: {listed(left)}; by then the leader was ahead by more than noise."
        )
    notes += [_lost(row, board.name(row)) for row in board.rows if row.lost or row.untried]
    if used := dict.fromkeys(plugin for row in board.rows for plugin in row.plugins):
        notes.append(f"Plugins: {', '.join(used)}.")
    if board.fallback:
        notes.append(f"The dataset asked for was not used: {board.fallback}.")
    return notes


def _refit(one: ReplicateResult, trial: str) -> str:
    """Return what came of the champion's training on all images; no validation speaks for it, so it has no rank."""
    tested = metric_text("test_accuracy", one.test.accuracy) if one.test else "not evaluated yet"
    epochs = counted(len(one.history), "epoch")
    return f"Refit of trial {trial} on training and validation images, {epochs}, not ranked: test accuracy {tested}."


def _lost(row: Row, trial: str) -> str:
    """Return which seeds of a confirmation are missing and what follows from it."""
    failed = [f"{counted(row.lost, 'seed')} failed"] * bool(row.lost)
    untried = [f"{counted(row.untried, 'seed')} went untrained"] * bool(row.untried)
    what = f"Trial {trial}: of its confirmation {listed(failed + untried)}"
    if row.state != "confirmed":
        return f"{what}, so it is not confirmed."
    return f"{what}; its means lack them, and it ranks below the confirmed plans that have all of their seeds."


def _failures(board: Leaderboard) -> list[str]:
    if not board.failures:
        return []
    causes = ", ".join(f"{cause} {count}" for cause, count in sorted(board.failures.items()))
    return [f"Failed: {causes}.", *(_failure(board, row) for row in _newest_failures(board))]


def _failure(board: Leaderboard, row: Row) -> str:
    log = f"{board.paths.get(row.run, board.path)}/{in_trial(row.trial, LOG)}"
    return f"  {board.name(row)} ({row.cause}): {row.message}; log: {log}"


def _newest_failures(board: Leaderboard) -> list[Row]:
    return [row for row in board.rows if row.state == "failed"][-FAILURES:]


def _say(console: Console, text: str) -> None:
    console.print(Text(encodable(visible(text), console.encoding)), soft_wrap=not console.is_terminal)
