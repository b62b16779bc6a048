"""What a user sees who got something wrong: one message that says what would do, an exit code, never a traceback."""

from __future__ import annotations

import os
import sys

import pytest

from tests.conftest import FOUR_NAMES

GOOD = 'name = "x"\n[data]\ndataset = "digits"\n[model.mlp]\n'


@pytest.fixture
def wrong(run_here, tmp_path):
    """Run a command that has to fail with `code`, leaving the folder as it was; returns what it says."""

    def run(code: int, *arguments: object, text: str = GOOD, **environment: str) -> str:
        (tmp_path / "x.toml").write_text(text)
        before = sorted(os.listdir(tmp_path))
        ran = run_here(*arguments, **environment)
        assert ran.code == code, ran.err
        assert "Traceback" not in ran.err + ran.out
        assert sorted(os.listdir(tmp_path)) == before  # no run directory for a search that never began
        return ran.err

    return run


def test_all_faults_of_a_file_of_its_overrides_and_of_options_come_at_once(wrong):
    text = 'name = "X"\n"\\u001b[31mred" = 1\n[data]\ndataset = "digits"\n[model.ccn]\n[optimizer.sgd]\nlr = "fast"\n'
    options = ("--trials", 0, "--set", "confirm.seeds=many", "--time-budget", "soon")
    said = wrong(2, "search", "x.toml", *options, text=text)
    lines = said.splitlines()
    assert lines[0] == "mnistlab: x.toml: 7 faults"
    places = (
        "name",
        "search.trials",
        "search.time_budget",
        "confirm.seeds",
        "\\x1b[31mred",
        "model.ccn",
        "optimizer.sgd.lr",
    )
    assert [line.partition("] ")[0].strip() for line in lines[1:]] == [f"[{place}" for place in places]
    assert "(got 'many')" in said
    assert "did you mean 'cnn'?" in said
    assert "\x1b" not in said


def test_a_file_that_is_not_there(wrong):
    said = wrong(2, "check", "x1.toml")
    assert said == "mnistlab: x1.toml: 1 fault\n  [file] does not exist; did you mean 'x.toml'?\n"


def test_data_that_can_be_neither_found_nor_fetched(wrong):
    said = wrong(5, "train", "x.toml", text=GOOD.replace("digits", "mnist"))
    assert said.startswith("mnistlab: dataset 'mnist' is neither to be found nor to be fetched\n")
    assert "into a folder and name it by --data-dir" in said


def test_a_web_page_in_the_place_of_an_archive(wrong, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in FOUR_NAMES:
        (folder / f"{name}.gz").write_text("<!DOCTYPE html><title>404</title>")
    said = wrong(5, "search", "x.toml", "--data-dir", folder, text=GOOD.replace("digits", "mnist"))
    assert f"{FOUR_NAMES[0]}.gz" in said
    assert "HTML" in said


def test_more_than_the_machine_has(wrong):
    assert "100000" in wrong(2, "search", "x.toml", "--set", "resources.cpus_per_trial=100000")


def test_a_torch_and_a_torchvision_that_do_not_fit(wrong, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    fake = tmp_path / "fake"
    info = fake / "torchvision-9.9+other.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 9.9+other\n")
    (fake / "torchvision.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")\n')
    said = wrong(5, "check", "x.toml", PYTHONPATH=str(fake), PYTHONDONTWRITEBYTECODE="1")
    assert "and torchvision 9.9+other do not work together (operator torchvision::nms does not exist)" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", ["search x.toml", "resume x", "retry x --failed", "confirm x"])
def test_a_wrong_executor_is_told_with_the_other_wrong_options(wrong, command):
    said = wrong(2, *command.split(), "--executor", "lokal", "--ui", "plian")
    assert "[--ui] must be one of" in said
    assert "[--executor] must be one of ray, local (got 'lokal'); did you mean 'local'?" in said


def test_no_runs_and_no_such_option(wrong):
    assert wrong(2, "leaderboard") == (
        "mnistlab: no runs in runs; start one with: mnistlab search experiments/quick.toml\n"
    )
    assert "No such option" in wrong(2, "check", "--nonsense")
