"""`mnistlab fsck` at runs that went on by another record than they began with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mnistlab import events
from mnistlab.store import RunWriter, read_run
from mnistlab.store.fsck import check, repair
from mnistlab.store.jsonl import encode_file
from tests.faults.sample import attempt, faults


@pytest.fixture
def amended(run: Path) -> Path:
    """The run gone on with in a larger space, twice."""

    def work(writer: RunWriter) -> None:
        about: dict[str, Any] = {"command": "mnistlab resume sample", "trials": 9, "parallel": 1, "devices": "1 CPU"}
        for number in (2, 3):
            assert writer.write_amended({**read_run(run).run, "amended": {"training.batch_size": [number]}}) == number
            writer.append(
                events.RunResumed(**about, counts={}, amended={"training.batch_size": [number]}, record=number)
            )

    attempt(run, work)
    return run


def test_the_records_of_amendments_are_a_runs_own(amended: Path) -> None:
    assert check(amended).findings == ()
    assert read_run(amended).number == 3


@pytest.mark.parametrize("name", ["run-2.json", "run-3.json"])
def test_a_damaged_record_of_an_amendment_is_a_fault_and_stays_where_it_is(amended: Path, name: str) -> None:
    content = (amended / name).read_bytes()
    (amended / name).write_bytes(content.replace(b"sample", b"simple"))
    (found,) = faults(amended)
    assert (found.file, found.mend) == (name, "")
    assert found.message == "is damaged: its checksum is not that of what it holds"
    assert repair(amended) == ()
    assert (amended / name).exists()


def test_a_record_that_is_lost_is_named_by_the_event_that_tells_of_it(amended: Path) -> None:
    (amended / "run-3.json").unlink()
    (found,) = faults(amended)
    assert found.file == "run-3.json"
    assert found.message == f"is missing, but line {events_of(amended)} of events.jsonl says that the run went on by it"


def test_a_gap_between_records_is_a_fault(amended: Path) -> None:
    (amended / "run-2.json").unlink()
    assert {(one.file, one.message.split(":")[0]) for one in faults(amended)} == {
        ("run-3.json", "follows a record that is missing"),
        (
            "run-2.json",
            f"is missing, but line {events_of(amended) - 1} of events.jsonl says that the run went on by it",
        ),
    }


def events_of(run: Path) -> int:
    return len((run / "events.jsonl").read_bytes().splitlines())


@pytest.mark.parametrize("key", ["run", "seed", "metric", "created", "dataset"])
def test_a_record_of_another_run_is_a_fault(amended: Path, key: str) -> None:
    body = {key: value for key, value in json.loads((amended / "run-3.json").read_bytes()).items() if key != "crc"}
    (amended / "run-3.json").write_bytes(encode_file(body | {key: "other"}))
    (found,) = faults(amended)
    assert (found.file, found.message) == (
        "run-3.json",
        f"is of another run than the records before it: its {key} is another one",
    )


def test_what_a_writer_that_died_has_left_of_a_record_is_removed(amended: Path) -> None:
    (amended / "run-4.json.tmp-99").write_bytes(b"{")
    (found,) = check(amended).findings
    assert (found.level, found.mend) == ("note", "remove")
    assert repair(amended) == ("run-4.json.tmp-99: removed",)
