"""The columns of the ranking on a page. One more column is one more line in `COLUMNS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mnistlab.leaderboard import UNRANKED, Leaderboard, Row
from mnistlab.leaderboard.rows import state_text
from mnistlab.leaderboard.statistics import MeanSd
from mnistlab.util.text import metric_text, seconds_text

Cell = Callable[[Row, str], str]
"""From a row and the run's metric to a text, "" where there is nothing to show."""


@dataclass(frozen=True)
class Column:
    """A column: its title, the text of its cell and what it is sorted by (None: by the text)."""

    title: str
    cell: Cell
    sort: Callable[[Row], float | None] | None = None
    numeric: bool = False


@dataclass(frozen=True)
class Ranked:
    """A row as it is shown: the row itself, and (text, key to sort by) of each cell."""

    row: Row
    cells: tuple[tuple[str, str], ...]


def rank_number(row: Row) -> float:
    """Return a rank as a number, infinite where the row has none."""
    return math.inf if row.rank == UNRANKED else float(row.rank.rstrip("="))


def score(metric: str, means: MeanSd | None) -> str:
    """Return for example `98.44 ± 0.19 % (3)`: mean, standard deviation over seeds, number of seeds."""
    if means is None:
        return ""
    if means.sd is None:
        return metric_text(metric, means.mean)
    mean, sd = metric_text(metric, means.mean), metric_text(metric, means.sd)
    unit = " %" if mean.endswith(" %") else ""
    return f"{mean.removesuffix(' %')} ± {sd.removesuffix(' %')}{unit} ({means.n})"


def _interval(row: Row, _: str) -> str:
    if row.test is None:
        return ""
    return f"{100 * row.test.interval.low:.2f} - {100 * row.test.interval.high:.2f} %"


def _mean(means: MeanSd | None) -> float | None:
    return means.mean if means else None


def latency(row: Row, batch: int) -> float | None:
    """Return the seconds of one prediction of `batch` (1 or 256) images, or None where that was not measured."""
    if row.cost is None:
        return None
    return row.cost.latency_1 if batch == 1 else row.cost.latency_256


def _latency(row: Row, batch: int) -> str:
    seconds = latency(row, batch)
    return "" if seconds is None else f"{1000 * seconds:.3g} ms"


def _macs(row: Row) -> str:
    return "" if row.macs is None else f"{row.macs:,}"


COLUMNS = (
    Column("Rank", lambda row, _: row.rank, rank_number, numeric=True),
    Column("Rank range", lambda row, _: row.ranks, lambda row: row.rank_low, numeric=True),
    Column("Trial", lambda row, _: row.trial),
    Column("State", lambda row, _: state_text(row)),
    Column("Model · optimizer", lambda row, _: row.model),
    Column("Validation", lambda row, metric: score(metric, row.validation), lambda row: _mean(row.validation), True),
    Column(
        "Test accuracy",
        lambda row, _: score("test_accuracy", row.test.accuracy) if row.test else "",
        lambda row: row.test.accuracy.mean if row.test else None,
        True,
    ),
    Column("95 % interval (test)", _interval, lambda row: row.test.interval.low if row.test else None, True),
    Column(
        "Test without doubtful labels",
        lambda row, _: score("test_accuracy", row.test_clean.accuracy) if row.test_clean else "",
        lambda row: row.test_clean.accuracy.mean if row.test_clean else None,
        True,
    ),
    Column(
        "Parameters",
        lambda row, _: "" if row.parameters is None else f"{row.parameters:,}",
        lambda row: row.parameters,
        True,
    ),
    Column("MACs", lambda row, _: _macs(row), lambda row: row.macs, True),
    Column("Latency, batch 1", lambda row, _: _latency(row, 1), lambda row: latency(row, 1), True),
    Column("Latency, batch 256", lambda row, _: _latency(row, 256), lambda row: latency(row, 256), True),
    Column("Epochs", lambda row, _: f"{row.epochs * row.part:g}/{row.budget}", lambda row: row.epochs * row.part, True),
    Column("Time", lambda row, _: seconds_text(row.seconds), lambda row: row.seconds, True),
    Column("Seeds lost", lambda row, _: str(row.lost) if row.lost else "", lambda row: row.lost, True),
    Column("Settings", lambda row, _: row.settings),
)


def shown(board: Leaderboard) -> tuple[Column, ...]:
    """Return the columns in which at least one row has something to show."""
    return tuple(column for column in COLUMNS if any(column.cell(row, board.metric) for row in board.rows))


def table(board: Leaderboard, columns: Sequence[Column]) -> list[Ranked]:
    """Return the rows of the ranking with the cells of `columns`."""
    return [Ranked(row, tuple(_cell(column, row, board.metric) for column in columns)) for row in board.rows]


def _cell(column: Column, row: Row, metric: str) -> tuple[str, str]:
    """Return text and key; a key that is no number sorts last, whichever way."""
    text = column.cell(row, metric)
    if column.sort is None:
        return text, text
    value = column.sort(row)
    return text, "" if value is None or not math.isfinite(value) else f"{value:.10g}"
