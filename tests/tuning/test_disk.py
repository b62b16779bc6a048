"""A disk that is nearly full, or full: nothing new is begun, what runs ends, and the run can be gone on with."""

from __future__ import annotations

import sqlite3
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from mnistlab import events
from mnistlab.errors import ExitCode, RunWriteError
from mnistlab.experiment import loader
from mnistlab.plugins.registry import Registry
from mnistlab.store import RunWriter, read_events, read_run
from mnistlab.store.fsck import check
from mnistlab.store.results import RunRecord, TrialResult
from mnistlab.tuning import study, usage
from mnistlab.tuning.confirm import confirm
from mnistlab.tuning.context import Executor, Search
from mnistlab.tuning.local_executor import LOCAL
from mnistlab.tuning.ray.executor import RAY_TUNE
from mnistlab.tuning.study import open_study
from mnistlab.tuning.usage import DiskLowError, shortage
from tests.tuning.conftest import Ran, RunTiny
from tests.tuning.test_search import moods

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("total", "free", "low"),
    [
        (1 << 40, (1 << 30) - 1, True),
        (1 << 40, 1 << 30, False),
        (1000, 49, True),  # of a small disk, a share
        (1000, 50, False),
    ],
)
def test_when_a_disk_is_nearly_full(monkeypatch: pytest.MonkeyPatch, total: int, free: int, low: bool) -> None:
    monkeypatch.setattr(usage.shutil, "disk_usage", lambda _: Usage(total, total - free, free))
    assert bool(shortage(Path())) is low


def test_a_disk_that_can_not_be_asked_is_not_nearly_full(tmp_path: Path) -> None:
    assert shortage(tmp_path / "missing") == ""


