"""The tables of a frame: the trials that run, those that ended last, and the plans x seeds of a confirmation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from mnistlab.console.dashboard.glyphs import Signs
from mnistlab.console.dashboard.viewport import Look
from mnistlab.console.state import Ended, Replicate, RunningTrial, ViewState
from mnistlab.leaderboard.statistics import mean_interval
from mnistlab.store.metric import FIXED
from mnistlab.util.text import ACCURACIES, counted, listed, metric_text, plan_label, range_text, seconds_text

GAP = 2
PLAN_WIDTH = 100  # a plan's column is not wider, so that the numbers stay near
TRIAL = 5  # of a trial's name
CELL = 6  # of one training in the table of a confirmation
LEAST_PLAN = 16
WIDE_PLAN = 40  # from this on a label is made for the column; below, the usual one is cut


def wanted_rows(state: ViewState) -> int:
    """Return how many lines `at_work` would fill if there were room for all of it."""
    if state.confirms:
        return len(state.confirming) + 3
    if state.phase == "over":
        return 0
    return len(state.running) + 1 if state.running else int(state.phase == "search")


def at_work(state: ViewState, now: float, room: int, look: Look) -> list[Text]:
    """Return what runs, in at most `room` lines; how much of it is not shown is said."""
    if room < 1:
        return []
    if state.confirms:  # which stays when the run is over: it is what the run has found
        return _confirmation(state, room, look)
    if state.phase == "over":
        return []
    if state.running:
        return _running(state, now, room, look)
    if state.phase != "search" or state.start is None or state.finished or state.interrupted:
        return []
    workers = counted(state.start.parallel, "worker")
    return [look.line(f"starting {workers}: loading torch and the data takes some seconds", "dim")]


# --- trials -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A column of the running trials, shown from `least` columns of terminal width on; width 0 takes what is left."""

    name: str
    least: int
    width: int
    right: bool = False


_COLUMNS = (
    _Column("trial", 0, 5),
    _Column("plan", 0, 0),
    _Column("epoch", 0, 7, right=True),
    _Column("bar", 90, 8),
    _Column("metric", 0, 12, right=True),
    _Column("curve", 76, 10),
    _Column("images/s", 110, 8, right=True),
    _Column("elapsed", 60, 7, right=True),
)
_Widths = Sequence[tuple[_Column, int]]


def _running(state: ViewState, now: float, room: int, look: Look) -> list[Text]:
    trials = list(state.running.values())
    fit = len(trials) if len(trials) + 1 <= room else max(0, room - 2)
    widths = _widths([column for column in _COLUMNS if column.least <= look.width], look)
    plan = next(width for column, width in widths if column.name == "plan")
    titles = {column.name: column.name for column in _COLUMNS} | {
        "metric": state.metric.removeprefix("val_") if look.width < 60 else state.metric,
        "bar": "",
    }
    lines = [_row(titles, widths, look, "dim")] * bool(fit)
    lines += [_row(_cells(trial, state, now, look, plan), widths, look) for trial in trials[:fit]]
    return lines + _more(len(trials) - fit, "running", look)


def _cells(trial: RunningTrial, state: ViewState, now: float, look: Look, plan: int) -> dict[str, str]:
    """Return what each column says of a running trial; the plan's is `plan` cells wide."""
    signs = look.signs
    return {
        "trial": trial.trial,
        "plan": plan_label(trial.plan, plan) if plan >= WIDE_PLAN and trial.plan.get("model") else trial.label,
        "epoch": f"{trial.epoch}/{trial.epochs}",
        "bar": signs.bar(trial.epoch / max(1, trial.epochs), 8),
        "metric": "waiting" if trial.waiting else metric_text(state.metric, trial.value),
        "curve": signs.spark(trial.curve, 10),
        "images/s": metric_text("images_per_second", trial.images_per_second),
        "elapsed": seconds_text(now - trial.started),
    }


def _widths(columns: Sequence[_Column], look: Look) -> _Widths:
    narrow = look.width < 60
    fixed = [9 if column.name == "metric" and narrow else column.width for column in columns]
    left = look.width - sum(fixed) - GAP * (len(columns) - 1)
    return [(column, width or min(PLAN_WIDTH, max(1, left))) for column, width in zip(columns, fixed, strict=True)]


def _row(words: Mapping[str, str], widths: _Widths, look: Look, style: str = "") -> Text:
    cells = [look.signs.cell(words[column.name], width, right=column.right) for column, width in widths]
    return look.signs.line((" " * GAP).join(cells).rstrip(), style)


def _more(hidden: int, what: str, look: Look) -> list[Text]:
    return [look.line(f"+{hidden} more {what}", "dim")] if hidden else []


def ended(state: ViewState, room: int, look: Look) -> list[Text]:
    """Return the trials that ended last, the newest first, in at most `room` lines."""
    if state.phase not in {"search", "stopping"} or not state.recent:
        return []
    shown = list(reversed(state.recent))[: max(0, room - 1)]
    return [look.line("ended last", "dim"), *(_ended_row(one, state, look) for one in shown)] if shown else []


