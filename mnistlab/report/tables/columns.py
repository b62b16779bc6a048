"""The one table of which every format is a writing: typed columns, rounded once, text made harmless once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from mnistlab.errors import MnistlabError, near_miss
from mnistlab.leaderboard import Leaderboard, Row
from mnistlab.leaderboard.gain import gain_text
from mnistlab.leaderboard.statistics import wilson
from mnistlab.store.metric import Metric
from mnistlab.store.results import EnsembleResult
from mnistlab.util.text import Scalar, counted, visible

Kind = Literal["text", "int", "float", "bool"]
Cell = str | int | float | bool | None
Getter = Callable[[Leaderboard, Row], Any]

LONGEST = 32_000  # characters of a cell; a spreadsheet takes 32,767
PARAMETER = "param."


@dataclass(frozen=True)
class Column:
    """A column: numbers are rounded to `digits` decimals."""

    name: str
    kind: Kind
    get: Getter
    digits: int = 6


def _of(path: str) -> Getter:
    """Return what gets `a.b` of a row, None where a is None."""
    first, _, rest = path.partition(".")
    outer, inner = attrgetter(first), attrgetter(rest or first)
    if not rest:
        return lambda _, row: outer(row)
    return lambda _, row: None if (found := outer(row)) is None else inner(found)


def _means(name: str, path: str) -> tuple[Column, ...]:
    return (
        Column(f"{name}_mean", "float", _of(f"{path}.mean")),
        Column(f"{name}_sd", "float", _of(f"{path}.sd")),
        Column(f"{name}_n", "int", _of(f"{path}.n")),
    )


def _ends(name: str, path: str) -> tuple[Column, ...]:
    return tuple(Column(f"{name}_{end}", "float", _of(f"{path}.{end}")) for end in ("low", "high"))


def _milliseconds(path: str) -> Getter:
    seconds = _of(path)

    def get(board: Leaderboard, row: Row) -> float | None:
        found = seconds(board, row)
        return None if found is None else 1000 * found

    return get


def _rank(_: Leaderboard, row: Row) -> int | None:
    number = row.rank.rstrip("=")
    return int(number) if number.isdecimal() else None


COLUMNS: tuple[Column, ...] = (
    Column("dataset", "text", _of("dataset")),
    Column("split", "text", lambda board, _: board.split),
    Column("metric", "text", lambda board, _: board.metric),
    Column("rank", "int", _rank),
    Column("shared", "bool", lambda _, row: row.rank.endswith("=")),
    Column("rank_low", "int", _of("rank_low")),
    Column("rank_high", "int", _of("rank_high")),
    Column("run", "text", _of("run")),
    Column("trial", "text", _of("trial")),
    Column("state", "text", _of("state")),
    Column("baseline", "bool", _of("baseline")),
    Column("model", "text", _of("model")),
    Column("settings", "text", _of("settings")),
    *_means("validation", "validation"),
    *_ends("validation", "validation_interval"),
    *_means("test", "test.accuracy"),
    *_ends("test", "test.interval"),
    Column("test_images", "int", _of("test.images")),
    *_means("clean", "test_clean.accuracy"),
    *_ends("clean", "test_clean.interval"),
    Column("clean_images", "int", _of("test_clean.images")),
    Column("best", "float", _of("best"), 4),
    Column("tie_detectable", "float", _of("tie.detectable")),
    Column("tie_more_seeds", "int", _of("tie.more")),
    Column("parameters", "int", _of("parameters")),
    Column("macs", "int", _of("macs")),
    Column("latency_1_ms", "float", _milliseconds("cost.latency_1"), 4),
    Column("latency_256_ms", "float", _milliseconds("cost.latency_256"), 4),
    Column("latency_device", "text", _of("cost.device")),
    Column("seconds", "float", _of("seconds"), 3),
    Column("epochs", "int", _of("epochs")),
    Column("budget", "int", _of("budget")),
    Column("seeds", "int", _of("seeds")),
    Column("seeds_lost", "int", _of("lost")),
    Column("seeds_untried", "int", _of("untried")),
    Column("pareto", "bool", _of("front")),
    Column("plugins", "text", lambda _, row: "; ".join(row.plugins)),
    Column("created", "text", _of("created")),
    Column("cause", "text", _of("cause")),
    Column("message", "text", _of("message")),
)
_KINDS: tuple[Kind, ...] = tuple(column.kind for column in COLUMNS)
_BY_NAME = {column.name: column for column in COLUMNS}


# --- which rows ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A ranking with those of its rows that are shown, and what is to be said below them."""

    board: Leaderboard
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def section(board: Leaderboard, *, sort: str = "", front: bool = False, top: int | None = None) -> Section:
    """Return the rows of a ranking: in its order, or by a column; those of the front alone; the first `top` of them.

    Raises:
        NoSuchColumnError: with the nearest name, if there is no column `sort`.
    """
    rows = board.front() if front else board.rows
    return Section(board, tuple(_sorted(board, rows, sort) if sort else rows)[:top])


