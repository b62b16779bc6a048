from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mnistlab.store import RunWriter, create_run
from mnistlab.store.results import ReplicateResult, TrialResult

RUN: dict[str, Any] = {
    "experiment": {"name": "hand", "training": {"epochs": 2}},
    "seed": 0,
    "metric": "val_accuracy",
    "metrics": ["val_accuracy"],
    "rule": "val_accuracy, higher is better",
    "dataset": {"name": "digits", "requested": "digits", "fallback": "", "validation": 300, "test": 500},
}


def made_by_hand(root: Path, name: str, *accuracies: float, split: str = "", confirmed: bool = False) -> Path:
    """A run directory whose trials reached `accuracies`; where `confirmed`, on two seeds more."""
    path = create_run(root, name, datetime(2026, 11, 22, tzinfo=UTC))
    writer = RunWriter(path)
    writer.write_run({"run": path.name, **RUN, "dataset": RUN["dataset"] | {"split_sha256": split}})
    for number, accuracy in enumerate(accuracies):
        part = {"plugin": "mnistlab:mlp", "distribution": "mnistlab", "version": "1", "config": {"width": 8 * number}}
        plan = {"model": {"name": "mlp", **part}, "optimizer": {"name": "sgd", **part}, "transforms": []}
        epoch = {"val_accuracy": accuracy, "val_loss": 0.1, "train_loss": 0.1, "images_per_second": 1.0, "seconds": 1.0}
        trial = TrialResult(
            trial=f"{number:04}",
            number=number,
            state="complete",
            seed=1,
            plan=plan | {"training": {"epochs": 2}},
            label="mlp",
            history=(epoch, epoch),
            metrics=epoch | {"parameters": 10},
            seconds=2.0,
        )
        writer.write_trial(trial)
        for seed in range(1, 1 + 2 * confirmed):
            right = "1" * round(100 * accuracy) + "0" * (100 - round(100 * accuracy))
            metrics = epoch | {"parameters": 10}
            again = ReplicateResult(trial=trial.trial, replicate=seed, seed=seed, metrics=metrics, val_correct=right)
            writer.write_replicate(again)
    writer.close()
    return path


def test_a_damaged_run_does_not_hide_the_others(run_here, tmp_path):
    made_by_hand(tmp_path / "runs", "first", 0.5, 0.75)
    damaged = made_by_hand(tmp_path / "runs", "damaged", 0.5)
    (damaged / "trials/0000/result.json").write_text('{"schema": "mnistlab.result/1"')
    made_by_hand(tmp_path / "runs", "other", 0.625)
    ran = run_here("leaderboard")
    assert ran.code == 6
    assert "Traceback" not in ran.err
    assert f"mnistlab: {Path('runs', damaged.name)}/trials/0000/result.json is damaged" in ran.err
    assert f"Next: mnistlab fsck {Path('runs', damaged.name)}\n" in ran.err
    assert "Run first-2026-11-22-1 on digits" in ran.out
    assert "Run other-2026-11-22-1 on digits" in ran.out
    assert "Rule: val_accuracy, higher is better" in ran.out
    ranks = [line.split()[:2] for line in ran.out.splitlines() if " complete " in line]
    assert ranks == [["1", "0001"], ["2", "0000"], ["1", "0000"]]


def test_runs_are_named_and_rows_limited_and_the_nearest_run_is_told(run_here, tmp_path):
    made_by_hand(tmp_path / "elsewhere", "first", 0.5, 0.75, 0.25)
    ran = run_here("leaderboard", "first-2026-11-22-1", "--runs", "elsewhere", "--top", "1")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[1] for line in ran.out.splitlines() if " complete " in line] == ["0001"]
    assert "... and 2 more trials." in ran.out
    assert "leaderboard" not in ran.out  # whoever has typed it needs no hint at it
    ran = run_here("leaderboard", "frist-2026-11-22-1", "--runs", "elsewhere")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "mnistlab: no run 'frist-2026-11-22-1' here or in elsewhere; did you mean 'first-2026-11-22-1'?\n"


def test_runs_of_one_split_are_ranked_together(run_here, tmp_path):
    made_by_hand(tmp_path / "runs", "first", 0.5, 0.75, split="1a2b")
    made_by_hand(tmp_path / "runs", "second", 0.625, split="1a2b")
    made_by_hand(tmp_path / "runs", "third", 0.7, split="3c4d")
    ran = run_here("leaderboard")
    assert (ran.code, ran.err) == (0, "")
    assert "2 runs on digits, all with the split 1a2b" in ran.out
    assert "Runs: first-2026-11-22-1 and second-2026-11-22-1" in ran.out
    assert "Run third-2026-11-22-1 on digits" in ran.out
    rows = [line.split()[:3] for line in ran.out.splitlines() if " complete " in line]
    assert rows == [
        ["1", "first-2026-11-22-1", "0001"],
        ["2", "second-2026-11-22-1", "0000"],
        ["3", "first-2026-11-22-1", "0000"],
        ["1", "0000", "complete"],
    ]


