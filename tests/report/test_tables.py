"""Rankings that leave the program: the same table in every format, and nothing of a plugin's is obeyed by any."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re
import shutil
import subprocess
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mnistlab.leaderboard import rank
from mnistlab.report.tables import (
    Section,
    csv_text,
    json_text,
    latex_text,
    markdown_text,
    parquet_bytes,
    section,
    table_of,
)
from mnistlab.report.tables.columns import NoSuchColumnError, Table
from mnistlab.report.tables.data import frame
from mnistlab.store.results import Cost, ReplicateResult
from tests.leaderboard.test_ranking import plan, record, replicates, trial

# What a plugin may call itself, its settings and its errors.
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><svg/onload=alert(1)>",
    "[red]bold[/red]",
    "**bold** _it_ `code` [link](http://evil.example) ![i](x) https://evil.example www.evil.example a|b",
    "# heading",
    "- item",
    "1. item",
    "\x1b[31mred\x1b]0;title\x07",
    "=HYPERLINK(1)",
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'=1",
    "\\input{/etc/passwd} \\write18{ls} $x$ 50% #1 a_b {x} ~ ^ & \\\\[1em]",
    "\u202eevil\u2066\u200f",
    "two\nlines\u2028three",
    "a,b;c\"d'e",
    "\ud800",
    "x" * 10_000,
)
VALUES = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(HOSTILE))


def board_of(names: list[str], values: list[Any], **changes: Any):
    """A ranking whose plugins, settings and errors are `names`, with `values` as the settings."""
    trials = []
    for number, name in enumerate(names):
        made = plan(number)
        about = {"name": name, "plugin": f"evil:{name}", "version": name, "config": {"x": values[number], name: 1}}
        failed = number % 3 == 2
        state = "failed" if failed else "complete"
        trials.append(
            trial(number, 0.9 + number / 1e4, state, plan=made | {"model": about}, cause="plugin", message=name)
        )
    return rank(
        record(*trials, confirmed=replicates(0, 0.95) if trials else [], run=names[0] if names else "", **changes)
    )


def read_csv(text: str, table: Table) -> list[list[Any]]:
    """Read a CSV back by what is said of it: a text loses its first apostrophe, an empty cell is nothing."""
    plain = lambda cell: cell[1:] if cell.startswith("'") else cell  # noqa: E731
    kinds = {"text": plain, "int": int, "float": float, "bool": lambda cell: {"true": True, "false": False}[cell]}
    head, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert tuple(map(plain, head)) == table.names
    return [[kinds[kind](c) if c else None for kind, c in zip(table.kinds, row, strict=True)] for row in rows]


boards = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=6), max_size=5).flatmap(
    lambda names: st.tuples(st.just(names), st.lists(VALUES, min_size=len(names), max_size=len(names)))
)


@settings(max_examples=40, deadline=None)
@given(boards)
def test_csv_json_and_parquet_read_back_to_the_same_table(tmp_path_factory, case):
    part = section(board_of(*case))
    table = table_of([part])
    expected = [list(row) for row in table.rows]
    assert read_csv(csv_text([part]), table) == expected
    body = json.loads(json_text([part]))
    assert body["schema"] == "mnistlab.leaderboard/1"
    assert [(c["name"], c["kind"]) for c in body["columns"]] == list(zip(table.names, table.kinds, strict=True))
    assert [[row[name] for name in table.names] for row in body["rankings"][0]["rows"]] == expected
    path = tmp_path_factory.mktemp("table") / "ranking.parquet"
    path.write_bytes(parquet_bytes([part]))
    back = pd.read_parquet(path)
    assert tuple(back.columns) == table.names
    assert [[None if cell is pd.NA else cell for cell in row] for row in back.itertuples(index=False)] == expected


@settings(max_examples=25, deadline=None)
@given(boards, st.randoms(use_true_random=False))
def test_the_order_of_the_trials_changes_no_byte(case, shuffle: random.Random):
    board = board_of(*case)
    trials = [trial(n, plan=plan(n)) for n in range(4)]
    parts = [section(board), section(rank(record(*trials)))]
    mixed = [section(board), section(rank(record(*shuffle.sample(trials, len(trials)))))]
    for write in (csv_text, json_text, markdown_text, latex_text):
        assert write(parts) == write(mixed)


@given(st.lists(st.floats(), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_what_is_not_finite_never_ranks_above_what_is(values: list[float]):
    board = rank(record(*(trial(n, value) for n, value in enumerate(values))))
    known = [row.validation is not None for row in board.rows]
    assert known == sorted(known, reverse=True)
    assert sum(known) == sum(map(math.isfinite, values))
    cells = [cell for row in table_of([section(board)]).rows for cell in row if isinstance(cell, float)]
    assert all(map(math.isfinite, cells))
    assert "NaN" not in json_text([section(board)])


def hostile_section() -> Section:
    board = board_of(list(HOSTILE), list(HOSTILE))
    return replace(section(board), notes=HOSTILE)


@pytest.mark.parametrize("write", [csv_text, json_text, markdown_text, latex_text])
def test_no_format_holds_control_or_direction_characters(write):
    text = write([hostile_section()])
    assert {c for c in text if not c.isprintable()} <= {"\n", "\r"}
    text.encode("utf-8")


def test_no_cell_of_a_csv_is_a_formula():
    text = csv_text([hostile_section()])
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    numbers = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?$")
    assert not [c for c in cells if c.startswith(("=", "+", "-", "@", "\t", "\r")) and not numbers.match(c)]
    assert text.count("\r\n") == len(HOSTILE) + 1
    assert "'=HYPERLINK(1)" in text


def test_json_may_stand_inside_a_page_or_on_a_terminal():
    text = json_text([hostile_section()])
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text)["rankings"][0]["notes"][0] == HOSTILE[0]


def test_markdown_is_a_table_of_text():
    text = markdown_text([hostile_section()])
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inside = [child.type for token in tokens if token.type == "inline" for child in token.children or ()]
    assert set(inside) <= {"text", "text_special"}
    kinds = {token.type.removesuffix("_open").removesuffix("_close") for token in tokens}
    assert kinds <= {"heading", "table", "thead", "tbody", "tr", "th", "td", "paragraph", "inline"}
    assert sum(token.type == "tr_open" for token in tokens) == len(HOSTILE) + 1
    assert sum(token.type == "heading_open" for token in tokens) == 1
    assert not re.search(r"https?://|www\.", text)
    shown = "".join(c.content for t in tokens if t.type == "inline" for c in t.children or ())
    assert "<script>alert(1)</script>" in shown


LATEX_COMMANDS = {
    *("toprule", "midrule", "bottomrule", "begin", "end", "noindent", "usepackage", "ldots", "pm", "textbar"),
    *("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textquotedbl"),
    *("textasciigrave", "textperiodcentered"),
}


def test_latex_holds_no_command_but_its_own():
    text = latex_text([hostile_section()])
    assert set(re.findall(r"\\([a-zA-Z]+)", text)) <= LATEX_COMMANDS
    assert r"\textbackslash{}input\{/etc/passwd\} \textbackslash{}write18" in text
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert len(body) == len(HOSTILE)
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1
    assert all(line.endswith(r" \\") for line in body)
    assert not re.search(r"(?<!\\)[$#%]", "".join(body))
    for line in body:
        depth = 0
        for found in re.findall(r"\\[{}]|[{}]", line):
            depth += {"{": 1, "}": -1}.get(found, 0)
            assert depth >= 0
        assert depth == 0


def test_long_names_are_whole_for_machines_and_short_for_people():
    part = section(board_of(["x" * 40_000], [1]))
    assert "x" * 31_999 + "…" in csv_text([part])
    assert "x" * 32_000 not in csv_text([part])
    assert max(map(len, markdown_text([part]).splitlines())) < 2_500


# --- what stands in it --------------------------------------------------------------------------------------------


def confirmed_section() -> Section:
    cost = Cost(macs=15_200_000, latency_1=0.001_234_567, latency_256=0.1, device="CPU, 2 threads")
    confirmed = [replace(r, cost=cost) for r in replicates(1, 0.951)] + replicates(2, 0.950)
    return section(rank(record(trial(1), trial(2), trial(0, 0.7), trial(4, state="failed"), confirmed=confirmed)))


def test_the_table_holds_what_is_known_rounded_once():
    table = table_of([confirmed_section()])
    first = dict(zip(table.names, table.rows[0], strict=True))
    assert (first["rank"], first["shared"], first["trial"], first["seeds"]) == (1, True, "0001", 5)
    assert (first["validation_mean"], first["validation_n"]) == (0.951, 5)
    assert (first["test_mean"], first["test_images"], first["clean_mean"]) == (0.9512, 10_000, None)
    assert (first["macs"], first["latency_1_ms"], first["latency_device"]) == (15_200_000, 1.2346, "CPU, 2 threads")
    assert (first["param.model.cnn.channels"], first["param.optimizer.adamw.lr"]) == (17, 0.003)
    last = dict(zip(table.names, table.rows[-1], strict=True))
    assert (last["rank"], last["shared"], last["state"], last["validation_mean"]) == (None, False, "failed", None)
    assert str(frame(table)["macs"].dtype) == "Int64"


def test_what_a_trial_multiplies_is_known_without_a_confirmation():
    counted = replace(trial(0, 0.7), metrics={**trial(0, 0.7).metrics, "macs": 40_000})
    table = table_of([section(rank(record(counted, trial(1))))])
    macs = table.names.index("macs")
    assert {row[table.names.index("trial")]: row[macs] for row in table.rows} == {"0000": 40_000, "0001": None}


def test_settings_of_mixed_kinds_become_text_and_small_numbers_stay():
    def with_lr(number: int, lr: Any, kernel: Any):
        made = plan(number)
        made["optimizer"]["config"] = {"lr": lr, "kernel": kernel}
        return trial(number, plan=made)

    table = table_of([section(rank(record(with_lr(0, 1e-9, 3), with_lr(1, 2, "same"), with_lr(2, 0.5, True))))])
    columns = {
        n: (k, [r[i] for r in table.rows]) for i, (n, k) in enumerate(zip(table.names, table.kinds, strict=True))
    }
    assert columns["param.optimizer.adamw.lr"] == ("float", [1e-9, 2.0, 0.5])
    assert columns["param.optimizer.adamw.kernel"] == ("text", ["3", "same", "true"])


def test_rows_are_sorted_by_a_column_with_the_best_first_and_what_is_missing_last():
    board = confirmed_section().board
    order = lambda sort: [row.trial for row in section(board, sort=sort).rows]  # noqa: E731
    assert order("validation_mean") == ["0001", "0002", "0000", "0004"]
    assert order("-validation_mean") == ["0000", "0002", "0001", "0004"]
    assert order("parameters") == ["0000", "0001", "0002", "0004"]
    assert order("-param.model.cnn.channels") == ["0004", "0002", "0001", "0000"]
    assert order("macs")[0] == "0001"
    assert [row.rank for row in section(board, sort="-parameters", top=2).rows] == ["-", "1="]
    with pytest.raises(NoSuchColumnError, match="did you mean 'parameters'"):
        section(board, sort="parametrs")


def test_people_read_percentages_and_machines_shares():
    part = confirmed_section()
    assert "| 95.12 | 0.02 | 5 |" in markdown_text([part])
    assert " & 95.12 & 0.02 & 5 & " in latex_text([part])
    assert "S[table-format=2.2]" in latex_text([part])
    assert "{--}" in latex_text([part])
    assert ",0.9512," in csv_text([part])


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["plain", "hostile", "unicode"])
def test_latex_compiles(name, tmp_path):
    if not (shutil.which("pdflatex") and _has_styles()):
        pytest.skip("needs pdflatex with booktabs and siunitx")
    others = section(board_of(["\u6a21\u578b \u2192 \u0416", "\xdc\xdf \xd7 \xb5 \u2013 \u201cx\u201d"], [1, 2]))
    part = {"plain": section(board_of(["cnn", "mlp"], [1, 2])), "hostile": hostile_section(), "unicode": others}[name]
    head, packages = "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n", "\\usepackage{booktabs,siunitx}\n"
    body = latex_text([replace(part, notes=(*part.notes, *HOSTILE[:-2], "\u6a21"))])
    page = f"{head}{packages}\\begin{{document}}\n{body}\\end{{document}}\n"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "page.pdf").stat().st_size > 1_000


def _has_styles() -> bool:
    command = ["kpsewhich", "booktabs.sty", "siunitx.sty"]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).stdout.count(b".sty") == 2


def test_a_ranking_of_nothing_is_a_table_of_nothing(tmp_path):
    part = section(rank(record()))
    assert csv_text([part]).count("\r\n") == 1
    assert json.loads(json_text([part]))["rankings"][0]["rows"] == []
    noted = [replace(part, notes=("There is no champion.",))]
    assert markdown_text(noted) == "## Run cnn-1 on mnist\n\nThere is no champion.\n"
    assert "tabular" not in latex_text(noted)
    assert "There is no champion." in latex_text(noted)
    (tmp_path / "none.parquet").write_bytes(parquet_bytes([part]))
    assert len(pd.read_parquet(tmp_path / "none.parquet")) == 0


@pytest.mark.parametrize(
    ("metric", "values", "shown"),
    [
        ("val_accuracy", (0.995401, 0.995402, 0.995401), "| 99.53 | 99.55 |"),
        ("val_accuracy", (1.0, 0.9999999, 1.0), "| 99.99 | 100.00 |"),
        ("val_loss", (0.0200001, 0.0200002, 0.0200001), "| 0.0199 | 0.0201 |"),
        ("val_loss", (1e-7, 2e-7, 1e-7), "| 0.0000 | 0.0001 |"),
    ],
)
def test_no_table_shows_an_interval_of_width_zero(metric: str, values: tuple[float, ...], shown: str):
    ones = [
        ReplicateResult(trial="0001", replicate=i, seed=i, metrics={metric: value}) for i, value in enumerate(values)
    ]
    part = section(rank(record(trial(1), confirmed=ones, metric=metric)))
    assert shown in markdown_text([part])
