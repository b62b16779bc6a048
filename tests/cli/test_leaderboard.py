from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mnistlab.results import TrialResult
from mnistlab.store import RunWriter, create_run

pytestmark = pytest.mark.e2e

RUN: dict[str, Any] = {
    "experiment": {"name": "hand", "training": {"epochs": 2}},
    "seed": 0,
    "metric": "val_accuracy",
    "metrics": ["val_accuracy"],
    "rule": "val_accuracy, higher is better",
    "dataset": {"name": "digits", "requested": "digits", "fallback": "", "validation": 300, "test": 500},
}


def made_by_hand(root: Path, name: str, *accuracies: float) -> Path:
    """A run directory whose trials reached `accuracies`."""
    path = create_run(root, name, datetime(2026, 11, 22, tzinfo=UTC))
    writer = RunWriter(path)
    writer.write_run({"run": path.name, **RUN})
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
    writer.close()
    return path


def test_a_damaged_run_does_not_hide_the_others(run_cli, tmp_path):
    made_by_hand(tmp_path / "runs", "first", 0.5, 0.75)
    damaged = made_by_hand(tmp_path / "runs", "damaged", 0.5)
    (damaged / "trials/0000/result.json").write_text('{"schema": "mnistlab.result/1"')
    made_by_hand(tmp_path / "runs", "other", 0.625)
    ran = run_cli("leaderboard")
    assert ran.code == 6
    assert "Traceback" not in ran.err
    assert f"mnistlab: {Path('runs', damaged.name)}/trials/0000/result.json is damaged" in ran.err
    assert "Run first-2026-11-22-1 on digits" in ran.out
    assert "Run other-2026-11-22-1 on digits" in ran.out
    assert "Rule: val_accuracy, higher is better" in ran.out
    ranks = [line.split()[:2] for line in ran.out.splitlines() if " complete " in line]
    assert ranks == [["1", "0001"], ["2", "0000"], ["1", "0000"]]


def test_runs_are_named_and_rows_limited_and_the_nearest_run_is_told(run_cli, tmp_path):
    made_by_hand(tmp_path / "elsewhere", "first", 0.5, 0.75, 0.25)
    ran = run_cli("leaderboard", "first-2026-11-22-1", "--runs", "elsewhere", "--top", "1")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[1] for line in ran.out.splitlines() if " complete " in line] == ["0001"]
    assert "... and 2 more trials." in ran.out
    assert "leaderboard" not in ran.out  # whoever has typed it needs no hint at it
    ran = run_cli("leaderboard", "frist-2026-11-22-1", "--runs", "elsewhere")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "mnistlab: no run 'frist-2026-11-22-1' here or in elsewhere; did you mean 'first-2026-11-22-1'?\n"
