"""Rankings as text: CSV for spreadsheets, Markdown and LaTeX for people."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mnistlab.report.tables.columns import Cell, Section, table_of, title
from mnistlab.util.text import ACCURACIES, shortened, visible

FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
SHOWN = 200  # characters of a cell that people read
TOLD = 2_000  # characters of what is said below

# --- CSV ----------------------------------------------------------------------------------------------------------


def csv_text(sections: Sequence[Section]) -> str:
    """Return RFC 4180: CRLF, quotes where they are needed, one header.

    A text that a spreadsheet would take for a formula gets an apostrophe in front, and so does one that begins with
    an apostrophe: without its first apostrophe, each is what it was. Numbers stay numbers.
    """
    table, out = table_of(sections), io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([_csv_cell(name) for name in table.names])
    columns = zip(*table.rows, strict=True)
    cells = (_csv_cells(column, kind) for column, kind in zip(columns, table.kinds, strict=False))
    writer.writerows(zip(*cells, strict=True))
    return out.getvalue()


def _csv_cells(column: Sequence[Cell], kind: str) -> Sequence[Cell]:
    """Return a column as the writer takes it, which writes numbers so that they read back the same."""
    return column if kind in {"int", "float"} else [_csv_cell(cell) for cell in column]


def _csv_cell(cell: Cell) -> Cell:
    if isinstance(cell, str):
        return f"'{cell}" if cell.startswith(FORMULA) else cell
    return str(cell).lower() if isinstance(cell, bool) else cell


# --- what people read ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shown:
    """A column for people: of the table's, how many decimals, and by what it is multiplied; None decimals: text."""

    title: str
    name: str
    decimals: int | None = None
    scale: float = 1.0


def _shown(metric: str) -> list[_Shown]:
    decimals, scale, unit = (2, 100.0, " %") if metric in ACCURACIES else (4, 1.0, "")
    return [
        _Shown("run", "run"),
        _Shown("trial", "trial"),
        _Shown("state", "state"),
        _Shown("model", "model"),
        _Shown("settings", "settings"),
        _Shown(f"{metric}{unit}", "validation_mean", decimals, scale),
        _Shown("SD", "validation_sd", decimals, scale),
        _Shown("n", "validation_n", 0),
        _Shown("low", "validation_low", decimals, scale),
        _Shown("high", "validation_high", decimals, scale),
        _Shown("test %", "test_mean", 2, 100.0),
        _Shown("SD", "test_sd", 2, 100.0),
        _Shown("n", "test_n", 0),
        _Shown("low", "test_low", 2, 100.0),
        _Shown("high", "test_high", 2, 100.0),
        _Shown("without label errors %", "clean_mean", 2, 100.0),
        _Shown("P(best)", "best", 2),
        _Shown("parameters", "parameters", 0),
        _Shown("MACs", "macs", 0),
        _Shown("latency of 1, ms", "latency_1_ms", 3),
        _Shown("of 256, ms", "latency_256_ms", 3),
        _Shown("on", "latency_device"),
        _Shown("training, s", "seconds", 1),
        _Shown("epochs", "epochs", 0),
        _Shown("seeds", "seeds", 0),
        _Shown("plugins", "plugins"),
        _Shown("when", "created"),
    ]


@dataclass(frozen=True)
class _Column:
    """A column of texts; `number` where all of them are numbers or nothing."""

    title: str
    number: bool
    cells: tuple[str, ...]


def _columns(part: Section) -> list[_Column]:
    """Return the columns in which something stands; the rank as the ranking writes it."""
    table = table_of([part])
    made = [
        _Column("rank", number=False, cells=tuple(row.rank for row in part.rows)),
        _Column("range", number=False, cells=tuple(row.ranks for row in part.rows)),
    ]
    for shown in _shown(part.board.metric):
        place = table.names.index(shown.name)
        cells = tuple(_text(row[place], shown) for row in table.rows)
        if shown.name.endswith("_high"):  # the column before it is that of the other end
            pairs = [_apart(*ends, shown) for ends in zip(made[-1].cells, cells, strict=True)]
            made[-1] = replace(made[-1], cells=tuple(low for low, _ in pairs))
            cells = tuple(high for _, high in pairs)
        made.append(_Column(shown.title, shown.decimals is not None, cells))
    return [column for column in made if any(column.cells)]