def test_every_format_holds_the_same_rows(run_here, tmp_path):
    made_by_hand(tmp_path / "runs", "first", 0.5, 0.75, 0.625)
    ran = run_here("leaderboard", "--format", "csv", "--sort", "-validation_mean", "--top", "2")
    assert (ran.code, ran.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(ran.out, newline="")))
    assert [(row["rank"], row["trial"], row["validation_mean"]) for row in rows] == [
        ("3", "0000", "0.5"),
        ("2", "0002", "0.625"),
    ]
    body = json.loads(run_here("leaderboard", "--format", "json").out)
    assert [row["trial"] for row in body["rankings"][0]["rows"]] == ["0001", "0002", "0000"]
    assert body["rankings"][0]["notes"][0].startswith("On digits, trial 0001")
    assert "| 1 | first-2026-11-22-1 | 0001 |" in run_here("leaderboard", "--format", "md").out
    assert "\\toprule" in run_here("leaderboard", "--format", "latex").out
    ran = run_here("leaderboard", "--format", "parquet", "-o", "ranking.parquet")
    assert (ran.code, ran.out) == (0, "")
    assert list(pd.read_parquet(tmp_path / "ranking.parquet")["param.model.mlp.width"]) == [8, 16, 0]
    ran = run_here("leaderboard", "--pareto", "-o", "ranking.txt")
    assert ran.out == ""
    written = (tmp_path / "ranking.txt").read_text()
    assert [line.split()[1] for line in written.splitlines() if " complete " in line] == ["0001"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "cvs"], "'cvs' is none of table, md, csv, json, latex, parquet. did you mean 'csv'?"),
        (["--format", "xml"], "'xml' is none of table, md, csv, json, latex, parquet."),
        (["--format", "parquet"], "say with -o FILE where to write it"),
        (["--sort", "parametrs"], "there is no column 'parametrs'; did you mean 'parameters'?"),
        (["--dataset", "mnist"], "no run is on 'mnist'; there are runs on digits"),
        (["--format", "md", "-o", "missing/x.md"], "can't write missing/x.md"),
    ],
)
def test_what_can_not_be_done_is_said(run_here, tmp_path, options: list[str], said: str):
    made_by_hand(tmp_path / "runs", "first", 0.5)
    ran = run_here("leaderboard", *options)
    assert (ran.code, ran.out) == (2, "")
    assert said in " ".join(ran.err.split())
    assert "known:" not in ran.err  # nothing is listed twice


def test_two_runs_are_compared(run_here, tmp_path):
    made_by_hand(tmp_path / "runs", "first", 0.95, split="1a2b", confirmed=True)
    made_by_hand(tmp_path / "runs", "second", 0.2, 0.6, split="1a2b", confirmed=True)
    ran = run_here("compare", "first-2026-11-22-1", "runs/second-2026-11-22-1:0000")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "A: first-2026-11-22-1:0000",
        "B: second-2026-11-22-1:0000",
        "On digits, by val_accuracy; shared seeds: 1, 2",
        "",
        "validation accuracy on 100 images, A - B: +75.00 points",
        *ran.out.splitlines()[5:7],
        "  McNemar's exact test of each seed's two models, p after Holm's correction:",
        "    seed 1: 75 images only A got right, 0 only B; p < 0.001, corrected < 0.001",
        "    seed 2: 75 images only A got right, 0 only B; p < 0.001, corrected < 0.001",
        "",
        *ran.out.splitlines()[-2:],
    ]
    assert ran.out.splitlines()[-1].startswith("This judges one pair, named beforehand.")
    assert ran.out.splitlines()[-2].startswith(
        "first-2026-11-22-1:0000 is better than second-2026-11-22-1:0000 by more"
    )


def test_what_can_not_be_compared_is_refused_with_what_is_near(run_here, tmp_path):
    for name in ("first", "second"):
        made_by_hand(tmp_path / "runs", name, 0.95)
    ran = run_here("compare", "first-2026-11-22-1", "secnd-2026-11-22-1")
    assert (ran.code, ran.out) == (2, "")
    assert "did you mean 'second-2026-11-22-1'?" in ran.err
    ran = run_here("compare", "first-2026-11-22-1", "0000")
    assert (ran.code, ran.out) == (2, "")
    assert "did you mean 'first-2026-11-22-1:0000'?" in ran.err
    ran = run_here("compare", "first-2026-11-22-1", "nonsense")
    assert (ran.code, ran.out) == (2, "")
    assert "the newest there are second-2026-11-22-1, first-2026-11-22-1" in ran.err
