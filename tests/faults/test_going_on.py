"""What `mnistlab fsck` makes of runs that were cut and gone on with: attempts, checkpoints, replicates."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mnistlab import events
from mnistlab.store import RunWriter, create_run, durable, read_events, read_run
from mnistlab.store.checkpoints import newest_checkpoint, write_checkpoint
from mnistlab.store.fsck import check, repair
from mnistlab.store.fsck.repair import end_event
from mnistlab.store.results import ReplicateResult, TrialResult
from tests.faults.sample import DAY, attempt, begin, epoch, faults, result, whole_run

WHOLE = result(0, "complete")
CUT = replace(result(0, "interrupted", 1), seconds=0.1)
CUT_LATER = result(0, "interrupted")
FAILED = result(0, "failed", 1)
RESUMED = events.RunResumed(
    command="mnistlab resume x", trials=1, parallel=1, devices="1 CPU", counts={}, again=("0000",)
)
OVER = events.RunFinished(outcome="done", exit_code=0, counts={}, seconds=1.0)


def again(epochs_before: int) -> events.TrialStarted:
    """The trial is started a second time, from its checkpoint after so many epochs."""
    return replace(begin(WHOLE), attempt=2, epoch=epochs_before)


def told(tmp_path: Path, *steps: events.Event | TrialResult) -> Path:
    """A run of which these events were told and these results written, in this order."""
    path = create_run(tmp_path, "story", DAY)

    def work(writer: RunWriter) -> None:
        writer.write_run({})
        for step in steps:
            writer.write_trial(step) if isinstance(step, TrialResult) else writer.append(step)

    attempt(path, work)
    return path


FIRST = (begin(WHOLE), epoch(WHOLE, 1))


@pytest.mark.parametrize("end", [CUT, FAILED], ids=["resumed", "retried"])
def test_a_trial_that_is_begun_again_keeps_the_result_of_before_until_it_has_another(
    tmp_path: Path, end: TrialResult
) -> None:
    path = told(tmp_path, *FIRST, end, end_event(end), OVER, RESUMED, again(0))
    assert check(path).findings == ()
    assert repair(path) == ()


def test_a_trial_that_has_used_its_budget_is_never_begun_again(tmp_path: Path) -> None:
    path = told(tmp_path, *FIRST, epoch(WHOLE, 2), WHOLE, end_event(WHOLE), RESUMED, again(0))
    assert any("trial 0000 begins again after its end" in one.message for one in faults(path))


def test_a_result_is_written_again_from_the_epochs_of_several_attempts(tmp_path: Path) -> None:
    path = told(tmp_path, *FIRST, epoch(WHOLE, 2), RESUMED, again(1), epoch(WHOLE, 2), WHOLE, end_event(WHOLE))
    assert check(path).findings == ()
    (path / "trials/0000/result.json").unlink()
    repair(path)
    assert read_run(path).trials == (WHOLE,)


def test_an_end_is_told_after_an_earlier_one(tmp_path: Path) -> None:
    path = told(tmp_path, *FIRST, CUT, end_event(CUT), OVER, RESUMED, again(1), epoch(WHOLE, 2), WHOLE)
    (found,) = check(path).findings
    assert (found.level, found.mend) == ("note", "tell")
    assert repair(path)
    assert check(path).findings == ()


def test_a_result_of_an_attempt_that_was_begun_again_is_not_taken_for_the_end_of_this_one(tmp_path: Path) -> None:
    path = told(tmp_path, *FIRST, epoch(WHOLE, 2), WHOLE, RESUMED, again(1))
    (found,) = check(path).findings
    assert (found.level, found.mend) == ("note", "")
    assert repair(path) == ()


# --- checkpoints --------------------------------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path) -> Path:
    """A run whose driver has died in the middle of a trial with checkpoints after epoch 1 and 2."""
    path = told(tmp_path, *FIRST, epoch(WHOLE, 2))
    keep = [(1, b"one" * 9), (2, b"two" * 9)]
    attempt(path, lambda writer: [write_checkpoint(writer, "0000", at, "val_accuracy", 0.5, what) for at, what in keep])
    return path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: list[tuple[str, Callable[[Path], None], set[str]]] = [
    ("state changed", lambda folder: flip(folder / "epoch-00002.safetensors"), {"json", "safetensors"}),
    ("state cut", lambda folder: (folder / "epoch-00002.safetensors").write_bytes(b""), {"json", "safetensors"}),
    ("state gone", lambda folder: (folder / "epoch-00002.safetensors").unlink(), {"json"}),
    ("manifest changed", lambda folder: flip(folder / "epoch-00002.json"), {"json", "safetensors"}),
    ("manifest cut", lambda folder: (folder / "epoch-00002.json").write_bytes(b"{"), {"json", "safetensors"}),
]


@pytest.mark.parametrize(("damage", "named"), [one[1:] for one in DAMAGE], ids=[one[0] for one in DAMAGE])
def test_a_damaged_checkpoint_is_named_and_moved_away_and_the_one_before_it_is_gone_on_from(
    running: Path, damage: Callable[[Path], None], named: set[str]
) -> None:
    assert check(running).findings == ()
    folder = running / "trials/0000/checkpoints"
    damage(folder)
    assert {one.file for one in faults(running)} == {f"trials/0000/checkpoints/epoch-00002.{kind}" for kind in named}
    said: list[str] = []
    assert newest_checkpoint(running, "0000", 2, said.append) == (1, b"one" * 9)
    (told,) = said
    assert "passed over" in told
    assert len(repair(running)) == len(named)
    assert check(running).findings == ()
    assert newest_checkpoint(running, "0000", 2) == (1, b"one" * 9)
    assert len([*(running / "quarantine/trials/0000/checkpoints").iterdir()]) == len(named)


def test_a_state_without_a_manifest_was_never_a_checkpoint_and_is_removed(running: Path) -> None:
    (running / "trials/0000/checkpoints/epoch-00002.json").unlink()
    (found,) = check(running).findings
    assert (found.level, found.file) == ("note", "trials/0000/checkpoints/epoch-00002.safetensors")
    assert repair(running) == ("trials/0000/checkpoints/epoch-00002.safetensors: removed",)
    assert check(running).findings == ()


@pytest.mark.parametrize("end", [WHOLE, FAILED], ids=["complete", "failed"])
def test_checkpoints_of_a_trial_that_has_ended_are_noted_and_removed(running: Path, end: TrialResult) -> None:
    attempt(running, lambda writer: (writer.write_trial(end), writer.append(end_event(end))))
    found = check(running).findings
    assert {(one.level, one.mend) for one in found if "checkpoints" in one.file} == {("note", "remove")}
    repair(running)
    assert not [*(running / "trials/0000/checkpoints").iterdir()]


def test_checkpoints_of_a_trial_that_is_tried_again_are_its_own(running: Path) -> None:
    """A result is there, of the attempt before, and events that tell of another one."""
    attempt(
        running,
        lambda writer: (
            writer.write_trial(FAILED),
            *map(writer.append, (end_event(FAILED), RESUMED, again(1), epoch(WHOLE, 2))),
        ),
    )
    assert not [one for one in check(running).findings if "checkpoints" in one.file]


def test_an_end_that_is_told_by_a_repair_leaves_no_checkpoints(running: Path) -> None:
    attempt(running, lambda writer: writer.write_trial(WHOLE))
    assert repair(running)
    assert check(running).findings == ()
    assert not (running / "trials/0000/checkpoints").exists()


def test_checkpoints_of_a_trial_that_was_interrupted_are_left_for_it_to_go_on_from(running: Path) -> None:
    attempt(running, lambda writer: (writer.write_trial(CUT_LATER), writer.append(end_event(CUT_LATER))))
    assert check(running).findings == ()
    assert repair(running) == ()
    assert newest_checkpoint(running, "0000", 2) == (2, b"two" * 9)


def test_an_interruption_that_is_told_by_a_repair_leaves_the_checkpoints(running: Path) -> None:
    attempt(running, lambda writer: writer.write_trial(CUT_LATER))
    (done,) = repair(running)
    assert "tells the end of trial 0000" in done
    assert check(running).findings == ()
    assert newest_checkpoint(running, "0000", 2) == (2, b"two" * 9)


# --- replicates ---------------------------------------------------------------------------------------------------


def test_a_replicate_that_has_ended_and_is_not_there_is_a_fault(tmp_path: Path) -> None:
    run = whole_run(tmp_path)
    (run / "trials/0000/replicates/1/result.json").unlink()
    assert "trials/0000/replicates/1/result.json" in {one.file for one in faults(run)}


def test_a_replicate_that_no_event_tells_is_noted(tmp_path: Path) -> None:
    run = whole_run(tmp_path)
    attempt(run, lambda writer: writer.write_replicate(replace(read_run(run).replicates[0], replicate=2, test=None)))
    for name in ("weights.safetensors", "per_image.safetensors"):
        first = run / "trials/0000/replicates/1" / name
        (run / "trials/0000/replicates/2" / name).write_bytes(first.read_bytes())
    (found,) = check(run).findings
    assert (found.level, found.file) == ("note", "trials/0000/replicates/2/result.json")


def test_a_replicate_that_says_otherwise_than_its_event_is_a_fault(tmp_path: Path) -> None:
    run = whole_run(tmp_path)
    attempt(run, lambda writer: writer.write_replicate(replace(read_run(run).replicates[0], seed=5)))
    (found,) = faults(run)
    assert "seed: 5 here, 99 in line" in found.message


# --- the power ----------------------------------------------------------------------------------------------------


def power_fails_after(path: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[RunWriter], object]) -> None:
    """Do `work`, then take from the event stream what was not flushed by then."""
    on_disk, fsync = [0], durable.fsync

    def noting(descriptor: int) -> None:
        fsync(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("events.jsonl"):
            on_disk[0] = os.fstat(descriptor).st_size

    writer = RunWriter(path)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "fsync", noting)
        work(writer)
    writer.close()
    os.truncate(path / "events.jsonl", on_disk[0])


def test_the_beginning_of_a_trial_is_on_the_disk_before_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the power could leave a result of a trial of which nothing tells that it was ever begun."""

    def end_a_trial(writer: RunWriter) -> None:
        for event in (*FIRST, epoch(WHOLE, 2)):
            writer.append(event)
        writer.write_trial(WHOLE)

    path = told(tmp_path)
    power_fails_after(path, monkeypatch, end_a_trial)  # before the event that tells the end
    (found,) = check(path).findings
    assert (found.level, found.mend) == ("note", "tell")


def test_the_beginning_of_a_replicate_is_on_the_disk_before_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [
        events.ReplicateStarted(trial="0000", replicate=1, seed=99),
        events.ReplicateEpoch(trial="0000", replicate=1, epoch=1, epochs=1, metrics={"seconds": 0.1}),
    ]

    def end_a_replicate(writer: RunWriter) -> None:
        for event in said:
            writer.append(event)
        writer.write_replicate(ReplicateResult(trial="0000", replicate=1, seed=99), b"weights")

    path = told(tmp_path)
    power_fails_after(path, monkeypatch, end_a_replicate)
    assert [one.seed for one in read_run(path).replicates] == [99]
    assert [one.event for one in read_events(path)] == said
