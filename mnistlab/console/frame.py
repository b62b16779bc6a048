"""One frame of the dashboard: drawn from a state alone, never taller than the terminal and never wrapping.

A frame is made of sections. Each is a list of lines; what a low terminal has no room for goes by priority, the
running trials take what is left, and "+3 more" tells what is missing. In a narrow terminal columns go, by priority
too, before words are cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from mnistlab.console.eta import estimate
from mnistlab.console.signs import UNICODE, Signs
from mnistlab.console.state import Replicate, RunningTrial, ViewState
from mnistlab.labels import ACCURACIES, counted, metric_text, seconds_text
from mnistlab.statistics import mean_interval

GAP = 2
LEAST_ROWS = 3  # lines kept for what runs before less important sections get any
DRIVER_HINT = "Ctrl-C: stop after the running epochs and keep the ranking; twice: stop at once"
PHASES = {
    "starting": "starting",
    "search": "searching",
    "confirmation": "confirming",
    "test": "testing",
    "stopping": "stopping",
    "over": "over",
}


@dataclass(frozen=True)
class Look:
    """What a frame is drawn for: the terminal's size in cells, its signs, and what the last line says of keys."""

    width: int
    height: int
    signs: Signs = UNICODE
    hint: str = DRIVER_HINT


@dataclass(frozen=True)
class _Section:
    """Lines that stand or go together; the lowest `rank` goes last."""

    rank: int
    lines: list[Text]


def frame(state: ViewState, now: float, look: Look) -> list[Text]:
    """Return the lines of the frame at `now` (seconds of the run), at most `look.height - 1` of them."""
    room = max(1, look.height - 1)
    if state.start is None:
        return [look.signs.line(look.signs.cut(f"mnistlab: starting, {seconds_text(now)}", look.width))]
    above = [
        _Section(5, _header(state, look)),
        _Section(9, _plugins(state, look)),
        _Section(1, _fallback(state, look)),
        _Section(0, [_progress(state, now, look)]),
        _Section(2, _best(state, look)),
    ]
    below = [
        _Section(8, _machine(state, look)),
        _Section(7, _health(state, now, look)),
        _Section(3, _failures(state, look)),
        _Section(4, _warnings(state, look)),
        _Section(1, _stopping(state, look)),
        _Section(6, [look.signs.line(look.signs.cut(look.hint, look.width), "dim")] * bool(look.hint)),
    ]
    wanted = _wanted_rows(state)
    kept = _affordable([*above, *below], room - min(wanted, LEAST_ROWS))
    main = _main(state, now, room - sum(len(section.lines) for section in kept), look) if wanted else []
    lines = [line for section in above if section in kept for line in section.lines]
    lines += [*main, *(line for section in below if section in kept for line in section.lines)]
    return lines[:room]


def _affordable(sections: Sequence[_Section], room: int) -> list[_Section]:
    """Return the most important sections that fit into `room` lines; the first of all is always there."""
    kept: list[_Section] = []
    for section in sorted(sections, key=lambda section: section.rank):
        if section.lines and (section.rank == 0 or len(section.lines) <= room):
            kept.append(section)
            room -= len(section.lines)
    return kept


def _fitting(words: Sequence[str], look: Look, width: int | None = None) -> str:
    """Return the first words, joined, for as long as they fit; the very first one is cut rather than left out."""
    signs, room = look.signs, look.width if width is None else width
    shown = signs.cut(words[0], room) if words else ""
    for word in words[1:]:
        longer = signs.text(shown + signs.separator + word)
        if word and Text(longer).cell_len <= room:
            shown = longer
    return shown


# --- above --------------------------------------------------------------------------------------------------------


def _header(state: ViewState, look: Look) -> list[Text]:
    assert state.start is not None
    start = state.start
    words = [
        start.run,
        start.dataset,
        f"{start.algorithm}, {start.scheduler}",
        f"seed {start.seed}",
        start.devices,
        f"config {start.config}" if start.config else "",
        start.directory,
    ]
    return [look.signs.line(_fitting(words, look), "bold")]


