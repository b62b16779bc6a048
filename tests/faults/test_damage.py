"""Files that are cut, changed, filled up or written by two: every damage is seen or harmless, never a traceback."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnistlab import events
from mnistlab.errors import MnistlabError, RunWriteError
from mnistlab.store import RunWriter, create_run, read_events, read_run
from mnistlab.store.follow import follow_events
from mnistlab.store.fsck import check
from mnistlab.store.results import RunRecord
from tests.faults.sample import DAY, attempt, faults, whole_run, write_run

FILES = (
    "run.json",
    "events.jsonl",
    "confirmation.jsonl",
    "test_ledger.jsonl",
    "trials/0000/result.json",
    "trials/0000/replicates/1/result.json",
    "trials/0000/replicates/1/weights.safetensors",
    "trials/0000/replicates/1/per_image.safetensors",
)
WHOLE = tuple(name for name in FILES if not name.endswith("jsonl"))


EVERY = pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.chaos)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy: whoever goes on with a run writes into it, and each further event would take its time."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def cuts(size: int, every: int) -> list[int]:
    """Return where to cut a file: at each of its last bytes, and at one of so many of those before them."""
    last = max(0, size - 12)
    return [*range(max(0, size - 400), last, every), *range(last, size)]


def seen_by_readers(run: Path) -> tuple[RunRecord | str, list[Any]]:
    """What readers make of a run; any error but a typed one gets out."""
    try:
        record: RunRecord | str = read_run(run)
    except MnistlabError as error:
        record = str(error)
    try:
        stream = list(read_events(run))
    except MnistlabError as error:
        stream = [str(error)]
    return record, stream


def with_content(path: Path, content: bytes, look: Callable[[], Any]) -> Any:
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        return look()
    finally:
        path.write_bytes(whole)


@EVERY
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_that_is_cut_at_any_byte_is_refused(run: Path, name: str, every: int) -> None:
    whole, good = (run / name).read_bytes(), read_run(run)
    for end in cuts(len(whole), every):
        found = with_content(run / name, whole[:end], lambda: (faults(run), seen_by_readers(run)[0]))
        if end == len(whole) - 1 and name.endswith("json"):  # only the line break at its end is missing
            assert found == ([], good)
        else:
            assert found[0], end
            assert name.endswith("safetensors") or isinstance(found[1], str), end


@EVERY
@pytest.mark.parametrize("name", ["events.jsonl", "confirmation.jsonl", "test_ledger.jsonl"])
def test_lines_that_are_cut_at_any_byte_keep_all_that_is_whole_and_are_gone_on_with(
    run: Path, name: str, every: int
) -> None:
    whole = (run / name).read_bytes()
    for end in cuts(len(whole), every):
        content = whole[:end]

        def look() -> tuple[int, list[Any]]:
            record, stream = seen_by_readers(run)
            assert isinstance(record, RunRecord)
            torn = [one for one in check(run).findings if one.mend == "tail"]
            gone_on_with(run)
            return len(stream), torn

        count, torn = with_content(run / name, content, look)
        assert len(torn) == (not content.endswith(b"\n") and content != b""), end
        if name == "events.jsonl":
            lines = content.count(b"\n") + (whole[end : end + 1] == b"\n")
            assert count == lines, end


def gone_on_with(run: Path) -> None:
    """The next writer cuts off what is torn in the stream, and counts on from what is whole."""
    stream = list(read_events(run))
    writer = RunWriter(run)
    try:
        told = writer.append(events.Warned(message="on"))
    finally:
        writer.close()
    *before, last = read_events(run)
    assert before == stream
    assert (last.seq, last.event) == (told.seq, told.event) == (len(stream) + 1, told.event)


@pytest.mark.parametrize("flips", [60, pytest.param(1000, marks=pytest.mark.chaos)])
def test_every_flipped_bit_is_found_or_changes_nothing(run: Path, flips: int) -> None:
    draw, good = random.Random(20261125), seen_by_readers(run)
    for _ in range(flips):
        name = draw.choice(FILES)
        content = bytearray((run / name).read_bytes())
        place = draw.randrange(len(content))
        content[place] ^= 1 << draw.randrange(8)
        found, seen = with_content(run / name, bytes(content), lambda: (check(run).findings, seen_by_readers(run)))
        if not found:
            assert seen == good, (name, place)


@pytest.mark.simulated
def test_a_short_write_is_told_and_nothing_half_written_counts(tmp_path: Path) -> None:
    """A limit on a file's size gives a short write, then an error; it is set in a child, for pytest's sake."""
    for size in (0, 1, 90, 300, 700, 1500, 3000):
        path = create_run(tmp_path, "x", DAY)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            try:
                attempt(path, write_run)
            except RunWriteError as error:
                os._exit(75 if "File too large" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75, size
        assert faults(path) == [], size
        assert all(one.mend != "tail" for one in check(path).findings), size  # what did not fit was taken back


FULL = """
import sys
from pathlib import Path
from mnistlab.errors import RunWriteError
from mnistlab.store import RunWriter, create_run
from mnistlab.store.fsck import check
from tests.faults.sample import DAY, write_run
path = create_run(Path(sys.argv[1]), "x", DAY)
writer = RunWriter(path)
try:
    for number in range(1000):
        writer.append_log(f"{number:04}", "x" * 5000)