def direction(name: str, metric: str) -> int:
    """Return 1 where a column is sorted from its smallest value on, -1 where from its greatest on."""
    more = name.startswith(("test_", "clean_", "best")) or (
        name.startswith("validation_") and Metric(metric).higher_is_better and not name.endswith("_sd")
    )
    return -1 if more and not name.endswith("_sd") else 1


def _sorted(board: Leaderboard, rows: Sequence[Row], sort: str) -> list[Row]:
    """Return rows by a column, the best first, or with a minus before its name the worst; what is missing stands last.

    Rows that are equal keep their order.
    """
    name, sign = sort.removeprefix("-"), -1 if sort.startswith("-") else 1
    values = [(_sort_value(board, row, name), row) for row in rows]
    if not name.startswith(PARAMETER) and name not in _BY_NAME:
        hint = near_miss(name, list(_BY_NAME))
        raise NoSuchColumnError(f"--sort: there is no column '{name}'; {hint or 'see --format csv for their names'}")
    known = [pair for pair in values if pair[0] is not None]
    falling = sign * direction(name, board.metric) < 0
    known.sort(key=lambda pair: _comparable(pair[0]), reverse=falling)
    return [row for _, row in known] + [row for value, row in values if value is None]


def _sort_value(board: Leaderboard, row: Row, name: str) -> Cell:
    if name.startswith(PARAMETER):
        return row.values.get(name.removeprefix(PARAMETER))
    column = _BY_NAME.get(name)
    return None if column is None else cleaned(column.get(board, row), column.kind, column.digits)


def _comparable(value: Cell) -> tuple[bool, float, str]:
    """Return what sorts numbers before text."""
    return (True, 0.0, value) if isinstance(value, str) else (False, float(value or 0), "")


class NoSuchColumnError(MnistlabError):
    """A column that was named and is not there."""

    exit_code = MnistlabError.exit_code.USAGE


# --- the table ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Columns (name, kind) and rows of cells. None is what is not known: no cell is NaN, infinite or empty text."""

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    rows: tuple[tuple[Cell, ...], ...]


def table_of(sections: Sequence[Section]) -> Table:
    """Return the table of all rows: the fixed columns, then `param.KEY` for every setting, by name."""
    pairs = [(part.board, row) for part in sections for row in part.rows]
    columns = [_cells([c.get(board, row) for board, row in pairs], c.kind, c.digits) for c in COLUMNS]
    flat = _named([row.values for _, row in pairs])
    keys = sorted({key for each in flat for key in each})
    set_to = [[each.get(key) for each in flat] for key in keys]
    kinds: list[Kind] = [_kind(values) for values in set_to]
    columns += [_settings(values, kind) for values, kind in zip(set_to, kinds, strict=True)]
    return Table(
        names=(*(column.name for column in COLUMNS), *(f"{PARAMETER}{key}" for key in keys)),
        kinds=(*_KINDS, *kinds),
        rows=tuple(zip(*columns, strict=True)),
    )


def _named(flats: Sequence[Mapping[str, Scalar]]) -> Sequence[Mapping[str, Scalar]]:
    """Return settings under harmless keys, which they nearly always have."""
    names = {key: str(cleaned(key, "text")) for key in {key for flat in flats for key in flat}}
    if all(key == name for key, name in names.items()):
        return flats
    return [{names[key]: value for key, value in flat.items()} for flat in flats]


def _cells(values: Sequence[Any], kind: Kind, digits: int) -> list[Cell]:
    """Return a column of cells; most are what they should be already."""
    if kind in {"int", "bool"}:
        return [v if v is None or type(v) in {int, bool} else cleaned(v, kind) for v in values]
    return [None if v is None else cleaned(v, kind, digits) for v in values]


