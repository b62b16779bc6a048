"""What lost workers have printed: which file is whose, where two workers have trained the same trial."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mnistlab.tuning import leftovers


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the logs, on a cluster of this node alone."""
    monkeypatch.setattr(leftovers, "_folder", lambda: tmp_path)
    monkeypatch.setattr(leftovers, "_elsewhere", lambda _name: [])
    return tmp_path


@pytest.fixture
def dead() -> int:
    """The number of a process that is over."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_trial_that_changed_its_worker_has_the_dead_one_s_log_taken_alone(folder: Path, dead: int) -> None:
    living = leftovers.place_of("0001")  # as in a population: this process goes on with the trial
    assert living == folder / f"0001.{os.getpid()}.log"
    living.write_text("of the living")
    gone = folder / f"0001.{dead}.log"
    gone.write_text("of the dead")
    (folder / f"0002.{dead}.log").write_text("another trial's")
    (folder / f"0001-1.{dead}.log").write_text("a replicate's")
    assert leftovers.taken("0001") == "of the dead"
    assert leftovers.taken("0001") == ""  # once
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [living.name, f"0002.{dead}.log", f"0001-1.{dead}.log"]
    )


def test_what_is_not_here_is_asked_for_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_elsewhere", lambda name: ["", f"of {name}, on another node"])
    assert leftovers.taken("0001") == "of 0001, on another node"
