"""The ledger of this machine: in how many runs a test set was opened before, whatever becomes of the file."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mnistlab import __version__, events
from mnistlab.console.plain import line
from mnistlab.console.state import ViewState, advance
from mnistlab.errors import RunDirectoryError
from mnistlab.leaderboard import rank, rank_together
from mnistlab.leaderboard.prose.verdict import verdict
from mnistlab.report.prose import methods
from mnistlab.report.tables.columns import about
from mnistlab.store import key_of, note_opening, read_lines
from mnistlab.store.openings import OPENINGS
from tests.report import runs
from tests.tuning import test_confirm_cut as cut
from tests.tuning.test_confirm_cut import TRIALS, Run

make_run = cut.make_run
KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")
FOUR = {f"{part}-{kind}": f"{part} {kind}" for part in ("train", "t10k") for kind in KINDS}
WHEN = datetime(2026, 11, 30, tzinfo=UTC)


def note(cache: Path, run: str, sha256: str = "a") -> int:
    return note_opening(cache, {"run": run, "run_id": run, "sha256": sha256})


def entries(run: Run) -> list[dict[str, object]]:
    return [one for one in read_lines(run.path / "test_ledger.jsonl") if one["type"] == "opened"]


# --- the file -----------------------------------------------------------------------------------------------------


def test_other_runs_are_counted_each_once_and_by_test_set(tmp_path: Path) -> None:
    cache = tmp_path / "not" / "there"
    assert [note(cache, run) for run in ("one", "one", "two", "three", "one")] == [0, 0, 1, 2, 2]
    assert note(cache, "four", "b") == 0
    assert len([*read_lines(cache / OPENINGS)]) == 6


def test_a_test_set_is_told_by_its_own_files() -> None:
    mine = key_of(FOUR)
    assert mine == key_of(FOUR | {"train-images-idx3-ubyte": "others", "qmnist-train-labels.tsv": "writers"})
    assert mine != key_of(FOUR | {"t10k-images-idx3-ubyte": "others"})
    assert key_of({"test-images": "a", "train-images": "b"}) == key_of({"x/test/images": "a"})
    assert key_of({"contest.bin": "a"}) == key_of({"all.bin": "a"}) != key_of({"all.bin": "b"})
    assert key_of({}) == ""


def test_damage_costs_the_damaged_lines_alone(tmp_path: Path) -> None:
    note(tmp_path, "one")
    with (tmp_path / OPENINGS).open("ab") as file:
        file.write(b"\xff\x00 junk\n{}\n" + b'{"schema":"mnistlab.openings/1","run":"tor')
    assert [note(tmp_path, run) for run in ("two", "three")] == [1, 2]
    assert [one["run"] for one in read_lines(tmp_path / OPENINGS)] == ["one", "two", "three"]


def test_drivers_that_open_at_once_lose_nothing_and_are_counted_one_after_the_other(tmp_path: Path) -> None:
    children: list[int] = []
    for number in range(6):
        child = os.fork()
        if not child:
            found = [note(tmp_path, f"run-{number}-{turn}") for turn in range(5)]
            (tmp_path / f"found-{number}").write_text(json.dumps(found))
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    found = [one for path in tmp_path.glob("found-*") for one in json.loads(path.read_text())]
    assert sorted(found) == list(range(30))
    assert len([*read_lines(tmp_path / OPENINGS)]) == 30


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / OPENINGS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunDirectoryError, match="symbolic link"):
        note(tmp_path, "one")
    assert not (tmp_path / "elsewhere").exists()


# --- a run --------------------------------------------------------------------------------------------------------


@pytest.mark.simulated
def test_each_opening_tells_it_and_the_run_keeps_the_count(make_run) -> None:
    first, second = make_run("first", sha256=FOUR), make_run("second", sha256=FOUR)
    first.confirm(TRIALS[:1], top=1, seeds=1)
    second.confirm(TRIALS[:1], top=1, seeds=1)
    record = second.confirm(TRIALS[:1], top=1, seeds=2)
    assert [[one["runs_before"] for one in entries(run)] for run in (first, second)] == [[0], [1, 1]]
    assert (record.runs_before, first.record.runs_before) == (1, 0)
    assert [one.runs_before for one in second.of(events.TestOpened)] == [1, 1]
    lines = [*read_lines(second.cache / OPENINGS)]
    assert [line["run"] for line in lines] == ["first", "second", "second"]
    assert lines[0].keys() == {"schema", "time", "run", "run_id", "mnistlab", "dataset", "sha256"}
    assert (lines[0]["mnistlab"], lines[0]["dataset"]) == (__version__, "made-up")
    assert str(first.path.parent) not in (second.cache / OPENINGS).read_text()  # no path, whoever reads it
    (first.cache / OPENINGS).unlink()
    assert second.record.runs_before == 1  # what the run keeps it says on any machine, and later


@pytest.mark.simulated
def test_a_cache_that_can_t_be_written_is_a_warning_and_the_run_goes_on(make_run) -> None:
    run = make_run("run", sha256=FOUR)
    run.cache.write_text("a file is in the way")
    record = run.confirm(TRIALS[:1], top=1, seeds=1)
    (warned,) = run.of(events.Warned)
    assert warned.message.startswith("how many runs have opened this test set before on this machine is not known: ")
    assert str(run.cache) in warned.message
    assert record.runs_before is None
    assert all(one.test for one in record.replicates)


@pytest.mark.simulated
def test_a_dataset_without_digests_is_not_counted(make_run) -> None:
    run = make_run("run")
    assert run.confirm(TRIALS[:1], top=1, seeds=1).runs_before is None
    assert (run.of(events.Warned), run.cache.exists()) == ([], False)


# --- what is said -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (12, "; this machine had opened this test set in 12 other runs before."),
        (1, "; this machine had opened this test set in 1 other run before."),
        (0, "the test set was opened once."),
        (None, "the test set was opened once."),
    ],
)
def test_the_verdict_and_the_line_say_it(count: int | None, said: str) -> None:
    record = runs.record(runs_before=count)
    board = rank(record)
    assert verdict(board).endswith(said)
    assert about(board)["runs_before"] == count
    opened = events.TestOpened(trials=("0000",), models=3, count=1, runs_before=count)
    stamped = events.Stamped(seq=1, time=WHEN, t=1.0, event=opened)
    text = line(stamped, advance(ViewState(), stamped))
    assert text is not None
    assert ("; this machine had opened" in text) == bool(count)


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (
            3,
            ["By its own ledger this machine had opened this test set in 3 other runs before. What"],
        ),
        (0, ["By its own ledger this machine had opened this test set in no other run before."]),
        (None, []),
    ],
)
def test_the_report_says_it_also_where_it_was_the_first_run(count: int | None, said: list[str]) -> None:
    record = runs.record(runs_before=count)
    found = [text for text in methods(record, rank(record)) if "ledger" in text]
    assert len(found) == len(said)
    assert all(text.startswith(wanted) for text, wanted in zip(found, said, strict=True))


def test_of_several_runs_together_nothing_is_said() -> None:
    one, other = runs.record(runs_before=3), runs.record(runs_before=4)
    assert rank_together([one, other]).runs_before is None