except RunWriteError as error:
    print(error)
try:
    write_run(writer)
except RunWriteError as error:
    print(error)
for log in path.glob("trials/*/log.txt"):
    log.unlink()
write_run(writer)
writer.close()
print([one for one in check(path).findings if one.mend or "jsonl" not in one.file])
"""


@pytest.mark.simulated
def test_a_file_system_that_is_full_is_told_and_gone_on_with_once_there_is_room(tmp_path: Path) -> None:
    shell = f'mount -t tmpfs -o size=256k none {tmp_path} && exec "$0" -c "$1" {tmp_path}'
    allowed = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", f"mount -t tmpfs -o size=64k none {tmp_path}"], capture_output=True, check=False
    )
    if allowed.returncode:
        pytest.skip(f"no file system may be mounted here: {allowed.stderr.decode().strip()}")
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", shell, sys.executable, FULL], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second, findings = done.stdout.splitlines()
    assert first.startswith("can't write ")
    assert first.endswith("No space left on device")
    assert second.endswith("No space left on device")
    assert findings == "[]"


# --- two in one directory -----------------------------------------------------------------------------------------

WRITE = """
import sys
from pathlib import Path
from mnistlab import events
from mnistlab.store import RunWriter
from tests.faults.sample import write_run
writer = RunWriter(Path(sys.argv[1]))
print("begun", flush=True)
write_run(writer)
for number in range(300):
    writer.append(events.Warned(message=f"number {number} " + "x" * number))
print("written", flush=True)
sys.stdin.read()
"""


@pytest.mark.simulated
def test_readers_see_only_whole_things_during_a_write_and_a_second_writer_names_the_first(tmp_path: Path) -> None:
    path = create_run(tmp_path, "x", DAY)
    first = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "begun\n"
        rounds: list[int] = []
        for stamped in follow_events(path, lambda: len(rounds) < 20):
            if len(rounds) < 20:
                rounds.append(stamped.seq)
                with pytest.raises(MnistlabError, match=f"is in use by process {first.pid} on ") as caught:
                    RunWriter(path)
                assert caught.value.exit_code == 6
                assert [one for one in faults(path) if one.file != "run.json"] == []
                assert [one.seq for one in read_events(path)] == sorted({one.seq for one in read_events(path)})
        assert len(rounds) == 20
        assert first.stdout.readline() == "written\n"
        assert faults(path) == []
        assert isinstance(seen_by_readers(path)[0], RunRecord)
    finally:
        first.kill()
        first.communicate()
    shutil.rmtree(path)
