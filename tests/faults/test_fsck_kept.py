"""A run of this format, kept for good: it is read, ranked and reported, and whoever finds it damaged says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mnistlab.cli.main import app, main
from mnistlab.store import read_run
from mnistlab.store.fsck import check

pytestmark = pytest.mark.simulated

GOLDEN = Path(__file__).parents[1] / "assets" / "run-of-format-1"


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "runs" / "golden"))


def test_the_kept_run_reads_and_only_its_weights_which_were_left_out_are_missed(golden: Path) -> None:
    record = read_run(golden)
    assert [one.state for one in record.trials] == ["complete"] * 3
    assert record.test_openings == 1
    report = check(golden)
    assert {one.file for one in report.findings} == {
        f"trials/0002/replicates/{number}/weights.safetensors" for number in (1, 2)
    }
    assert (report.events, report.results) == (42, 5)


def test_the_kept_run_is_ranked_and_reported(golden: Path, tmp_path: Path) -> None:
    ranking = CliRunner().invoke(app, ["leaderboard", str(golden)])
    assert ranking.exit_code == 0
    assert "1  0002   confirmed" in ranking.output
    page = tmp_path / "report.html"
    done = CliRunner().invoke(app, ["report", str(golden), "-o", str(page)])
    assert done.exit_code == 0, done.output
    assert "golden-2026-11-25-1" in page.read_text()


@pytest.mark.parametrize(
    "command",
    [
        "report RUN",
        "leaderboard RUN",
        "resume RUN",
        "retry RUN --failed",
        "confirm RUN",
        "compare RUN:0000 RUN:0001",
        "reproduce RUN 0000",
        "export RUN",
    ],
)
@pytest.mark.parametrize("file", ["run.json", "trials/0000/result.json"])
def test_whoever_finds_a_run_damaged_is_told_who_says_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path("runs", "golden")
    shutil.copytree(GOLDEN, run)
    content = bytearray((run / file).read_bytes())
    content[len(content) // 2] ^= 1
    (run / file).write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main(command.replace("RUN", "golden").split())
    said = capsys.readouterr().err
    assert ended.value.code == 6
    assert said.startswith(f"mnistlab: {run}/{file} is damaged: ")
    assert said.endswith(f"\nNext: mnistlab fsck {run}\n")
