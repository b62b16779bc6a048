from __future__ import annotations

import fcntl
import itertools
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mnistlab import events
from mnistlab.errors import MnistlabError, RunDirectoryError, RunWriteError
from mnistlab.store import (
    RunWriter,
    create_run,
    durable,
    find_run,
    find_runs,
    holder,
    read_events,
    read_run,
    results,
    write_bytes,
    write_json,
    writing,
)
from mnistlab.store.jsonl import decode_line, encode_line, read_lines
from mnistlab.store.results import ReplicateResult, TestScore, TrialResult

NO_NAMES = ["..", ".", "", "a/b", "../../x.py", "/etc", "a\0b", "-rf", ".hidden", "a b", "nul", "COM1.py", "x" * 129]
DAY = datetime(2026, 11, 22, tzinfo=UTC)


def trial(number: int = 0, **more: object) -> TrialResult:
    fields = {
        "trial": f"{number:04}",
        "number": number,
        "state": "complete",
        "seed": 1,
        "plan": {"a": [1]},
        "label": "x",
    }
    return TrialResult(**(fields | more))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return create_run(tmp_path / "runs", "cnn", DAY)


@pytest.fixture
def writer(folder: Path) -> Iterator[RunWriter]:
    writer = RunWriter(folder)
    yield writer
    writer.close()


def warnings(run: Path) -> list[str]:
    return [s.event.message for s in read_events(run) if isinstance(s.event, events.Warned)]


# --- the event stream ---------------------------------------------------------------------------------------------


def test_events_come_back_in_their_order(writer, folder):
    written = [writer.append(events.Warned(message=f"number {i}")) for i in range(5)]
    read = list(read_events(folder))
    assert [s.event for s in read] == [s.event for s in written]
    assert [s.seq for s in read] == [1, 2, 3, 4, 5]
    assert all(a.t <= b.t for a, b in itertools.pairwise(read))


