"""Rankings for other programs: JSON and parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, cast

from mnistlab.report.tables.columns import Section, Table, about, table_of

SCHEMA = "mnistlab.leaderboard/1"
DTYPES = {"text": "string", "int": "Int64", "float": "Float64", "bool": "boolean"}


def json_text(sections: Sequence[Section]) -> str:
    """Return all there is as JSON: what is said of each ranking, and its rows. What is not a finite number is null.

    Only ASCII, and no character that means something in HTML, so that it may stand inside a page or on a terminal.
    """
    table, start = table_of(sections), 0
    columns = [{"name": name, "kind": kind} for name, kind in zip(table.names, table.kinds, strict=True)]
    rankings: list[str] = []
    for part in sections:
        rows = [dict(zip(table.names, cells, strict=True)) for cells in table.rows[start : start + len(part.rows)]]
        said = json.dumps(_finite({**about(part.board), "notes": list(part.notes)}), allow_nan=False)
        rankings.append(f'{said[:-1]}, "rows": {_lines([json.dumps(row, allow_nan=False) for row in rows])}}}')
        start += len(part.rows)
    head = f'{{"schema": {json.dumps(SCHEMA)},\n"columns": {_lines([json.dumps(column) for column in columns])},\n'
    text = f'{head}"rankings": {_lines(rankings)}}}\n'
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _lines(values: Sequence[str]) -> str:
    """Return a JSON list of values that are written already, a line each."""
    return "[\n" + ",\n".join(values) + "\n]"


def _finite(value: Any) -> Any:
    """Return a JSON value with null in place of what is not a finite number."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_finite(one) for one in cast("list[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parquet_bytes(sections: Sequence[Section]) -> bytes:
    """Return a parquet file with a row for each trial, its settings as columns `param.KEY`."""
    return cast("bytes", frame(table_of(sections)).to_parquet(None, index=False))


def frame(table: Table) -> Any:
    """Return a table as a pandas DataFrame with types that know missing values."""
    import pandas as pd  # noqa: PLC0415 - half a second that no other format needs

    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.names)
    named = zip(table.names, table.kinds, columns, strict=True)
    return pd.DataFrame({name: pd.array(list(cells), dtype=DTYPES[kind]) for name, kind, cells in named})