def sign_of(state: str, signs: Signs) -> str:
    """Return the sign that stands beside the word for how a trial has ended."""
    return {"complete": signs.done, "failed": signs.failed, "pruned": signs.pruned}.get(state, signs.stopped)


def _ended_row(one: Ended, state: ViewState, look: Look) -> Text:
    sign, value = sign_of(one.state, look.signs), metric_text(state.metric, one.value)
    head = f"{one.trial}   {sign} {one.state:<11}  {value:>9}  epoch {one.epoch:<3g}  {seconds_text(one.seconds):>6}  "
    return look.line(head + one.label, {"failed": "red", "complete": ""}.get(one.state, "dim"))


# --- the confirmation ---------------------------------------------------------------------------------------------


def _confirmation(state: ViewState, room: int, look: Look) -> list[Text]:
    """Return plans x seeds: the epochs of a training that runs, the value of one that has ended, the mean of all."""
    plans, width = len(state.confirming), max(TRIAL, *map(len, state.confirming))
    head = [look.line(confirmation_text(state))]
    if plans + 2 <= room:
        seeds = [f"seed {number}" if number == 1 else str(number) for number in range(1, state.seeds + 1)]
        head.append(_plan_row(width, "trial", "mean [95 % interval]", seeds, "plan", look, "dim"))
    fit = plans if plans + len(head) <= room else max(0, room - len(head) - 1)
    rows = [_plan_line(state, trial, look, width) for trial in state.confirming[:fit]]
    return [*head, *rows, *_more(plans - fit, "plans", look)][:room]


def _plan_line(state: ViewState, trial: str, look: Look, width: int) -> Text:
    ones = [state.replicates.get((trial, number)) for number in range(1, state.seeds + 1)]
    values = [one.value for one in ones if one is not None and one.state == "done" and one.value is not None]
    cells = [replicate_text(state.metric, one, look, out=trial in state.dropped) for one in ones]
    return _plan_row(width, trial, mean_text(state.metric, values), cells, state.label(trial), look)


def confirmation_text(state: ViewState) -> str:
    """Return for example `confirmation: 7 of 9 trainings on fresh seeds have ended; out of the race: 0003`."""
    of = " of before the search went on" if state.outdated else ""
    said = f"confirmation{of}: {state.replicated} of {counted(state.trainings, 'training')} on fresh seeds have ended"
    if state.dropped:
        said += f"; out of the race: {listed(state.dropped)}"
    if state.refit:
        said += f"; {state.refit} {'was' if state.refitted else 'is being'} trained on validation images too"
    if one := state.ensemble:
        score = metric_text("test_accuracy", one.test_accuracy)
        said += f"; {one.trial}, its {counted(one.members, 'seed')} together: test accuracy {score}"
    return said


def _plan_row(width: int, trial: str, mean: str, cells: Sequence[str], label: str, look: Look, style: str = "") -> Text:
    """Return a row: the mean with its interval, a cell for each seed as far as they fit, then the plan's settings."""
    head = f"{trial:<{width}}  {mean:<22}"
    room = max(0, (look.width - cell_len(head)) // (CELL + 1))
    more = f" +{len(cells) - room}" if len(cells) > room else ""
    shown = [look.signs.cell(cell, CELL, right=True) for cell in cells[: room - bool(more)]]
    text = f"{head}{' '.join(['', *shown])}{more}"
    left = look.width - cell_len(text) - GAP
    return look.line(text + (f"  {look.signs.cut(label, left)}" if left >= LEAST_PLAN else ""), style)


def mean_text(metric: str, values: Sequence[float]) -> str:
    """Return for example `98.91 [98.80, 99.02] %`: the mean over the seeds so far with its 95 % interval.

    It covers other seeds only: what other images would change is not known before the confirmation has ended. Where
    several seeds gave the same value, the interval is `[not known]`; a property of the plan itself has none.
    """
    if not values:
        return "-"
    mean, interval = sum(values) / len(values), mean_interval(values)
    text, unit = metric_text(metric, mean).removesuffix(" %"), " %" * (metric in ACCURACIES)
    if interval is None:
        doubtful = len(values) > 1 and metric not in FIXED
        return f"{text}{unit}{' [not known]' * doubtful}"
    most = 1.0 if metric in ACCURACIES else float("inf")  # Student's interval knows of no limits
    return f"{text} [{range_text(metric, interval.low, interval.high, most)}]{unit}"


def replicate_text(metric: str, one: Replicate | None, look: Look, *, out: bool = False) -> str:
    """Return what is known of one training: its value once it has ended, before that its epochs.

    One that a plan `out` of the race is spared is `out`.
    """
    if one is None:
        return "out" if out else "-"
    if one.state == "failed":
        return f"{look.signs.failed} fail"
    if one.state == "running":
        return f"{one.epoch}/{one.epochs}" if one.epochs else "start"
    return metric_text(metric, one.value).removesuffix(" %")
