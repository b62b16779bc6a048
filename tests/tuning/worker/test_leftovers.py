"""What lost workers have printed: which file is whose, where two workers have trained the same trial."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mnistlab.tuning.worker import leftovers

pytestmark = pytest.mark.simulated


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the logs, on a cluster of this node alone."""
    monkeypatch.setattr(leftovers, "_folder", lambda: tmp_path)
    monkeypatch.setattr(leftovers, "_own", lambda name: f"job-{name}")
    monkeypatch.setattr(leftovers, "_elsewhere", lambda _name: [])
    return tmp_path


@pytest.fixture
def dead() -> int:
    """The number of a process that is over."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def alive() -> Iterator[int]:
    """The number of a process that is not."""
    process = subprocess.Popen(["sleep", "100"])
    yield process.pid
    process.kill()
    process.wait()


def test_a_trial_that_changed_its_worker_has_the_dead_one_s_log_taken_alone(
    folder: Path, dead: int, alive: int
) -> None:
    gone = folder / f"job-0001.{dead}.log"
    gone.write_text("of the dead")
    others = {
        f"job-0001.{alive}.log": "of the living, which goes on with the trial: so it is in a population",
        f"job-0002.{dead}.log": "another trial's",
        f"job-0001-1.{dead}.log": "a replicate's",
        f"other-0001.{dead}.log": "another run's",
    }
    for name, text in others.items():
        (folder / name).write_text(text)
    assert leftovers.taken("0001") == "of the dead"
    assert leftovers.taken("0001") == ""  # once
    assert {path.name: path.read_text() for path in folder.iterdir()} == others


def test_what_is_not_here_is_asked_for_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_elsewhere", lambda name: ["", f"of {name}, on another node"])
    assert leftovers.taken("0001") == "of 0001, on another node"


def test_of_two_runs_in_one_cluster_each_takes_what_its_own_workers_have_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: int
) -> None:
    def works_for(job: str) -> None:
        """Be a process of that job, in a cluster of this node alone."""
        about = {"job_id": job, "node_id": "here", "temp_dir": str(tmp_path), "session_name": "session"}
        context = SimpleNamespace(**{f"get_{key}": lambda value=value: value for key, value in about.items()})
        there = SimpleNamespace(get_runtime_context=lambda: context, nodes=list, remote=lambda work: work)
        monkeypatch.setattr(leftovers, "ray", there)

    def dies_after(text: str) -> Path:
        with monkeypatch.context() as worker:
            worker.setattr(leftovers, "os", SimpleNamespace(getpid=lambda: dead))
            path = leftovers.place_of("0001")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    works_for("02000000")
    theirs = dies_after("of another run")
    works_for("01000000")
    assert leftovers.taken("0001") == ""
    ours = dies_after("of this run")
    assert leftovers.taken("0001") == "of this run"
    assert (ours.exists(), theirs.read_text()) == (False, "of another run")