def _apart(low: str, high: str, shown: _Shown) -> tuple[str, str]:
    """Return both ends of an interval; those that look the same move outward: no interval is shown with width zero."""
    if low != high or not low:
        return low, high
    digit, most = 10.0 ** -(shown.decimals or 0), shown.scale if shown.scale > 1 else math.inf
    ends = (max(0.0, float(low) - digit), min(most, float(high) + digit))
    return f"{ends[0]:.{shown.decimals}f}", f"{ends[1]:.{shown.decimals}f}"


def _text(cell: Cell, shown: _Shown) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str) or shown.decimals is None:
        return shortened(str(cell), SHOWN)
    return f"{shown.scale * cell:.{shown.decimals}f}"


# --- Markdown -----------------------------------------------------------------------------------------------------

_MARKDOWN = re.compile(r"([\\`*_\[\]{}<>()#|~&$@!])")


def markdown_text(sections: Sequence[Section]) -> str:
    """Return each ranking as a heading, a table and what is to be said of it."""
    return "\n".join(_markdown_section(part) for part in sections)


def _markdown_section(part: Section) -> str:
    columns = _columns(part)
    cells = ([c if column.number else _markdown(c) for c in column.cells] for column in columns)
    rows = [[_markdown(column.title) for column in columns], *zip(*cells, strict=True)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    rule = "|" + "|".join(" ---: " if column.number else " --- " for column in columns) + "|"
    notes = [f"\n{_markdown(shortened(note, TOLD))}" for note in part.notes]
    body = ["", lines[0], rule, *lines[1:]] if part.rows else []
    return "\n".join([f"## {_markdown(shortened(title(part.board), SHOWN))}", *body, *notes, ""])


def _markdown(text: str) -> str:
    """Return text that Markdown shows as it is: no markup, no HTML, no link, also none that it would find itself."""
    escaped = _MARKDOWN.sub(r"\\\1", visible(text.strip()))
    escaped = re.sub(r"(?i)(https?|ftp)://", r"\1:\\/\\/", escaped)
    escaped = re.sub(r"(?i)\b(www|mailto|xmpp)([.:])", r"\1\\\2", escaped)
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", escaped)  # what would begin a list, a rule or a heading


# --- LaTeX --------------------------------------------------------------------------------------------------------

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",
    "]": "{]}",
    "±": r"\(\pm\)",
    "·": r"\textperiodcentered{}",
    "…": r"\ldots{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_LAST_SIGN, _MORE_SIGNS = "\xff", "\u2013\u2014\u2018\u2019\u201c\u201d\u2022"  # what T1 fonts surely have
_PREAMBLE = "% needs \\usepackage[T1]{fontenc}, \\usepackage{booktabs} and \\usepackage{siunitx}\n"


def latex_text(sections: Sequence[Section]) -> str:
    """Return each ranking as a `tabular` of booktabs, with numbers in siunitx's S columns."""
    return _PREAMBLE + "\n".join(_latex_section(part) for part in sections)


def _latex_section(part: Section) -> str:
    columns = _columns(part)
    said = [
        f"\\noindent {_latex(shortened(title(part.board), SHOWN))}.",
        *(_latex(shortened(note, TOLD)) for note in part.notes),
        "",
    ]
    if not columns:
        return "\n".join(said)
    head = " & ".join(f"{{{_latex(column.title)}}}" for column in columns)
    rows = zip(*([_latex_cell(cell, column) for cell in column.cells] for column in columns), strict=True)
    return "\n".join(
        [
            f"\\begin{{tabular}}{{{''.join(_latex_kind(column) for column in columns)}}}",
            "\\toprule",
            f"{head} \\\\",
            "\\midrule",
            *(f"{' & '.join(row)} \\\\" for row in rows),
            "\\bottomrule",
            "\\end{tabular}",
            "",
            *said,
        ]
    )


def _latex_kind(column: _Column) -> str:
    if not column.number:
        return "l"
    parts = [cell.lstrip("-").partition(".") for cell in column.cells if cell]
    whole, decimals = max(len(part[0]) for part in parts), max(len(part[2]) for part in parts)
    return f"S[table-format={whole}.{decimals}]" if decimals else f"S[table-format={whole}]"


def _latex_cell(cell: str, column: _Column) -> str:
    if column.number:
        return cell or "{--}"
    return f"{{{_latex(cell)}}}" if cell else ""


def _latex(text: str) -> str:
    """Return text that pdflatex sets as it is; a sign that its T1 fonts lack, which it stops at, is named by number."""
    return "".join(_LATEX.get(c, c if c <= _LAST_SIGN or c in _MORE_SIGNS else _named(c)) for c in visible(text))


def _named(sign: str) -> str:
    return rf"\textbackslash{{}}u{ord(sign):04x}"
