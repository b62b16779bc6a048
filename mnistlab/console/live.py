"""The live view: one frame drawn from a state, never taller than the terminal and never wrapping.

`render` is pure. A thread of rich calls it twice a second, whatever the rate of events, so that the search never
waits for the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Group, JustifyMethod, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from mnistlab.console.plain import counts_text
from mnistlab.console.state import RunningTrial, ViewState
from mnistlab.console.text import plain_text
from mnistlab.labels import counted, metric_text, seconds_text

T = TypeVar("T")

REFRESHES_PER_SECOND = 2  # each frame costs some milliseconds of the cores that train
BAR = 10
PHASES = {
    "starting": "starting",
    "search": "searching",
    "confirmation": "confirming",
    "test": "testing",
    "stopping": "stopping",
    "over": "over",
}


@dataclass(frozen=True)
class _Field:
    """A column of the running trials, shown from `least` columns of terminal width on."""

    title: str
    least: int
    cell: Callable[[RunningTrial, ViewState, float], RenderableType]
    justify: JustifyMethod = "left"
    ratio: int | None = None
    width: int | None = None


def render(state: ViewState, now: float, width: int, height: int) -> RenderableType:
    """Return the frame at `now` (seconds of the run) for a terminal of `width` x `height`, at most height - 1 lines.

    Fewer rows fit a low terminal ("+3 more"), fewer columns a narrow one. The last line stays free for the cursor.
    """
    room = max(1, height - 1)
    top = _top(state, now, width)
    bottom = _bottom(state, lines=1 if height < 16 else 4)
    left = room - len(top) - len(bottom)
    if state.confirming:
        main = _confirmation(state, left, width)
    else:
        main = _running(state, now, left, width) if state.running else []
    return Group(*[*top, *main, *bottom][:room])


# --- what stands always -------------------------------------------------------------------------------------------


def _top(state: ViewState, now: float, width: int) -> list[RenderableType]:
    if state.start is None:
        return [plain_text(f"starting, {seconds_text(now)}")]
    start = state.start
    words = f"{start.run}  {start.dataset}, {start.algorithm}, {start.scheduler}, seed {start.seed}, {start.devices}"
    lines: list[RenderableType] = [plain_text(words, "bold")]
    if start.fallback:
        lines.append(plain_text(f"FALLBACK DATA: {start.dataset} ({start.fallback})", "bold yellow"))
    lines.append(_progress(state, now, width))
    if state.best:
        value = metric_text(state.metric, state.best.value)
        lines.append(plain_text(f"best so far  {value}  trial {state.best.trial}  {state.best.label}", "green"))
    return lines


def _progress(state: ViewState, now: float, width: int) -> RenderableType:
    ended = {"complete": state.complete, "pruned": state.pruned, "failed": state.failed}
    counts = {"running": len(state.running)} | ended
    elapsed = seconds_text(state.end.seconds if state.end else now)
    words = [PHASES[state.phase], f"{state.finished}/{state.total} finished", elapsed, counts_text(counts)]
    grid = Table.grid(Column(width=min(30, width // 5)), Column(no_wrap=True, overflow="ellipsis"), padding=(0, 2))
    bar = ProgressBar(total=max(1, state.total), completed=state.finished, width=min(30, width // 5))
    grid.add_row(bar, plain_text(", ".join(word for word in words if word)))
    return grid


def _bottom(state: ViewState, lines: int) -> list[RenderableType]:
    """Return failures and warnings, at most about `lines` lines of each kind."""
    shown: list[RenderableType] = []
    if state.last_failure:
        failure = state.last_failure
        log = f"  log: {failure.log}" if failure.log else ""
        text = f"failed: {_causes(state)}; last: {failure.who}: {failure.message}{log}"
        shown.append(plain_text(text, "red"))
    warnings = state.warnings[-lines:]
    for i, warning in enumerate(warnings):
        hidden = state.warned - len(warnings)
        more = f"  (+{hidden} more)" if hidden and i == len(warnings) - 1 else ""
        shown.append(plain_text(f"warning: {warning}{more}", "yellow"))
    if state.interruption:
        shown.append(plain_text(f"interrupted: {state.interruption}", "bold yellow"))
    return shown


def _causes(state: ViewState) -> str:
    return ", ".join(f"{cause} {count}" for cause, count in sorted(state.failures.items()))


# --- the running trials -------------------------------------------------------------------------------------------


def _running(state: ViewState, now: float, room: int, width: int) -> list[RenderableType]:
    trials = list(state.running.values())
    shown, hidden = _fit(trials, room)
    if not shown:
        return [*([_more(hidden, "running")] if room > 0 else [])]
    fields = [field for field in _FIELDS if field.least <= width]
    columns = [
        Column(justify=field.justify, ratio=field.ratio, width=field.width, no_wrap=True, overflow="ellipsis")
        for field in fields
    ]
    table = Table.grid(*columns, padding=(0, 2), expand=True)
    table.add_row(*(plain_text(state.metric if field.title == "metric" else field.title, "dim") for field in fields))
    for trial in shown:
        table.add_row(*(field.cell(trial, state, now) for field in fields))
    return [table, *([_more(hidden, "running")] if hidden else [])]


def _fit(rows: Sequence[T], room: int) -> tuple[Sequence[T], int]:
    """Return the rows that fit under a header in `room` lines, and how many do not (they need a line as well)."""
    if len(rows) + 1 <= room:
        return rows, 0
    count = max(0, room - 2)
    return rows[:count], len(rows) - count


def _more(hidden: int, what: str) -> Text:
    return plain_text(f"+{hidden} more {what}", "dim")


def _epoch_cell(trial: RunningTrial, _state: ViewState, _now: float) -> Text:
    return plain_text(f"{trial.epoch}/{trial.epochs}")


def _bar_cell(trial: RunningTrial, _state: ViewState, _now: float) -> ProgressBar:
    return ProgressBar(total=max(1, trial.epochs), completed=trial.epoch, width=BAR)


def _value_cell(trial: RunningTrial, state: ViewState, _now: float) -> Text:
    return plain_text(metric_text(state.metric, trial.value))


def _rate_cell(trial: RunningTrial, _state: ViewState, _now: float) -> Text:
    return plain_text(metric_text("images_per_second", trial.images_per_second))


def _elapsed_cell(trial: RunningTrial, _state: ViewState, now: float) -> Text:
    return plain_text(seconds_text(now - trial.started))


_FIELDS = (
    _Field("trial", 0, lambda trial, _state, _now: plain_text(trial.trial), width=6),
    _Field("plan", 40, lambda trial, _state, _now: plain_text(trial.label), ratio=1),
    _Field("", 80, _bar_cell, width=BAR),
    _Field("epoch", 0, _epoch_cell, "right", width=7),
    _Field("metric", 0, _value_cell, "right", width=12),
    _Field("images/s", 100, _rate_cell, "right", width=9),
    _Field("elapsed", 60, _elapsed_cell, "right", width=7),
)


# --- the confirmation ---------------------------------------------------------------------------------------------


def _confirmation(state: ViewState, room: int, width: int) -> list[RenderableType]:
    """Return plans x seeds, a cell filled for each replicate that has ended."""
    done, total = len(state.replicates), len(state.confirming) * state.seeds
    title = plain_text(f"confirmation: {done} of {counted(total, 'training')} on fresh seeds")
    shown, hidden = _fit(state.confirming, room)
    if room < 1:
        return []
    lines: list[RenderableType] = [title]
    if shown:
        lines.append(_replicate_table(state, shown, width))
    return [*lines, *([_more(hidden, "plans")] if hidden and room > 1 else [])]


def _replicate_table(state: ViewState, trials: Sequence[str], width: int) -> Table:
    cells = max(1, (width - 24) // 10)
    columns = [Column(width=8, no_wrap=True, justify="right") for _ in range(min(state.seeds, cells))]
    label = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    table = Table.grid(Column(width=6, no_wrap=True, overflow="ellipsis"), *columns, label, padding=(0, 2), expand=True)
    for trial in trials:
        values = sorted((key[1], value) for key, value in state.replicates.items() if key[0] == trial)
        words = [metric_text(state.metric, value) if value is not None else "failed" for _, value in values]
        words += ["..."] * (state.seeds - len(words))
        table.add_row(plain_text(trial), *map(plain_text, words[: len(columns)]), plain_text(state.label(trial)))
    return table
