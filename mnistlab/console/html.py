"""The dashboard and the ranking as HTML for a notebook: pure functions of a state and of a board.

Elements and their own styles are all there is: no script, no style sheet and nothing from elsewhere, so that it looks
alike in every front end, also in one that does not trust the notebook. Text has the colour of the page and a state is
always a word, so both can be read on light and on dark. Whatever plugins and files say is shown as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from rich.text import Text

from mnistlab.console.dashboard import sections, tables
from mnistlab.console.dashboard.eta import Estimate
from mnistlab.console.dashboard.glyphs import UNICODE
from mnistlab.console.dashboard.viewport import Look
from mnistlab.console.ranking import notes, ranking_table
from mnistlab.console.state import Ended, RunningTrial, ViewState
from mnistlab.leaderboard import Leaderboard
from mnistlab.util.text import metric_text, plan_label, seconds_text, visible

HINT = "Interrupt the kernel: stop after the running epochs; every result is kept; twice: stop at once"
RUNNING, ROWS = 12, 16  # trials at work that are shown at most, and with those that ended last
LABEL = 100  # characters shown of a plan
SEEDS = 12  # columns of a confirmation

# A line of a notebook wraps, so lines are only cut where they would be no use any more.
_LOOK = Look(width=600, height=60, hint=HINT)
_RANKING = 120  # cells of a terminal: the columns of a ranking that fit there fit here

_GREY = "rgba(128,128,128,.35)"
_BOX = (
    f"font-family:system-ui,sans-serif;font-size:13px;line-height:1.6;padding:.6em 1em;border:1px solid {_GREY};"
    "border-radius:6px;overflow-x:auto;max-width:100em"
)
_MARK = "border-left:4px solid {};padding-left:.6em;margin:.3em 0"
_STYLES = {  # of the lines of a frame
    "bold": "font-weight:600",
    "dim": "opacity:.75",
    "green": _MARK.format("#2e9e5b"),
    "red": _MARK.format("#d64545"),
    "yellow": _MARK.format("#d09000"),
    "bold yellow": _MARK.format("#d09000") + ";font-weight:600",
}
_CELL = "padding:.1em .7em;border:none;vertical-align:top;font-variant-numeric:tabular-nums;text-align:"

LEFT, RIGHT, FOLDED = "left;white-space:nowrap", "right;white-space:nowrap", "left"
Column = tuple[str, str]
"""A column's title, and how its cells are set."""


# --- the dashboard ------------------------------------------------------------------------------------------------


def dashboard(state: ViewState, now: float, eta: Estimate | None = None) -> str:
    """Return the dashboard at `now` (seconds of the run); `eta` as for `frame`."""
    if state.start is None:
        return _box([_text_line(f"mnistlab: {state.step or 'starting'}, {seconds_text(now)}")])
    over = state.phase == "over"
    return _box(
        [
            _header(state),
            *_lines(sections.plugins(state, _LOOK), sections.fallback(state, _LOOK)),
            _bar(sections.share_done(state)),
            _text_line(UNICODE.separator.join(_progress(state, now, eta))),
            *_lines(sections.counts(state, _LOOK), sections.best(state, _LOOK)),
            *([] if over else _at_work(state, now)),
            *_lines(sections.health(state, now, _LOOK), sections.machine(state, _LOOK)),
            *_lines(sections.failures(state, _LOOK), sections.warnings(state, _LOOK)),
            *([] if over else _footer(state)),
        ]
    )


def _header(state: ViewState) -> str:
    """Return the name of the run, and beside it what else tells which one it is."""
    text = " ".join(line.plain for line in sections.header(state, _LOOK))
    name, _, rest = text.partition(UNICODE.separator)
    return f'<div><b>{escape(name)}</b> <span style="opacity:.75">{escape(rest)}</span></div>'


def _progress(state: ViewState, now: float, eta: Estimate | None) -> list[str]:
    """Return what the run is doing or, of one that is over, how it ended."""
    first, *rest = sections.progress_words(state, now, eta)
    return [f"{state.end.outcome}: {state.finished}/{state.total} trials" if state.end else first, *rest]


def _footer(state: ViewState) -> list[str]:
    """Return what an interrupt does or, once there was one, what it has done."""
    asked = state.interruption or state.stop_asked
    words = f"{sections.what_ends(state)}; interrupt again to stop at once"
    if state.at_once:
        words = "at once: what runs is cut short, what was written is kept"
    if not asked:
        return _lines(sections.hint(_LOOK))
    return [_text_line(f"stopping ({asked}): {words}", "bold yellow")]


def _at_work(state: ViewState, now: float) -> list[str]:
    if state.confirms:
        return [_confirmation(state)]
    if not state.running and not state.recent:
        return _lines(tables.at_work(state, now, 1, _LOOK))
    return _trials(state, now)


def _trials(state: ViewState, now: float) -> list[str]:
    """Return the table of the trials that run, and below them those that ended last."""
    running = list(state.running.values())
    shown = running[:RUNNING]
    ended = list(reversed(state.recent))[: ROWS - len(shown)]
    columns = [
        *_columns(LEFT, "trial", "state"),
        *_columns(FOLDED, "plan"),
        *_columns(RIGHT, "epoch", state.metric),
        *_columns(LEFT, ""),
        *_columns(RIGHT, "images/s", "time"),
    ]
    rows = [_running_cells(trial, state, now) for trial in shown]
    hidden = len(running) - len(shown)
    more = [_text_line(f"+{hidden} more running", "dim")] * bool(hidden)
    return [_table(columns, rows, dim=[_ended_cells(one, state) for one in ended]), *more]