@pytest.mark.simulated
def test_no_trial_is_begun_on_a_disk_that_is_nearly_full(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def answer(_: object) -> Usage:
        told = "".join(path.read_text() for path in (tmp_path / "runs").glob("*/events.jsonl"))
        return Usage(1 << 40, 0, 1 << 20 if '"trial_started"' in told else 1 << 39)  # full while the first one runs

    monkeypatch.setattr(usage.shutil, "disk_usage", answer)
    with pytest.raises(DiskLowError, match=r"only 1 MiB are free on the disk of .*, and nothing is running") as raised:
        run_tiny(moods("good", "stuck", scheduler="none"))
    assert raised.value.exit_code == ExitCode.RESOURCES_VANISHED
    (run,) = (tmp_path / "runs").iterdir()
    told = [stamped.event for stamped in read_events(run)]
    assert sum(isinstance(event, events.TrialStarted) for event in told) == 1
    assert sum(isinstance(event, events.TrialFinished) for event in told) == 1  # what had begun has ended
    said = [event.message for event in told if isinstance(event, events.Warned)]
    assert len([text for text in said if "no trial is started until there is more" in text]) == 1
    assert check(run).sound


def full_once(monkeypatch: pytest.MonkeyPatch, runs: Path, kind: str, count: int = 1) -> None:
    """Have the disk be nearly full once so many events of a kind have been told."""

    def answer(_: object) -> Usage:
        told = "".join(path.read_text() for path in runs.glob("*/events.jsonl")).count(f'"{kind}"')
        return Usage(1 << 40, 0, 1 << 20 if told >= count else 1 << 39)

    monkeypatch.setattr(usage.shutil, "disk_usage", answer)


@pytest.mark.simulated
def test_a_search_whose_last_trial_leaves_little_disk_has_come_to_its_end(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full_once(monkeypatch, tmp_path / "runs", "trial_started", 2)
    ran = run_tiny(moods("good", "stuck", scheduler="none"))
    assert [one.state for one in ran.results] == ["complete", "complete"]
    assert ran.of(events.Warned) == []


@pytest.mark.simulated
def test_the_test_set_is_not_opened_in_vain_and_its_models_are_kept_for_later(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = moods("good", scheduler="none") + "\n[confirm]\ntop = 1\nbaseline = false\nseeds = 2\n"
    seen: list[RunRecord] = []

    def confirm_twice(search: Search, trials: list[TrialResult]) -> None:
        with monkeypatch.context() as patch:
            full_once(patch, tmp_path / "runs", "replicate_finished", 2)
            with pytest.raises(DiskLowError, match=r"only 1 MiB are free on .* so that the test set stays closed"):
                confirm(search, trials, "first")
        seen.append(read_run(search.store.path))
        confirm(search, trials, "second", seen[0])

    ran = run_tiny(text, then=confirm_twice)
    (before,) = seen
    assert before.test_openings == 0
    assert [one.test for one in before.replicates] == [None, None]
    after = read_run(ran.path)
    assert after.test_openings == 1
    assert [one.weights_sha256 for one in after.replicates] == [one.weights_sha256 for one in before.replicates]
    assert all(one.test for one in after.replicates)
    assert check(ran.path).sound


def refused(executor: Executor, kind: type[events.Event], *marks: pytest.MarkDecorator) -> Any:
    return pytest.param(executor, kind, marks=marks, id=f"{kind.__name__}-{'local' if executor is LOCAL else 'ray'}")


@pytest.mark.parametrize(
    ("executor", "kind"),
    [
        *(
            refused(LOCAL, kind, pytest.mark.simulated)
            for kind in (events.TrialStarted, events.TrialEpoch, events.TrialFinished)
        ),
        refused(
            RAY_TUNE, events.TrialStarted, pytest.mark.ray, pytest.mark.chaos
        ),  # Tune wraps the error in one of its own
        refused(RAY_TUNE, events.TrialEpoch, pytest.mark.ray, pytest.mark.chaos),
        refused(RAY_TUNE, events.TrialFinished, pytest.mark.ray, pytest.mark.chaos),
    ],
)
def test_a_write_that_is_refused_once_ends_the_search_with_its_own_words(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, executor: Executor, kind: type[events.Event]
) -> None:
    append, refusals = RunWriter.append, list[events.Event]()

    def refuse_once(store: RunWriter, event: events.Event) -> None:
        if isinstance(event, kind) and not refusals:
            refusals.append(event)
            raise RunWriteError("can't write events.jsonl: No space left on device")
        append(store, event)

    monkeypatch.setattr(RunWriter, "append", refuse_once)
    with pytest.raises(RunWriteError, match="No space left on device"):
        run_tiny(moods("good", "stuck", scheduler="none"), executor=executor)
    (run,) = (tmp_path / "runs").iterdir()
    assert check(run).sound
    there = Ran([], [], run)
    ran = run_tiny(moods("good", "stuck", scheduler="none"), executor=executor, goes_on=there)
    assert sorted((one.trial, one.state) for one in read_run(ran.path).trials) == [
        ("0000", "complete"),
        ("0001", "complete"),
    ]
    assert check(run).sound


def test_a_study_that_another_program_has_locked_is_told_in_our_words(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "BUSY_SECONDS", 1.5)
    file = tmp_path / "x.toml"
    file.write_text('name = "x"\n[model.mlp]\n[optimizer.sgd]\n')
    path, wanted = tmp_path / "study.db", loader.load(file, (), registry)
    opened = open_study(path, wanted.spec, wanted.space)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(RunWriteError, match=r"can't write .*study\.db: database is locked"):
        opened.ask()
    with pytest.raises(RunWriteError, match=r"can't write .*study\.db: database is locked"):
        open_study(path, wanted.spec, wanted.space)
    threading.Timer(0.3, lambda: other.execute("ROLLBACK")).start()
    assert opened.ask().number == 0  # SQLite waits for some seconds


@pytest.mark.simulated
def test_a_study_that_the_disk_refuses_ends_the_search_with_a_sound_run(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pages = list[int]()

    def on_a_small_disk(connection: sqlite3.Connection, _: object) -> None:
        pages.append(connection.execute("PRAGMA page_count").fetchone()[0])
        connection.execute(f"PRAGMA max_page_count={pages[0]}")

    text = moods("good", scheduler="none").replace('"grid"', '"random"').replace("gain = 1.0\n", "")
    with monkeypatch.context() as patch:
        patch.setattr(study, "_relax", on_a_small_disk)
        with pytest.raises(RunWriteError, match=r"can't write .*study\.db: database or disk is full") as raised:
            run_tiny(text.replace("trials = 1", "trials = 60"))
    assert raised.value.exit_code == ExitCode.RESOURCES_VANISHED
    (run,) = (tmp_path / "runs").iterdir()
    assert check(run).sound
    ran = run_tiny(text, goes_on=Ran([], [], run))
    assert "0000" in {one.trial for one in read_run(ran.path).trials if one.state == "complete"}
    assert check(run).sound
