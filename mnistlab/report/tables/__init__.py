"""A ranking as a table that leaves the program: csv, json and parquet for machines, Markdown and LaTeX for papers.

All formats are made from the same `Table`, so that rows, order and rounding are the same in each. Whatever text comes
from plugins is inert in all of them.
"""

from __future__ import annotations

from mnistlab.report.tables.columns import COLUMNS, Section, Table, direction, section, table_of
from mnistlab.report.tables.data import json_text, parquet_bytes
from mnistlab.report.tables.text import csv_text, latex_text, markdown_text

TEXTS = {"md": markdown_text, "csv": csv_text, "json": json_text, "latex": latex_text}
FORMATS = ("table", *TEXTS, "parquet")

__all__ = [
    "COLUMNS",
    "FORMATS",
    "TEXTS",
    "Section",
    "Table",
    "csv_text",
    "direction",
    "json_text",
    "latex_text",
    "markdown_text",
    "parquet_bytes",
    "section",
    "table_of",
]