def _running_cells(trial: RunningTrial, state: ViewState, now: float) -> list[str]:
    return [
        trial.trial,
        f"{UNICODE.queued} waiting" if trial.waiting else f"{UNICODE.running} running",
        plan_label(trial.plan, LABEL) if trial.plan.get("model") else trial.label,
        f"{trial.epoch}/{trial.epochs}",
        metric_text(state.metric, trial.value),
        UNICODE.spark(trial.curve, 12),
        metric_text("images_per_second", trial.images_per_second),
        seconds_text(now - trial.started),
    ]


def _ended_cells(one: Ended, state: ViewState) -> list[str]:
    how, value = f"{tables.sign_of(one.state, UNICODE)} {one.state}", metric_text(state.metric, one.value)
    return [one.trial, how, one.label, f"{one.epoch:g}", value, "", "", seconds_text(one.seconds)]


def _confirmation(state: ViewState) -> str:
    """Return plans x seeds: the epochs of a training that runs, the value of one that has ended, the mean of all."""
    numbers = list(range(1, state.seeds + 1))
    hidden = len(numbers[SEEDS:])
    seeds = [f"seed {number}" for number in numbers[:SEEDS]] + [f"+{hidden} more"] * bool(hidden)
    columns = [*_columns(LEFT, "trial"), *_columns(FOLDED, "plan"), *_columns(RIGHT, "mean [95 %]", *seeds)]
    rows = [_plan_cells(state, trial, numbers) for trial in state.confirming]
    return _text_line(tables.confirmation_text(state)) + _table(columns, rows)


def _plan_cells(state: ViewState, trial: str, numbers: Sequence[int]) -> list[str]:
    ones = [state.replicates.get((trial, number)) for number in numbers]
    values = [one.value for one in ones if one is not None and one.state == "done" and one.value is not None]
    out = trial in state.dropped
    texts = [tables.replicate_text(state.metric, one, _LOOK, out=out) for one in ones[:SEEDS]]
    return [trial, state.label(trial), tables.mean_text(state.metric, values), *texts, *[""] * (len(ones) > SEEDS)]


# --- the ranking --------------------------------------------------------------------------------------------------


def ranking(board: Leaderboard, *, ended: str = "", top: int | None = None) -> str:
    """Return a ranking with the rule above it, and below it what `mnistlab leaderboard` says too."""
    table = ranking_table(board, _RANKING, top=top)
    sides = [FOLDED if not column.no_wrap else RIGHT if column.justify == "right" else LEFT for column in table.columns]
    columns = [(_plain(column.header), side) for column, side in zip(table.columns, sides, strict=True)]
    rows = zip(*([_plain(cell) for cell in column.cells] for column in table.columns), strict=True)
    shown = [_table(columns, rows)] if board.rows else []
    above = [_text_line(f"Run {board.run} on {board.dataset}", "bold"), _text_line(board.rule, "dim")]
    below = [_text_line(text) for text in notes(board, ended=ended, top=top)]
    return _box([*above, *shown, *below, _text_line(f"Folder: {board.path}", "dim")])


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


# --- elements -----------------------------------------------------------------------------------------------------


def _box(parts: Iterable[str]) -> str:
    return f'<div style="{_BOX}">{"".join(parts)}</div>'


def _escaped(text: str) -> str:
    """Return `text` as HTML shows it: no markup in it takes effect, and no control character is left."""
    return escape(visible(text))


def _text_line(text: str, style: str = "") -> str:
    css = _STYLES.get(style)
    return f'<div style="{css}">{_escaped(text)}</div>' if css else f"<div>{_escaped(text)}</div>"


def _lines(*groups: Iterable[Text]) -> list[str]:
    """Return lines of a frame, which are harmless already, as a block each."""
    return [_text_line(line.plain, str(line.style)) for group in groups for line in group]


def _bar(share: float) -> str:
    per_cent = f"{100 * min(1.0, max(0.0, share)):.0f}"
    filled = f'<div style="width:{per_cent}%;height:100%;border-radius:4px;background:#3584e4"></div>'
    about = f'role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{per_cent}"'
    return f'<div {about} style="height:8px;border-radius:4px;background:{_GREY};margin:.4em 0">{filled}</div>'


def _columns(side: str, *titles: str) -> list[Column]:
    return [(title, side) for title in titles]


def _table(columns: Sequence[Column], rows: Iterable[Sequence[str]], dim: Iterable[Sequence[str]] = ()) -> str:
    """Return a table of texts; the rows of `dim` come last and stand back."""
    titles = "".join(f'<th scope="col" style="{_CELL}{side}">{_escaped(title)}</th>' for title, side in columns)
    body = "".join([*(_row(columns, row) for row in rows), *(_row(columns, row, ";opacity:.75") for row in dim)])
    style = "border-collapse:collapse;margin:.5em 0;border:none"
    return f'<table style="{style}"><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'


def _row(columns: Sequence[Column], texts: Sequence[str], style: str = "") -> str:
    cells = (
        f'<td style="{_CELL}{side}{style}">{_escaped(text)}</td>'
        for (_, side), text in zip(columns, texts, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"
