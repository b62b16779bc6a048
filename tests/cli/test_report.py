from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.test_leaderboard import made_by_hand
from tests.conftest import RunCli
from tests.report.pages import Page

RUN = Path(__file__).parents[1] / "recordings" / "quick-run"


def test_a_report_is_one_file_that_says_where_it_lies(tmp_path: Path, run_here: RunCli) -> None:
    done = run_here("report", str(RUN))
    assert (done.code, done.out) == (0, "Written: report.html\n"), done.err
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    shown = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "no longer in the run directory" in shown.text()
    assert len(shown.all("article")) == 1


def test_all_formats_lie_side_by_side_and_several_runs_in_one_file(tmp_path: Path, run_here: RunCli) -> None:
    made_by_hand(tmp_path / "runs", "one", 0.9, 0.8)
    shutil.copytree(RUN, tmp_path / "runs" / "quick")
    done = run_here("report", "one-2026-11-22-1", "quick", "--format", "all", "-o", "both.html")
    assert done.code == 0, done.err
    kinds = ("html", "md", "csv", "json", "parquet", "tex")
    assert {f"both.{kind}" for kind in kinds} <= {path.name for path in tmp_path.iterdir()}
    table = pd.read_parquet(tmp_path / "both.parquet")
    assert set(table["run"]) == {"one-2026-11-22-1", "quick-2026-11-25-1"}
    assert len(pd.read_csv(tmp_path / "both.csv")) == len(table)
    text = (tmp_path / "both.md").read_text(encoding="utf-8")
    assert text.count("\n## Ranking\n") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no run 'nowhere'"),
        ([str(RUN), "-o", "report.docx"], "--output report.docx: the format is one of html, md"),
        ([str(RUN), "--format", "pdf"], "--format pdf: the format is one of html, md"),
        ([str(RUN), "--no-predictions", "-o", "missing/report.md"], "can't write missing/report.md: No such file"),
    ],
)
def test_what_can_t_be_done_is_one_line_and_exit_code_2(
    tmp_path: Path, run_here: RunCli, arguments: list[str], said: str
) -> None:
    done = run_here("report", *arguments)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
