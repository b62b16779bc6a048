"""`mnistlab fsck`: what it finds, what it mends, what it leaves alone."""

from __future__ import annotations

import importlib
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mnistlab import events
from mnistlab.cli.main import app
from mnistlab.store import RunWriter, create_run, read_run
from mnistlab.store.checkpoints import discard_checkpoints, write_checkpoint
from mnistlab.store.fsck import check, repair
from mnistlab.store.jsonl import decode_line, encode_file, encode_line
from mnistlab.store.results import ReplicateResult, TestScore, TrialResult
from tests.faults.sample import DAY, attempt, begin, end_event, epoch, faults, result, write_trial

CHECKING = importlib.import_module("mnistlab.store.fsck.check")  # `mnistlab.store.fsck.check` itself is the function


def fsck(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["fsck", *map(str, arguments)])
    return done.exit_code, done.output or str(done.exception)


def change_lines(path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Rewrite a file of lines, with checksums that are right."""
    records = [record for line in path.read_bytes().splitlines() if (record := decode_line(line)) is not None]
    path.write_bytes(b"".join(map(encode_line, change(records))))


def change_result(path: Path, **change: object) -> None:
    body = json.loads(path.read_text())
    del body["crc"]
    path.write_bytes(encode_file(body | change))


def said(run: Path) -> str:
    return "\n".join(map(str, faults(run)))


def test_a_run_is_sound_and_what_was_looked_at_is_counted(run: Path) -> None:
    code, text = fsck(run)
    assert (code, text) == (0, f"{run}: sound (17 files, 21 events, 5 results, 1 weights looked at)\n")


def test_what_can_be_mended_is_offered_and_nothing_else(run: Path) -> None:
    (run / "trials/0001/result.json").write_text("{")
    code, text = fsck(run)
    assert code == 1
    assert text.endswith(f"Next: mnistlab fsck {run} --repair\n")
    _, text = fsck(run, "--repair")
    assert "Next: " not in text
    (run / "study.db").unlink(missing_ok=True)
    (run / "events.jsonl").write_bytes((run / "events.jsonl").read_bytes().replace(b'"epoch":1', b'"epoch":7', 1))
    code, text = fsck(run)  # a line that is not what was written can't be mended
    assert (code, "Next: " in text) == (1, False)


def test_as_json(run: Path) -> None:
    (run / "trials/0001/result.json").unlink()
    code, text = fsck(run, "--json")
    body = json.loads(text)
    assert code == 1
    assert (body["schema"], body["sound"], body["repairs"]) == ("mnistlab.fsck/1", False, [])
    assert [(one["level"], one["file"], one["mend"]) for one in body["findings"]] == [
        ("fault", "trials/0001/result.json", "rebuild")
    ]


def test_a_name_that_is_no_run_is_a_mistake_of_the_command_line(tmp_path: Path) -> None:
    code, text = fsck("nothing", "--runs", tmp_path)
    assert code != 0
    assert "no run 'nothing'" in text


# --- what is found ------------------------------------------------------------------------------------------------


def test_a_finished_trial_without_its_result_and_a_result_without_its_end(run: Path) -> None:
    (run / "trials/0002/result.json").unlink()
    assert said(run).startswith("fault: trials/0002/result.json: is missing, but line ")
    change_lines(run / "events.jsonl", lambda all_: [one for one in all_ if one["type"] != "trial_finished"])
    assert "trials/0000/result.json: is there, but events.jsonl doesn't tell that the trial ended" in said(run)


LINES: list[tuple[str, Callable[[list[dict[str, Any]]], list[dict[str, Any]]], str]] = [
    ("a gap", lambda all_: all_[:4] + all_[5:], "events.jsonl:5: seq is 6 after 4: 1 events are missing"),
    ("twice", lambda all_: [*all_[:5], *all_[4:]], "events.jsonl:6: seq is 5 after 5: it must count up by one"),
    ("time", lambda all_: [*all_[:5], all_[5] | {"t": -1.0}, *all_[6:]], "events.jsonl:6: t is -1.0 after"),
    ("keys", lambda all_: [{k: v for k, v in one.items() if k != "step"} for one in all_], "lacks keys of its type"),
    ("format", lambda all_: [all_[0] | {"schema": "mnistlab.event/2"}, *all_[1:]], "a newer mnistlab wrote it"),
]


@pytest.mark.parametrize(("change", "message"), [one[1:] for one in LINES], ids=[one[0] for one in LINES])
def test_events_that_are_not_one_story(run: Path, change: Any, message: str) -> None:
    change_lines(run / "events.jsonl", change)
    assert message in said(run)


def story(tmp_path: Path, *told: events.Event) -> str:
    path = create_run(tmp_path, "story", DAY)
    attempt(path, lambda writer: [writer.append(event) for event in told])
    return "\n".join(str(one) for one in check(path).findings if one.file == "events.jsonl")


A = result(0, "complete")
CUT = result(0, "interrupted")
AGAIN = events.RunPreparing(run="story", step="going on")


def second(one: TrialResult) -> events.TrialStarted:
    """The start of its second attempt."""
    return replace(begin(one), attempt=2)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ([begin(A), epoch(A, 2), epoch(A, 1)], "trial 0000 is at epoch 1 after 2: progress can't go back"),
        ([begin(A), epoch(A, 1), epoch(A, 1)], "trial 0000 is at epoch 1 after 1"),
        ([begin(A), begin(A)], "trial 0000 has begun already, in line 1"),
        ([begin(A), end_event(A), end_event(A)], "trial 0000 ends again; it ended in line 2"),
        ([begin(A), end_event(A), AGAIN, begin(A)], "trial 0000 begins again after its end in line 2"),
        ([begin(A), end_event(A), epoch(A, 1)], "has an epoch after its end"),
        ([end_event(A)], "trial 0000 ends without a beginning"),
        ([begin(A), epoch(A, 1), epoch(A, 2), AGAIN, epoch(A, 2), end_event(A)], ""),  # from its checkpoint
        ([begin(A), epoch(A, 1), AGAIN, second(A), epoch(A, 1)], ""),
        ([begin(A), end_event(CUT), AGAIN, second(A), epoch(A, 1)], ""),
        ([begin(A), AGAIN, begin(A)], "trial 0000 has begun already, in line 1"),
        ([begin(A), epoch(A, 1), second(A), epoch(A, 1)], ""),  # its worker was lost
        ([begin(A), end_event(CUT), AGAIN, second(replace(A, plan={}))], "trial 0000 is another one than in line 1"),
    ],
)
def test_a_trial_goes_forward_and_ends_once(tmp_path: Path, told: list[events.Event], message: str) -> None:
    found = story(tmp_path, *told)
    assert message in found
    assert bool(found) == bool(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": "pruned"}, "state: 'pruned' here, 'complete' in line"),
        ({"history": []}, "is complete without an epoch"),
        ({"metrics": {"val_accuracy": 1.0}}, "metrics: {'val_accuracy': 1.0} here"),
        ({"seed": 8}, "seed: 8 here, 7 in line"),
        ({"trial": "0001"}, "says that it is of trial 0001, and lies in the folder of 0000"),
        ({"number": 5}, "says that it is trial number 5"),
        ({"schema": "mnistlab.result/2"}, "a newer mnistlab wrote it"),
    ],
)
def test_a_result_that_is_not_the_one_that_was_told(run: Path, change: dict[str, object], message: str) -> None:
    change_result(run / "trials/0000/result.json", **change)
    assert message in said(run)


@pytest.mark.parametrize("name", ["weights.safetensors", "per_image.safetensors"])
def test_tensors_that_are_others_or_gone(run: Path, name: str) -> None:
    tensors = run / "trials/0000/replicates/1" / name
    tensors.write_bytes(b"others")
    assert f"{name}: sha256 is" in said(run)
    tensors.unlink()
    assert f"{name}: can't be read: No such file or directory" in said(run)


@pytest.mark.parametrize("name", ["weights.safetensors", "per_image.safetensors"])
def test_tensors_without_a_result_are_what_a_writer_that_died_has_left(run: Path, name: str) -> None:
    folder = run / "trials/0000/replicates/2"
    folder.mkdir()
    (folder / name).write_bytes(b"tensors")
    (found,) = check(run).findings
    assert (found.level, found.file) == ("note", f"trials/0000/replicates/2/{name}")
    assert "has no result beside it" in found.message


def test_a_score_that_the_ledger_has_otherwise_or_not_at_all(run: Path) -> None:
    ledger = run / "test_ledger.jsonl"
    change_lines(ledger, lambda all_: [one | {"correct": 2} if "correct" in one else one for one in all_])
    assert "test_ledger.jsonl:2: 2 images are right here, 1 in trials/0000/replicates/1/result.json" in said(run)
    ledger.unlink()
    assert "has a test score of which test_ledger.jsonl says nothing" in said(run)


def test_an_ensemble_of_models_that_are_not_there_or_without_an_opening(run: Path) -> None:
    ledger = run / "test_ledger.jsonl"
    (one,) = read_run(run).replicates
    entry = {"schema": "mnistlab.ledger/1", "type": "ensemble", "trial": "0000", "replicates": [1], "time": "then"}
    entry |= {"weights_sha256": [one.weights_sha256], "correct": 1, "images": 2, "loss": 0.5, "val_accuracy": None}
    change_lines(ledger, lambda all_: [*all_, entry])
    assert said(run) == ""
    for wrong in ({"replicates": [2]}, {"weights_sha256": ["0"]}, {"trial": "0001"}):
        change_lines(ledger, lambda all_, wrong=wrong: [*all_[:-1], entry | wrong])
        assert "is in the ensemble, but there is none with these weights" in said(run), wrong
    change_lines(ledger, lambda all_: [*all_[1:-1], entry])
    assert "an ensemble is scored, but the test set was not opened before" in said(run)


def test_links_and_strange_files_are_named(run: Path, tmp_path: Path) -> None:
    (run / "notes.txt").write_text("mine")
    (run / "trials/0009").symlink_to(tmp_path)
    levels = {one.file: one.level for one in check(run).findings}
    assert levels == {"notes.txt": "note", "trials/0009": "fault"}


# --- what is mended -----------------------------------------------------------------------------------------------


def test_a_repair_mends_what_loses_nothing_says_so_and_leaves_a_sound_run(run: Path) -> None:
    whole = read_run(run)
    (run / "trials/0000/result.json").unlink()
    (run / "trials/0001/result.json").write_bytes(b"{ torn")
    (run / "trials/0003/result.json.tmp-77").write_bytes(b"half")
    with (run / "events.jsonl").open("ab") as file:
        file.write(b'{"schema":')
    code, text = fsck(run, "--repair")
    assert code == 0, text
    assert text.splitlines()[:-1] == [
        "mended: events.jsonl: cut off 10 bytes of a line that was never written to its end",
        "mended: trials/0001/result.json: moved to quarantine/trials/0001/result.json.1",
        "mended: trials/0003/result.json.tmp-77: removed",
        "mended: trials/0000/result.json: written again from events.jsonl",
        "mended: trials/0001/result.json: written again from events.jsonl",
    ]
    assert read_run(run) == whole
    assert (run / "quarantine/trials/0001/result.json.1").read_bytes() == b"{ torn"
    assert repair(run) == ()


def test_what_was_moved_away_before_stays_when_the_same_file_is_damaged_again(run: Path) -> None:
    damages = {1: b"{ torn", 2: b"{ torn again", 3: b""}
    for number, damage in damages.items():
        (run / "trials/0001/result.json").write_bytes(damage)
        assert f"moved to quarantine/trials/0001/result.json.{number}" in repair(run)[0]
    kept = {path.name: path.read_bytes() for path in (run / "quarantine/trials/0001").iterdir()}
    assert kept == {f"result.json.{number}": damage for number, damage in damages.items()}


def test_the_end_that_only_a_result_tells_is_told(tmp_path: Path) -> None:
    path = create_run(tmp_path, "x", DAY)
    attempt(path, lambda writer: [writer.write_run({}), writer.append(begin(A)), writer.write_trial(A)])
    (found,) = check(path).findings
    assert (found.level, found.mend) == ("note", "tell")
    assert repair(path) == ("events.jsonl: event 2 tells the end of trial 0000, as its result has it",)
    assert check(path).findings == ()


def test_nothing_is_guessed(run: Path) -> None:
    """A failed trial's seconds, a replicate and a damaged line can't be known; so they stay faults."""
    (run / "trials/0002/result.json").unlink()
    (run / "trials/0000/replicates/1/result.json").write_bytes(b"")
    content = (run / "events.jsonl").read_bytes()
    (run / "events.jsonl").write_bytes(content.replace(b"begun", b"begin"))
    repair(run)
    assert {one.file for one in faults(run)} >= {"trials/0002/result.json", "events.jsonl"}
    assert not (run / "trials/0002/result.json").exists()
    assert (run / "events.jsonl").read_bytes().count(b"begin") == 1


def test_where_epochs_jump_no_result_is_written_from_the_events(tmp_path: Path) -> None:
    path = create_run(tmp_path, "x", DAY)
    attempt(
        path,
        lambda writer: [
            writer.write_run({"experiment": {"search": {"scheduler": "pbt"}}}),
            *(writer.append(event) for event in (begin(A), epoch(A, 2), epoch(A, 1), epoch(A, 2), end_event(A))),
        ],
    )
    (found,) = faults(path)
    assert (found.file, found.mend) == ("trials/0000/result.json", "")


def test_a_repair_is_refused_while_a_driver_holds_the_run_and_a_check_is_not(run: Path) -> None:
    writer = RunWriter(run)
    try:
        writer.append(begin(replace(A, trial="0004", number=4)))
        code, text = fsck(run)
        assert code == 0
        assert "is writing now" in text
        done = CliRunner().invoke(app, ["fsck", str(run), "--repair"])
        assert "is in use by process" in str(done.exception)
        assert done.exception.exit_code == 6  # type: ignore[union-attr]
    finally:
        writer.close()


READS = 6  # list of files, events, list of files, whole files, confirmation, ledger


@pytest.mark.parametrize("after", range(READS))
def test_what_a_driver_ends_and_scores_between_two_reads_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    trained, training = ({"trial": "0000", "replicate": number, "seed": 99} for number in (1, 2))
    writer = RunWriter(create_run(tmp_path, "x", DAY))
    reads = itertools.count()

    def end_replicate(about: dict[str, Any]) -> None:
        writer.write_replicate(ReplicateResult(**about), b"weights")
        writer.append(events.ReplicateFinished(**about, metrics={}, seconds=0.0))

    def begin_them() -> None:
        writer.write_run({})
        replicates = (events.ReplicateStarted(**one) for one in (trained, training))
        for event in (begin(A), epoch(A, 1), epoch(A, 2), *replicates):
            writer.append(event)
        write_checkpoint(writer, A.trial, 2, "val_accuracy", 0.5, b"state")
        end_replicate(trained)

    def end_them() -> None:
        writer.write_trial(A)
        writer.append(end_event(A))
        discard_checkpoints(writer.path, A.trial)
        end_replicate(training)
        writer.append_ledger({"type": "evaluated", **trained, "correct": 1})
        writer.write_replicate(ReplicateResult(**trained, test=TestScore(correct=1, images=2, loss=0.5)))
        write_trial(writer, result(1, "complete"))  # begun and ended meanwhile
        writer.append(begin(result(2, "complete")))  # or begun alone
        writer.append_log("0002", "begun")

    def then_end_them(read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(*arguments: object) -> Any:
            found = read(*arguments)
            if next(reads) == after:
                end_them()
            return found

        return reading

    begin_them()
    with monkeypatch.context() as patch:
        for name in ("read_stream", "inventory", "read_kept"):
            patch.setattr(CHECKING, name, then_end_them(getattr(CHECKING, name)))
        found = faults(writer.path)
    writer.close()
    assert found == []
    assert next(reads) == READS
    assert check(writer.path).findings == ()


RECORDINGS = sorted((Path(__file__).parents[1] / "recordings").glob("*.jsonl"))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_the_events_of_real_runs_under_all_kinds_of_schedulers_are_one_story(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "events.jsonl")
    assert [one for one in check(tmp_path).findings if one.file == "events.jsonl"] == []