def _plugins(state: ViewState, look: Look) -> list[Text]:
    assert state.start is not None
    names = [f"{name} {version}" for name, version in state.start.plugins.items()]
    if not names:
        return []
    shown = list(names)
    while len(shown) > 1 and len(_named(shown, names)) > look.width:
        shown.pop()
    return [look.signs.line(look.signs.cut(_named(shown, names), look.width), "dim")]


def _named(shown: Sequence[str], names: Sequence[str]) -> str:
    more = f", +{len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return f"plugins {', '.join(shown)}{more}"


def _fallback(state: ViewState, look: Look) -> list[Text]:
    assert state.start is not None
    if not state.start.fallback:
        return []
    words = f"FALLBACK DATA: {state.start.dataset} ({state.start.fallback})"
    return [look.signs.line(look.signs.cut(words, look.width), "bold yellow")]


def _progress(state: ViewState, now: float, look: Look) -> Text:
    elapsed = seconds_text(state.end.seconds if state.end else now)
    words = [
        f"{PHASES[state.phase]} {state.finished}/{state.total}",
        elapsed,
        _eta(state, now),
        f"{look.signs.failed} {state.failed} failed" if state.failed else "",
        f"{len(state.running)} running" if state.running else "",
        f"{state.queued} queued" if state.queued and state.phase == "search" else "",
        f"{look.signs.done} {state.complete} complete" if state.complete else "",
        f"{state.pruned} pruned" if state.pruned else "",
    ]
    width = min(30, look.width // 5) if look.width >= 60 else 0
    line = look.signs.line("")
    if width:
        line.append(look.signs.bar(_share(state), width), "cyan").append("  ")
    return line.append(_fitting(words, look, look.width - line.cell_len))


def _share(state: ViewState) -> float:
    """Return how much of the work is done, counted in trainings."""
    assert state.start is not None
    planned = state.start.confirm_top * state.start.confirm_seeds
    if state.confirming:
        planned = len(state.confirming) * state.seeds
    if state.phase == "over":
        return 1.0
    done = state.finished + sum(one.state != "running" for one in state.replicates.values())
    ended_search = state.total if not state.confirming else state.finished
    return done / max(1, ended_search + planned)


def _eta(state: ViewState, now: float) -> str:
    if state.phase not in {"search", "confirmation"}:
        return ""
    found = estimate(state, now)
    if found is None:
        return "ETA -"
    low, high = seconds_text(found.low), seconds_text(found.high)
    return f"ETA {low if low == high else f'{low} to {high}'} ({found.basis})"


def _best(state: ViewState, look: Look) -> list[Text]:
    if state.best is None:
        return []
    best, signs = state.best, look.signs
    head = f"best {metric_text(state.metric, best.value)}  trial {best.trial}  "
    found = f"  found at {seconds_text(best.t)}, after {counted(best.ended, 'trial')}"
    spark = signs.spark(state.best_curve, 12) if len(state.best_curve) > 1 else ""
    tail = found + (f"  {spark}" if spark else "")
    for end in (tail, found, ""):
        room = look.width - len(head) - len(end)
        if room >= 20 or not end:
            break
    return [signs.line(signs.cut(head + signs.cut(best.label, max(1, room)) + end, look.width), "green")]


# --- what runs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A column of the running trials, shown from `least` columns of terminal width on; width 0 takes what is left."""

    name: str
    least: int
    width: int
    right: bool = False


def _title_of_metric(state: ViewState, look: Look) -> str:
    return state.metric.removeprefix("val_") if look.width < 60 else state.metric


def _cells(trial: RunningTrial, state: ViewState, now: float, signs: Signs) -> dict[str, str]:
    """Return what each column says of a running trial."""
    return {
        "trial": trial.trial,
        "plan": trial.label,
        "bar": signs.bar(trial.epoch / max(1, trial.epochs), 8),
        "epoch": f"{trial.epoch}/{trial.epochs}",
        "metric": metric_text(state.metric, trial.value),
        "curve": signs.spark(trial.curve, 12),
        "images/s": metric_text("images_per_second", trial.images_per_second),
        "elapsed": seconds_text(now - trial.started),
    }


_COLUMNS = (
    _Column("trial", 0, 5),
    _Column("plan", 0, 0),
    _Column("bar", 80, 8),
    _Column("epoch", 0, 7, right=True),
    _Column("metric", 0, 12, right=True),
    _Column("curve", 100, 12),
    _Column("images/s", 110, 8, right=True),
    _Column("elapsed", 60, 7, right=True),
)


def _wanted_rows(state: ViewState) -> int:
    """Return how many lines what runs would fill if there were room for all of it."""
    if state.confirming and state.phase != "over":
        return len(state.confirming) + 2
    return len(state.running) + 1 if state.running else 0


def _main(state: ViewState, now: float, room: int, look: Look) -> list[Text]:
    if state.confirming:
        return _confirmation(state, room, look)
    shown, hidden = _shown(list(state.running.values()), room)
    columns = [column for column in _COLUMNS if column.least <= look.width]
    widths = _widths(columns, look)
    titles = {"bar": "", "metric": _title_of_metric(state, look)}
    lines = [_row({**{column.name: column.name for column in columns}, **titles}, widths, look, "dim")] * bool(shown)
    lines += [_row(_cells(trial, state, now, look.signs), widths, look) for trial in shown]
    return lines + _more(hidden, "running", look)


def _widths(columns: Sequence[_Column], look: Look) -> list[tuple[_Column, int]]:
    narrow = look.width < 60
    fixed = [9 if column.name == "metric" and narrow else column.width for column in columns]
    left = look.width - sum(fixed) - GAP * (len(columns) - 1)
    return [(column, width or max(1, left)) for column, width in zip(columns, fixed, strict=True)]


def _row(words: Mapping[str, str], widths: Sequence[tuple[_Column, int]], look: Look, style: str = "") -> Text:
    cells = [look.signs.cell(words[column.name], width, right=column.right) for column, width in widths]
    return look.signs.line((" " * GAP).join(cells), style)


def _shown(rows: Sequence[RunningTrial], room: int) -> tuple[Sequence[RunningTrial], int]:
    """Return the rows that fit under a title in `room` lines, and how many do not (they need a line as well)."""
    if len(rows) + 1 <= room:
        return rows, 0
    count = max(0, room - 2)
    return rows[:count], len(rows) - count


def _more(hidden: int, what: str, look: Look) -> list[Text]:
    return [look.signs.line(f"+{hidden} more {what}", "dim")] if hidden else []


# --- the confirmation ---------------------------------------------------------------------------------------------


def _confirmation(state: ViewState, room: int, look: Look) -> list[Text]:
    """Return plans x seeds: the epochs of a training that runs, the value of one that has ended, the mean of all."""
    if room < 1:
        return []
    done, total = state.replicated, len(state.confirming) * state.seeds
    title = f"confirmation: {done} of {counted(total, 'training')} on fresh seeds have ended"
    fit = len(state.confirming) if len(state.confirming) + 1 <= room else max(0, room - 2)
    lines = [look.signs.line(look.signs.cut(title, look.width))]
    lines += [_plan_line(state, trial, look) for trial in state.confirming[:fit]]
    return (lines + _more(len(state.confirming) - fit, "plans", look))[:room]


def _plan_line(state: ViewState, trial: str, look: Look) -> Text:
    ones = [state.replicates.get((trial, number)) for number in range(1, state.seeds + 1)]
    values = [one.value for one in ones if one and one.state == "done" and one.value is not None]
    head = f"{trial}  {look.signs.cell(_mean(state.metric, values), 24 if look.width >= 60 else 9)}"
    cells = [look.signs.cell(_replicate(state.metric, one, look.signs), 6, right=True) for one in ones]
    room = max(0, (look.width - len(head) - GAP) // (6 + 1))
    more = f" +{len(cells) - room}" if len(cells) > room else ""
    text = f"{head}{' '.join(['', *cells[: room - bool(more)]])}{more}"
    left = look.width - len(text) - GAP
    return look.signs.line(text + (f"  {look.signs.cut(state.label(trial), left)}" if left >= 12 else ""))


def _mean(metric: str, values: Sequence[float]) -> str:
    """Return for example `98.91 [98.80, 99.02] %`: the mean over the seeds so far with its 95 % interval."""
    if not values:
        return "-"
    mean, interval = sum(values) / len(values), mean_interval(values)
    text = metric_text(metric, mean)
    if interval is None:
        return text
    low, high = (metric_text(metric, value).removesuffix(" %") for value in (interval.low, interval.high))
    return f"{text.removesuffix(' %')} [{low}, {high}]{' %' if metric in ACCURACIES else ''}"


def _replicate(metric: str, one: Replicate | None, signs: Signs) -> str:
    if one is None:
        return "-"
    if one.state == "failed":
        return f"{signs.failed} fail"
    if one.state == "running":
        return f"{one.epoch}/{one.epochs}" if one.epochs else "start"
    return metric_text(metric, one.value).removesuffix(" %")


# --- below --------------------------------------------------------------------------------------------------------


def _machine(state: ViewState, look: Look) -> list[Text]:
    if state.resources is None:
        return []
    seen = state.resources
    words = [
        f"cpu {_percent(seen.cpu)}",
        f"memory {_gib(seen.memory_used)} of {_gib(seen.memory_total)} GiB",
        *(
            f"gpu{gpu.get('index', '')} {_percent(gpu.get('use'))}, "
            f"{_gib(gpu.get('memory_used'))} of {_gib(gpu.get('memory_total'))} GiB"
            for gpu in seen.gpus
        ),
        f"disk {_gib(seen.disk_free)} GiB free",
    ]
    return [look.signs.line(_fitting(words, look), "dim")]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _gib(amount: float | None) -> str:
    return "-" if amount is None else f"{amount / 2**30:.1f}"


def _health(state: ViewState, now: float, look: Look) -> list[Text]:
    """Return in words what sampler and scheduler are doing."""
    assert state.start is not None
    if state.phase not in {"search", "stopping"}:
        return []
    hours = max(1.0, now - state.began) / 3600
    rungs = sorted(state.rungs.items())
    several = len({bracket for bracket, _ in state.rungs}) > 1
    words = [
        f"{state.start.algorithm} proposes",
        f"{state.finished / hours:.0f} trials/h" if state.finished else "",
        *(
            f"{f'bracket {bracket}, ' * several}epoch {epoch}: kept {rung.kept} of {rung.reached}, "
            f"cutoff {metric_text(state.metric, rung.cutoff)}"
            for (bracket, epoch), rung in rungs
        ),
    ]
    return [look.signs.line(_fitting(words, look), "dim")]


def _failures(state: ViewState, look: Look) -> list[Text]:
    if state.last_failure is None:
        return []
    assert state.start is not None
    failure, signs = state.last_failure, look.signs
    causes = ", ".join(f"{cause} {count}" for cause, count in sorted(state.failures.items()))
    first = f"{signs.failed} failed: {causes}; last: {failure.who}: {failure.message}"
    log = f"log {state.start.directory}/{failure.log}" if failure.log else ""
    together = f"{first}; {log}" if log else first
    if Text(signs.text(together)).cell_len <= look.width or look.height < 16 or not log:
        return [signs.line(signs.cut(together, look.width), "red")]
    return [signs.line(signs.cut(text, look.width), "red") for text in (first, f"  {log}")]


def _warnings(state: ViewState, look: Look) -> list[Text]:
    shown = state.warnings[-(1 if look.height < 16 else 3) :]
    hidden = state.warned - len(shown)
    lines = [
        look.signs.line(look.signs.cut(f"{look.signs.warning} warning: {text}", look.width), "yellow") for text in shown
    ]
    return lines + _more(hidden, "warnings in events.jsonl", look) * (look.height >= 16)


def _stopping(state: ViewState, look: Look) -> list[Text]:
    """Return that the run was asked to stop, until it has."""
    asked = state.interruption or state.stop_asked
    if not asked:
        return []
    words = f"stopping ({asked}): what runs may end its epoch, then the ranking is printed; Ctrl-C again stops at once"
    return [look.signs.line(look.signs.cut(words, look.width), "bold yellow")]