def cleaned(value: Any, kind: Kind, digits: int = 6) -> Cell:
    """Return a value as a cell: rounded, and text of printable characters; None for what is not there or not finite."""
    if value is None or value == "":
        return None
    if kind == "text":
        text = value if isinstance(value, str) and value.isprintable() else visible(str(value))
        return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    if kind == "float":
        return round(float(value), digits) + 0.0 if math.isfinite(value) else None  # + 0.0: no negative zero
    return bool(value) if kind == "bool" else int(value)


def _kind(values: Sequence[Any]) -> Kind:
    """Return the narrowest kind that holds all of the values of a setting; None is where a plan does not have it."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {bool}:
        return "bool"
    if kinds == {int} and _reach(values) < 2**63:
        return "int"
    return "float" if kinds <= {int, float} and (int not in kinds or _reach(values) <= 2**53) else "text"


def _reach(values: Sequence[Any]) -> int:
    """Return the greatest distance of whole numbers from 0."""
    return max(abs(value) for value in {value for value in values if type(value) is int})


def _settings(values: Sequence[Any], kind: Kind) -> list[Cell]:
    """Return a setting's column. Numbers are not rounded: a learning rate of 1e-7 must stay."""
    if kind in {"int", "bool"}:
        return list(values)
    if kind == "float":
        return [None if value is None or not math.isfinite(value) else float(value) + 0.0 for value in values]
    return [str(v).lower() if isinstance(v, bool) else cleaned(v, "text") for v in values]


def about(board: Leaderboard) -> Mapping[str, Any]:
    """Return what is said of a ranking as a whole, as a JSON object."""
    luck, gap = board.luck, board.luck.gap if board.luck else None
    return {
        "title": title(board),
        "runs": list(board.runs),
        "dataset": board.dataset,
        "fallback": board.fallback,
        "split": board.split,
        "metrics": list(board.metrics),
        "rule": board.rule,
        "test_openings": board.test_openings,
        "runs_before": board.runs_before,
        "champion": board.name(board.champion) if board.champion else None,
        "gain": _gain(board),
        "tied": list(board.tied),
        "better": list(board.better),
        "lacking": list(board.lacking),
        "failures": dict(board.failures),
        "ensemble": _ensemble(board.ensemble) if board.ensemble else None,
        "luck": luck
        and {
            "tried": luck.tried,
            "spread": luck.spread,
            "curse": luck.curse,
            "drop": luck.drop,
            "gap": gap and {"mean": gap.mean, "low": gap.interval.low, "high": gap.interval.high},
        },
    }


def _ensemble(one: EnsembleResult) -> Mapping[str, Any]:
    """Return what the champion's seeds have scored together; a prediction takes as many times one model's as `cost`."""
    interval = wilson(one.test.correct, one.test.images)
    return {
        "trial": one.trial,
        "replicates": list(one.replicates),
        "test_accuracy": one.test.accuracy,
        "test_low": interval.low,
        "test_high": interval.high,
        "test_images": one.test.images,
        "test_loss": one.test.loss,
        "val_accuracy": one.val_accuracy,
        "cost": len(one.replicates),
        "time": one.time,
    }


def _gain(board: Leaderboard) -> Mapping[str, Any] | None:
    """Return what searching has gained over the plan of all defaults, as numbers and as the sentence that is shown."""
    if board.gain is None:
        return None
    one, gap = board.gain, board.gain.difference
    plans = {"best_of": one.best_of, "others": one.others}
    said = {"kind": one.kind, "trial": one.trial, "seeds": one.seeds, "detectable": one.detectable, **plans}
    ends = gap and {"mean": gap.mean, "low": gap.interval.low, "high": gap.interval.high, "p": gap.p}
    return {**said, "difference": ends, "sentence": gain_text(board.metric, one)}


def title(board: Leaderboard) -> str:
    """Return for example `Run cnn-1 on mnist`, or `3 runs on mnist, split 1a2b3c4d5e6f`."""
    if len(board.runs) < 2:
        return f"Run {board.run} on {board.dataset}"
    return f"{counted(len(board.runs), 'run')} on {board.dataset}, split {board.split[:12]}"
