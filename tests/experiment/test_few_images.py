"""A search that trains on a part of the images: every row says so, and what reads the run again has the same part."""

from __future__ import annotations

import json

import pytest

from mnistlab.store import find_run, read_run
from tests.conftest import RunCli

TEXT = """
name = "few"
[data]
dataset = "digits"
validation = 300
train = 200
[model.mlp]
depth = 1
width = [32, 64]
[training]
epochs = 1
[search]
trials = 2
scheduler = "none"
[confirm]
top = 1
baseline = false
seeds = 1
"""
SAID = "digits (200 training images)"


@pytest.mark.simulated
def test_every_row_says_so_and_the_run_goes_on_with_the_same_images(run_here: RunCli, tmp_path) -> None:
    (tmp_path / "few.toml").write_text(TEXT)
    ran = run_here("search", "few.toml", "--executor", "local", "--ui", "plain")
    assert ran.code == 0, ran.err
    run = next((tmp_path / "runs").iterdir())
    data = read_run(run).run["dataset"]
    assert (data["train"], data["left_out"], len(data["train_indices"])) == (200, 797, 200)
    assert not set(data["train_indices"]) & set(data["validation_indices"])
    assert f"on {SAID}" in ran.out
    (ranking,) = json.loads(run_here("leaderboard", "--format", "json").out)["rankings"]
    assert [row["dataset"] for row in ranking["rows"]] == [SAID] * 2
    done = run_here("confirm", run.name, "--seeds", "2", "--executor", "local", "--ui", "plain")
    assert done.code == 0, done.err
    again = run_here("reproduce", run.name)
    assert "Agrees exactly" in again.out, again.err
    assert find_run(run.name, tmp_path / "runs") == run


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ("5", "data.train: 10 to 987 images can be trained on, or all 997 that do not validate, but 5 were asked for"),
        ("0", "[data.train] must be greater than 0"),
        ('"few"', "[data.train] must be a number"),
    ],
)
def test_a_part_that_can_t_be_is_refused(run_here: RunCli, tmp_path, train: str, said: str) -> None:
    (tmp_path / "few.toml").write_text(TEXT.replace("train = 200", f"train = {train}"))
    ran = run_here("check", "few.toml")
    assert ran.code in (2, 5)
    assert said in ran.err