def test_a_tail_torn_at_any_byte_costs_the_last_event_only(writer, folder):
    for word in ("first", "second", "last ü"):
        writer.append(events.Warned(message=word))
    path = folder / "events.jsonl"
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for end in range(start, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert warnings(folder) == ["first", "second"], end
    path.write_bytes(whole[:-1])  # all but the newline: nothing of the event is missing
    assert warnings(folder) == ["first", "second", "last ü"]


def test_a_changed_byte_never_makes_another_event(writer, folder):
    for word in ("first", "second", "third"):
        writer.append(events.Warned(message=word))
    path = folder / "events.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    begin, end = len(lines[0]), len(lines[0]) + len(lines[1])
    for place in range(begin, end):
        for bit in (0, 5):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            # A newline that is gone costs the line after it, too.
            assert warnings(folder) == (["first"] if place == end - 1 else ["first", "third"]), place


@pytest.mark.parametrize("line", [b"", b"\n", b"{}", b"\xff\xfe", b'[1],"crc":"00000000"}', b'null,"crc":"00"}'])
def test_lines_that_are_none_of_ours_are_no_records(line):
    assert decode_line(line) is None


def test_a_line_is_plain_json_with_a_checksum():
    line = encode_line({"a": "ü\n", "b": [1, 2.5]})
    assert line.count(b"\n") == 1
    body = json.loads(line)
    assert body.pop("crc")
    assert decode_line(line) == body == {"a": "ü\n", "b": [1, 2.5]}


def test_a_number_that_json_has_not_is_refused_before_anything_is_written(writer, folder):
    with pytest.raises(ValueError):
        writer.append(events.TrialEpoch(trial="0", epoch=1, epochs=2, metrics={"val_loss": float("nan")}))
    assert list(read_events(folder)) == []


# --- the lock -----------------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from mnistlab.store import RunWriter
writer = RunWriter(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def test_the_command_that_looks_at_a_run_in_use_can_be_typed(tmp_path):
    path = tmp_path / "my runs" / "one-1"
    path.mkdir(parents=True)
    writer = RunWriter(path)
    with pytest.raises(RunDirectoryError, match=f"to see what it does: mnistlab watch '{path}'$"):
        RunWriter(path)
    writer.close()


def test_what_a_driver_has_forked_does_not_hold_its_run(folder):
    writer = RunWriter(folder)
    (ends, other), (there, begun) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(other)
        writer.close()  # as one would that comes back from where it was forked
        os.write(begun, b".")
        os.read(ends, 1)  # it lives for as long as the test
        os._exit(0)
    try:
        assert os.read(there, 1) == b"."
        with pytest.raises(RunDirectoryError, match="is in use by"):
            RunWriter(folder)
        writer.close()
        RunWriter(folder).close()
    finally:
        for descriptor in (ends, other, there, begun):
            os.close(descriptor)
        os.waitpid(child, 0)


def test_a_directory_that_another_process_writes_is_refused_by_name_and_free_when_that_dies(folder):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(RunDirectoryError, match=f"is in use by process {holder.pid} on ") as caught:
            RunWriter(folder)
        assert caught.value.exit_code == 6
    finally:
        holder.kill()
        holder.communicate()
    RunWriter(folder).close()


def test_a_closed_directory_can_be_opened_again(folder):
    RunWriter(folder).close()
    RunWriter(folder).close()


def test_a_run_that_is_gone_on_with_counts_its_events_on(folder):
    writer = RunWriter(folder)
    first = [writer.append(events.Warned(message=f"number {i}")) for i in range(3)]
    writer.close()
    again = RunWriter(folder)
    fourth = again.append(events.Warned(message="later"))
    again.close()
    assert [s.seq for s in read_events(folder)] == [1, 2, 3, 4]
    assert fourth.t >= round(first[-1].t, 3)


@pytest.mark.parametrize("tail", [b"{", b'{"schema":"mnistlab.event/1","seq":2', b"\0" * 40])
def test_what_a_dead_writer_has_left_of_a_line_is_cut_off_before_anything_is_appended(folder, tail):
    writer = RunWriter(folder)
    writer.append(events.Warned(message="first"))
    writer.append_ledger({"type": "opened", "number": 1})
    writer.append_confirmation({"type": "planned", "number": 1})
    writer.close()
    for name in ("events.jsonl", "test_ledger.jsonl", "confirmation.jsonl"):
        with (folder / name).open("ab") as file:
            file.write(tail)
    again = RunWriter(folder)
    again.append(events.Warned(message="second"))
    again.append_ledger({"type": "opened", "number": 2})
    again.append_confirmation({"type": "planned", "number": 2})
    again.close()
    assert warnings(folder) == ["first", "second"]
    for name in ("test_ledger.jsonl", "confirmation.jsonl"):
        assert [entry["number"] for entry in read_lines(folder / name)] == [1, 2]


def test_a_log_that_is_gone_on_with_is_still_cut_off(folder, monkeypatch):
    writer = RunWriter(folder)
    monkeypatch.setattr(writing, "MAX_LOG_BYTES", 100)
    monkeypatch.setattr(writing, "LOG_RESERVE", 10)
    writer.append_log("0000", "x" * 80)
    writer.close()
    again = RunWriter(folder)
    again.append_log("0000", "y" * 80)
    again.close()
    assert (folder / "trials" / "0000" / "log.txt").read_text().count("y") == 10


def test_a_last_line_that_lacks_only_its_line_break_is_kept(folder):
    writer = RunWriter(folder)
    writer.append(events.Warned(message="first"))
    writer.close()
    path = folder / "events.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    again = RunWriter(folder)
    again.append(events.Warned(message="second"))
    again.close()
    assert [(s.seq, s.event.message) for s in read_events(folder)] == [(1, "first"), (2, "second")]


def test_an_event_that_the_disk_did_not_take_leaves_no_gap(writer, folder):
    with small_disk(0), pytest.raises(RunWriteError):
        writer.append(events.Warned(message="lost"))
    writer.append(events.Warned(message="kept"))
    assert [s.seq for s in read_events(folder)] == [1]


@pytest.mark.parametrize("name", ["events.jsonl", "test_ledger.jsonl", "confirmation.jsonl"])
def test_lines_of_another_format_are_refused_in_words(writer, folder, name):
    writer.write_run({})
    (folder / name).write_bytes(encode_line({"schema": f"mnistlab.{name}/9", "type": "x"}))
    with pytest.raises(RunDirectoryError, match=rf"{name} has format 'mnistlab.{name}/9'; this mnistlab reads"):
        list(read_events(folder)) if name == "events.jsonl" else read_run(folder)


def test_a_folder_is_found_from_within_and_by_its_own_name(tmp_path, monkeypatch):
    root = tmp_path / "runs"
    run = create_run(root, "cnn", DAY)
    write_json(run / "run.json", {"schema": "mnistlab.run/1"})
    (run / "trials").mkdir()
    monkeypatch.chdir(run)
    for name in (".", "./", "trials/..", str(run), f"../{run.name}"):
        assert find_run(name, Path("runs")).resolve() == run
        assert find_run(name, Path("runs")).name == run.name
    monkeypatch.chdir(run / "trials")
    assert find_run("..", Path("runs")) == run


def test_a_run_that_has_no_record_is_told_from_one_that_is_not_there(tmp_path, monkeypatch):
    run = create_run(tmp_path / "runs", "crashed", DAY)
    (run / "events.jsonl").touch()
    monkeypatch.chdir(run)
    said = rf"{run.name} has no run.json: it ended before the search had begun, or .*; mnistlab fsck .*{run.name}"
    for name in (run.name, "."):
        with pytest.raises(MnistlabError, match=said) as caught:
            find_run(name, tmp_path / "runs")
        assert caught.value.exit_code == 2


# --- files that are whole or not there ----------------------------------------------------------------------------


def test_the_record_of_a_run_is_never_rewritten(writer, folder):
    writer.write_run({"seed": 1})
    with pytest.raises(RunDirectoryError, match="never rewritten"):
        writer.write_run({"seed": 2})
    assert read_run(folder).run == {"schema": "mnistlab.run/1", "seed": 1}


def test_an_amended_record_stands_beside_those_before_it_and_is_the_one_that_is_read(writer, folder):
    writer.write_run({"seed": 1})
    first = (folder / "run.json").read_bytes()
    assert (read_run(folder).number, read_run(folder).file) == (1, "run.json")
    for number in range(2, 12):  # the tenth is newer than the ninth, whatever their names sort like
        assert writer.write_amended({**read_run(folder).run, "amended": {"a": [number]}}) == number
        record = read_run(folder)
        assert (record.number, record.file) == (number, f"run-{number}.json")
        assert record.run == {"schema": "mnistlab.run/1", "seed": 1, "amended": {"a": [number]}}
    assert (folder / "run.json").read_bytes() == first


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": "mnistlab.run/1", "seed": 2,\n "crc": "00000000"\n}\n'])
def test_a_newest_record_that_is_damaged_is_refused_and_no_older_one_taken_for_it(writer, folder, content):
    writer.write_run({"seed": 1})
    writer.write_amended({"seed": 1})
    (folder / "run-2.json").write_bytes(content)
    with pytest.raises(RunDirectoryError, match=r"run-2\.json is damaged"):
        read_run(folder)


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, fails):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, fails, no_room)
    with pytest.raises(RunWriteError, match=rf"can't write {path}: No space left on device") as caught:
        write_json(path, {"a": 2})
    assert caught.value.exit_code == 75
    assert json.loads(path.read_text())["a"] == 1
    assert os.listdir(tmp_path) == ["x.json"]


def test_nan_is_refused_and_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text())["a"] == 1


# --- a disk that takes no more ------------------------------------------------------------------------------------


@contextmanager
def small_disk(size: int) -> Generator[None]:
    """Let no file of this process grow beyond `size` bytes for a while, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:  # before pytest writes its own output, which may be a file
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fill(writer: RunWriter) -> int:
    """Append events until no more fit; returns how many did."""
    for count in range(1000):
        try:
            writer.append(events.Warned(message=f"number {count}"))
        except RunWriteError:
            return count
    raise AssertionError("the disk took everything")


def test_a_full_disk_is_told_costs_nothing_written_before_and_tears_no_line(writer, folder):
    with small_disk(1000):
        count = fill(writer)
    writer.append(events.Warned(message="room again"))
    assert count > 1
    assert warnings(folder) == [*(f"number {i}" for i in range(count)), "room again"]
    assert (folder / "events.jsonl").read_bytes().count(b"\n") == count + 1


def test_whatever_is_written_to_a_full_disk_names_the_file_and_ends_with_75(writer, folder):
    writes = {
        "events.jsonl": lambda: writer.append(events.Warned(message="x")),
        "run.json": lambda: writer.write_run({}),
        "trials/0000/result.json": lambda: writer.write_trial(trial()),
        "trials/0000/log.txt": lambda: writer.append_log("0000", "x"),
        "trials/0000/replicates/1/weights.safetensors": lambda: writer.write_replicate(
            ReplicateResult(trial="0000", replicate=1, seed=5), b"weights"
        ),
        "trials/0000/replicates/1/per_image.safetensors": lambda: writer.write_replicate(
            ReplicateResult(trial="0000", replicate=1, seed=5), per_image=b"losses"
        ),
        "test_ledger.jsonl": lambda: writer.append_ledger({"type": "opened"}),
    }
    for name, write in writes.items():
        with small_disk(0), pytest.raises(RunWriteError) as caught:
            write()
        assert str(caught.value) == f"can't write {folder / name}: File too large"
        assert caught.value.exit_code == 75


def test_a_run_directory_that_vanished_is_not_made_again(writer, folder):
    shutil.rmtree(folder)
    with pytest.raises(RunWriteError, match="trials: No such file or directory"):
        writer.write_trial(trial())
    with pytest.raises(RunWriteError, match=r"test_ledger\.jsonl: No such file or directory"):
        writer.append_ledger({"type": "opened"})
    assert not folder.exists()


def test_a_flush_that_fails_is_told_and_closing_lets_go_of_the_lock_all_the_same(folder, monkeypatch):
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    writer = RunWriter(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(RunWriteError, match=r"events\.jsonl: Input/output error"):
            writer.append(events.RunInterrupted(reason="x"))
        with pytest.raises(RunWriteError):
            writer.close()
    RunWriter(folder).close()


def test_events_wait_for_two_seconds_at_most_whether_or_not_more_of_them_come(writer, monkeypatch):
    flushed, fsync = list[int](), os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(descriptor) or fsync(descriptor))
    now = [1000.0]
    monkeypatch.setattr(writing.time, "monotonic", lambda: now[0])
    epoch = events.TrialEpoch(trial="0000", epoch=1, epochs=2, metrics={})
    writer._flush()
    flushed.clear()
    writer.append(epoch)
    writer.flush_what_waits()
    assert flushed == []
    now[0] += 2.1
    writer.flush_what_waits()  # no other event comes
    writer.flush_what_waits()
    assert len(flushed) == 1
    now[0] += 2.1
    writer.flush_what_waits()  # nothing waits
    assert len(flushed) == 1
    writer.append(epoch)  # another one comes
    assert len(flushed) == 2


def note_flushes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return the list into which each file that is flushed from now on goes: its name, and how long it was by then."""
    flushed, fsync = list[tuple[str, int]](), os.fsync

    def noting(descriptor: int) -> None:
        fsync(descriptor)
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        flushed.append((name, os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", noting)
    return flushed


SURVIVING = [
    events.RunStarted(
        run="x",
        experiment="x",
        directory="x",
        seed=1,
        dataset="mnist",
        trials=1,
        epochs=1,
        parallel=1,
        devices="1 CPU",
        metric="val_accuracy",
        rule="x",
        algorithm="random",
        scheduler="none",
    ),
    events.TrialFinished(trial="0000", epoch=1, metrics={}, seconds=0.1),
    events.TrialPruned(trial="0000", epoch=1, metrics={}, seconds=0.1),
    events.TrialInterrupted(trial="0000", epoch=1, metrics={}, seconds=0.1, reason="Ctrl-C"),
    events.TrialFailed(trial="0000", epoch=1, cause="nan", message="x", log="trials/0000/log.txt"),
    events.ReplicateFinished(trial="0000", replicate=1, seed=1, metrics={}, seconds=0.1),
    events.ReplicateFailed(trial="0000", replicate=1, seed=1, cause="nan", message="x"),
    events.PlanDropped(trial="0001", leader="0000", seeds=3, difference=-0.1, low=-0.2, high=-0.05, confidence=0.95),
    events.RefitFinished(trial="0000", seed=1, metrics={}, seconds=0.1),
    events.TestOpened(trials=("0000",), models=1, count=1),
    events.RunInterrupted(reason="Ctrl-C"),
    events.RunFinished(outcome="done", exit_code=0, counts={}, seconds=1.0),
]


@pytest.mark.parametrize("event", SURVIVING, ids=lambda event: event.type)
def test_what_must_survive_is_on_the_disk_at_once_and_what_came_before_with_it(writer, folder, monkeypatch, event):
    monkeypatch.setattr(writing.time, "monotonic", lambda: 1000.0)
    writer._flush()
    flushed = note_flushes(monkeypatch)
    writer.append(events.TrialEpoch(trial="0000", epoch=1, epochs=2, metrics={}))
    assert flushed == []
    writer.append(event)
    assert flushed == [("events.jsonl", (folder / "events.jsonl").stat().st_size)]


@pytest.mark.parametrize("name", ["test_ledger.jsonl", "confirmation.jsonl"])
def test_each_line_of_ledger_and_confirmation_is_on_the_disk_before_anyone_goes_on(writer, folder, monkeypatch, name):
    append = {"test_ledger.jsonl": writer.append_ledger, "confirmation.jsonl": writer.append_confirmation}[name]
    flushed = note_flushes(monkeypatch)
    sizes = list[int]()
    for number in (1, 2):
        append({"type": "x", "number": number})
        sizes.append((folder / name).stat().st_size)
        assert [size for file, size in flushed if file == name] == sizes


def test_a_file_system_without_locks_is_told_in_words(folder, monkeypatch):
    def refuses(_: int, __: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)
    with pytest.raises(RunDirectoryError, match=r"\.lock can't be locked: No locks available; a run needs"):
        RunWriter(folder)
    assert holder(folder) == ""


# --- links are not followed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["events.jsonl", ".lock"])
def test_a_link_in_the_place_of_a_file_that_is_opened_is_refused(folder, tmp_path, name):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (folder / name).symlink_to(outside)
    with pytest.raises(RunDirectoryError, match="symbolic link"):
        RunWriter(folder)
    assert outside.read_text() == "precious"
    (folder / name).unlink()
    RunWriter(folder).close()  # the refusal has not left the lock behind


def test_links_in_the_places_of_logs_ledger_and_results_are_not_followed(writer, folder, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    place = writer.trial_folder("0000")
    for link in (place / "log.txt", folder / "test_ledger.jsonl", place / f"result.json.tmp-{os.getpid()}"):
        link.symlink_to(outside)
    for write in (
        lambda: writer.append_log("0000", "x"),
        lambda: writer.append_ledger({"type": "opened"}),
        lambda: writer.write_trial(trial()),
    ):
        with pytest.raises(RunDirectoryError, match="symbolic link"):
            write()
    (place / f"result.json.tmp-{os.getpid()}").unlink()
    (place / "result.json").symlink_to(outside)
    writer.write_trial(trial())  # the rename puts a file in the place of the link
    assert not (place / "result.json").is_symlink()
    assert outside.read_text() == "precious"


@pytest.mark.parametrize("name", NO_NAMES)
def test_no_name_leads_out_of_the_run_directory(writer, folder, name):
    for write in (
        lambda: writer.append_log(name, "x"),
        lambda: writer.write_trial(trial(trial=name)),
        lambda: writer.write_plugin(name, "x"),
    ):
        with pytest.raises(RunDirectoryError, match="a name in there must be 1 to 128 letters"):
            write()


@pytest.mark.parametrize("name", NO_NAMES)
def test_no_name_in_a_run_directory_leads_out_of_it(writer, folder, name):
    """They become paths from which checkpoints, weights and sources are read, and whose checkpoints are removed."""
    writer.append(events.TrialStarted(trial=name, number=0, seed=1, plan={}, label="x"))
    with pytest.raises(RunDirectoryError, match=r"events\.jsonl is damaged: the name .* in it must be 1 to 128"):
        list(read_events(folder))
    writer.write_run({"plugin_files": {name: "0+sha256.0"}})
    with pytest.raises(RunDirectoryError, match=r"run\.json is damaged: the name .* in it must be 1 to 128"):
        read_run(folder)


@pytest.mark.parametrize("name", NO_NAMES)
def test_no_name_in_a_result_leads_out_of_the_run_directory(writer, folder, name):
    writer.write_run({})
    body = {"schema": "mnistlab.result/1", **results.to_json(trial())}
    write_json(writer.trial_folder("0000") / "result.json", {**body, "trial": name})
    with pytest.raises(RunDirectoryError, match=r"result\.json is damaged: the name .* in it must be 1 to 128"):
        read_run(folder)


def test_the_number_of_a_replicate_is_no_path(writer, folder):
    writer.write_run({})
    path = writer.write_replicate(ReplicateResult(trial="0000", replicate=1, seed=1, metrics={}))
    body = json.loads((path / "result.json").read_text())
    del body["crc"]
    write_json(path / "result.json", {**body, "replicate": "../../../x"})
    with pytest.raises(RunDirectoryError, match="must be 1 to 128"):
        read_run(folder)


DATABASE = [f"study.db{kind}" for kind in ("", "-journal", "-wal", "-shm")]  # SQLite opens them all


@pytest.mark.parametrize("name", ["trials", "ray", "tensorboard", "plugins", *DATABASE, "driver.log", "run.json"])
@pytest.mark.parametrize("leads", ["to something", "nowhere"])
def test_a_run_directory_with_a_link_where_a_driver_writes_is_refused(folder, tmp_path, name, leads):
    (folder / name).symlink_to(tmp_path if leads == "to something" else tmp_path / "nowhere")
    with pytest.raises(RunDirectoryError, match=f"can't write into .*/{name}: it is a symbolic link"):
        RunWriter(folder)
    (folder / name).unlink()
    RunWriter(folder).close()  # the refusal has not left the lock behind


def test_a_folder_that_is_a_link_is_not_written_into(writer, folder, tmp_path):
    (folder / "trials").symlink_to(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"can't write into .*/trials: it is a symbolic link"):
        writer.append_log("0000", "x")
    assert not (tmp_path / "0000").exists()


# --- logs ---------------------------------------------------------------------------------------------------------


def test_a_log_is_cut_off_once_and_says_so(writer, folder, monkeypatch):
    monkeypatch.setattr(writing, "MAX_LOG_BYTES", 10)
    monkeypatch.setattr(writing, "LOG_RESERVE", 0)
    for text in ("12345", "", "6789\udcffX", "more", "and more"):
        writer.append_log("0000", text)
    writer.append_log("0001", "another trial\n"[:9])
    text = (folder / "trials/0000/log.txt").read_text()
    assert text == "123456789\\\n[the rest is cut off: the log is full]\n"
    assert (folder / "trials/0001/log.txt").read_text() == "another t"


def test_the_last_words_of_a_trial_get_into_a_full_log(writer, folder):
    writer.append_log("0000", "x" * (5 << 20))
    writer.append_log("0000", "lost")
    writer.append_log("0000", "Traceback: the reason\n", final=True)
    text = (folder / "trials/0000/log.txt").read_text()
    assert text.endswith("x\n[the rest is cut off: the log is full]\nTraceback: the reason\n")
    assert (4 << 20) - (64 << 10) < len(text) < 4 << 20


def test_last_words_that_are_too_many_keep_their_end(writer, folder):
    writer.append_log("0000", "before\n")
    writer.append_log("0000", "y" * (5 << 20) + "the reason\n", final=True)
    writer.append_log("0000", "even later", final=True)
    text = (folder / "trials/0000/log.txt").read_text()
    assert text.startswith("before\n\n[cut off: the log is full]\nyyy")
    assert text.endswith("ythe reason\n")
    assert len(text) < (4 << 20) + 100


# --- making a run -------------------------------------------------------------------------------------------------


def _create(root: Path) -> str:
    return create_run(root, "cnn", DAY).name


def test_runs_of_a_day_are_numbered(tmp_path):
    assert [_create(tmp_path) for _ in range(3)] == [f"cnn-2026-11-22-{n}" for n in (1, 2, 3)]


def test_processes_that_begin_at_once_get_runs_of_their_own(tmp_path):
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as pool:
        names = list(pool.map(_create, [tmp_path / "new" / "runs"] * 40))
    assert sorted(names) == sorted(f"cnn-2026-11-22-{n}" for n in range(1, 41))


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(
        RunDirectoryError, match=r"can't make the run directory .*runs/cnn-2026-11-22-1: Not a directory"
    ):
        create_run(tmp_path / "runs", "cnn", DAY)
    (tmp_path / "cnn-2026-11-22-1").write_text("")
    with pytest.raises(RunDirectoryError, match="a file is in the way"):
        create_run(tmp_path, "cnn", DAY)


# --- reading ------------------------------------------------------------------------------------------------------


def test_everything_that_was_written_is_read(writer, folder):
    scored = ReplicateResult(trial="0001", replicate=1, seed=5, test=TestScore(correct=9, images=10, loss=0.1))
    writer.write_run({"seed": 3})
    for number in (1, 0):
        writer.write_trial(trial(number, history=({"val_accuracy": 0.5},)))
    writer.write_replicate(scored, weights=b"the weights")
    writer.write_replicate(ReplicateResult(trial="0001", replicate=2, seed=6))
    writer.append_ledger({"type": "opened"})
    writer.append_ledger({"type": "evaluated"})
    run = read_run(folder)
    assert run.run["seed"] == 3
    assert run.trials == (trial(0, history=({"val_accuracy": 0.5},)), trial(1, history=({"val_accuracy": 0.5},)))
    assert run.replicates[0] == scored
    assert [r.replicate for r in run.replicates] == [1, 2]
    assert run.test_openings == 1
    assert (folder / "trials/0001/replicates/1/weights.safetensors").read_bytes() == b"the weights"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not a run directory: it has no run.json"),
        (b"", "is damaged"),
        (b"\xff\xff", "is damaged"),
        (b"[]", "has format None; this mnistlab reads 'mnistlab.run/1'"),
        (b'{"schema": "mnistlab.run/2"}', "has format 'mnistlab.run/2'"),
    ],
)
def test_a_directory_of_another_format_is_refused(folder, content, said):
    if content is not None:
        (folder / "run.json").write_bytes(content)
    with pytest.raises(RunDirectoryError) as caught:
        read_run(folder)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "body", ["{}", '{"schema": "mnistlab.result/1"}', '{"schema": "mnistlab.result/1", "history": 3}', "{"]
)
@pytest.mark.parametrize("place", ["trials/0000", "trials/0000/replicates/1"])
def test_a_damaged_result_is_named(writer, folder, place, body):
    writer.write_run({})
    (folder / place).mkdir(parents=True)
    write_bytes(folder / place / "result.json", body.encode())
    with pytest.raises(RunDirectoryError, match=rf"{place}/result.json (is damaged|has format)"):
        read_run(folder)


def test_runs_are_found_by_path_and_by_name_and_the_nearest_is_named(tmp_path, monkeypatch):
    root = tmp_path / "runs"
    for name in ("cnn", "mlp"):
        write_json(create_run(root, name, DAY) / "run.json", {"schema": "mnistlab.run/1"})
    create_run(root, "crashed", DAY)  # it never came to write its record
    monkeypatch.chdir(tmp_path)
    assert {p.name for p in find_runs(root)} == {"cnn-2026-11-22-1", "mlp-2026-11-22-1"}
    assert find_run("cnn-2026-11-22-1", root) == root / "cnn-2026-11-22-1"
    assert find_run("runs/mlp-2026-11-22-1", root) == Path("runs/mlp-2026-11-22-1")
    with pytest.raises(MnistlabError, match=r"no run 'cnn-2026-11-22-2' .* did you mean 'cnn-2026-11-22-1'") as caught:
        find_run("cnn-2026-11-22-2", root)
    assert caught.value.exit_code == 2
    assert find_runs(tmp_path / "nowhere") == []
