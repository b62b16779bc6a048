"""The command from end to end: a search whose driver is killed, or asked to stop, is gone on with to its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mnistlab import events
from mnistlab.lines import encode_file
from mnistlab.store import RunWriter, read_events, read_run

pytestmark = pytest.mark.e2e

MNISTLAB = str(Path(sys.executable).parent / "mnistlab")
EXPERIMENT = """
name = "tiny"
[data]
dataset = "idx"
validation = 300
[data.idx]
folder = "images"
[model.mlp]
depth = 1
width = [32, 64, 128]
[optimizer.adamw]
lr = { low = 1e-3, high = 1e-2 }
[training]
epochs = 6
batch_size = 64
[search]
trials = 5
scheduler = "asha"
grace_epochs = 2
reduction_factor = 2
[confirm]
top = 1
seeds = 2
"""


@pytest.fixture
def home(digits: Path) -> Iterator[Path]:
    """A folder with images, an experiment, and a path short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="m-", dir="/tmp"))
    shutil.copytree(digits, folder / "images")
    (folder / "tiny.toml").write_text(EXPERIMENT)
    yield folder
    shutil.rmtree(folder)


def start(home: Path, *arguments: str, plain: bool = True, cwd: Path | None = None) -> subprocess.Popen[str]:
    ours = {"MNISTLAB_OFFLINE": "1", "MNISTLAB_CACHE": str(home / "cache"), "TMPDIR": str(home), "COLUMNS": "150"}
    return subprocess.Popen(
        [MNISTLAB, *arguments, *(["--ui", "plain"] if plain else [])],
        cwd=cwd or home,
        env=os.environ | ours,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def run_of(home: Path) -> Path:
    (path,) = (home / "runs").iterdir()
    return path


def kinds(home: Path) -> Counter[str]:
    return Counter(stamped.event.type for path in home.glob("runs/*") for stamped in read_events(path))


def wait_for(home: Path, kind: str, count: int = 1) -> None:
    deadline = time.monotonic() + 120
    while kinds(home)[kind] < count:
        assert time.monotonic() < deadline, kinds(home)
        time.sleep(0.05)


def of_ours(home: Path) -> list[psutil.Process]:
    """What still runs of a Ray whose files lie in `home`."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(home) in word for word in process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def check_whole(home: Path) -> None:
    """Everything that the experiment asks for is there, once."""
    record, stream = read_run(run_of(home)), list(read_events(run_of(home)))
    assert [one.trial for one in record.trials] == [f"{number:04}" for number in range(5)]
    assert {one.state for one in record.trials} <= {"complete", "pruned"}
    assert len(record.replicates) == 2
    assert all(one.test for one in record.replicates)
    assert [stamped.seq for stamped in stream] == list(range(1, len(stream) + 1))
    assert not list(run_of(home).glob("trials/*/checkpoints"))


def test_a_killed_search_is_gone_on_with(home: Path) -> None:
    search = start(home, "search", "tiny.toml")
    wait_for(home, "trial_finished")
    search.send_signal(signal.SIGKILL)
    search.communicate()
    ended = {one.trial: one for one in read_run(run_of(home)).trials}
    deadline = time.monotonic() + 60
    while of_ours(home):  # a Ray whose driver has died goes by itself
        assert time.monotonic() < deadline
        time.sleep(0.5)
    code, out, err = end(start(home, "resume", run_of(home).name))
    assert code == 0, err
    assert "going on with the run: " in err
    assert "leads with mean test accuracy" in out
    check_whole(home)
    assert ended.items() <= {one.trial: one for one in read_run(run_of(home)).trials}.items()
    # once more: nothing is left to do, and nothing is written
    before = (run_of(home) / "events.jsonl").read_bytes()
    code, out, err = end(start(home, "resume", run_of(home).name))
    assert (code, (run_of(home) / "events.jsonl").read_bytes()) == (0, before)
    assert "nothing is left to do: each of 5 trials has ended" in err


def test_a_search_that_was_asked_to_stop_says_how_it_goes_on_and_does(home: Path) -> None:
    search = start(home, "search", "tiny.toml", "--set", "training.epochs=40")
    wait_for(home, "trial_epoch", 3)
    search.send_signal(signal.SIGINT)
    code, out, err = end(search)
    assert code == 130
    assert f"Next: mnistlab resume {run_of(home).relative_to(home)}" in out
    code, out, err = end(start(home, "resume", run_of(home).name, "--trials", "5"))
    assert code == 0, err
    check_whole(home)
    (resumed,) = [s.event for s in read_events(run_of(home)) if isinstance(s.event, events.RunResumed)]
    assert resumed.changes == {"search.trials": 5}
    assert resumed.again


def test_what_would_make_it_another_search_is_refused(home: Path) -> None:
    code, _, err = end(start(home, "search", "tiny.toml", "--set", "confirm.top=0", "--trials", "1"))
    assert code == 0, err
    run = run_of(home)
    before = (run / "events.jsonl").read_bytes()
    for change in ("training.epochs=9", "model.mlp.depth=3", "search.metric=val_loss"):
        code, _, err = end(start(home, "resume", run.name, "--set", change))
        assert code == 2
        assert f"--set {change}" in err
        assert "search.trials, search.time_budget, the two time-outs of a trial and resources can" in err
    code, _, err = end(start(home, "retry", run.name))
    assert code == 2
    assert "say --failed" in err
    holder = RunWriter(run)
    try:
        code, _, err = end(start(home, "resume", run.name, "--trials", "2"))
    finally:
        holder.close()
    assert code == 6
    assert f"is in use by process {os.getpid()}" in err
    assert f"mnistlab watch runs/{run.name}" in err
    assert (run / "events.jsonl").read_bytes() == before
    code, _, err = end(start(home, "resume", "tiny-2020", "--trials", "2"))
    assert code == 2
    assert f"did you mean '{run.name}'?" in err


def test_a_run_that_died_just_before_its_end_gets_that_and_nothing_else(home: Path) -> None:
    code, _, err = end(start(home, "search", "tiny.toml", "--set", "search.trials=2"))
    assert code == 0, err
    run = run_of(home)
    lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    *_, before = [stamped.event for stamped in read_events(run)]
    assert isinstance(before, events.RunFinished)
    (run / "events.jsonl").write_bytes(b"".join(lines[:-1]))
    code, out, err = end(start(home, "resume", ".", cwd=run))
    assert code == 0, err
    *_, last, stamped = read_events(run)
    finished = stamped.event
    assert not isinstance(last.event, events.RunPreparing | events.RunResumed)
    assert isinstance(finished, events.RunFinished)
    assert (finished.outcome, finished.exit_code, finished.counts) == ("done", 0, before.counts)
    assert 0 <= finished.seconds - last.t < 5  # the time in which nobody drove it is not the run's
    assert "the driver died before it could write the end of the run: it is written now; nothing is left to do" in err
    assert "leads with mean test accuracy" in out
    count = len(list(read_events(run)))
    code, _, err = end(start(home, "resume", run.name))
    assert (code, len(list(read_events(run)))) == (0, count)
    assert "written now" not in err


def test_a_run_that_died_while_the_test_set_was_open_gets_its_scores(home: Path) -> None:
    code, _, err = end(start(home, "search", "tiny.toml", "--set", "search.trials=1"))
    assert code == 0, err
    (run,) = (home / "runs").iterdir()
    # What SIGKILL leaves just after the ledger has said that the test set is open: results without scores, no end.
    ledger = (run / "test_ledger.jsonl").read_bytes().splitlines(keepends=True)
    (run / "test_ledger.jsonl").write_bytes(ledger[0])
    for path in run.glob("trials/*/replicates/*/result.json"):
        body = json.loads(path.read_bytes()) | {"test": None, "test_correct": ""}
        path.write_bytes(encode_file({key: value for key, value in body.items() if key != "crc"}))
    events_ = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    (run / "events.jsonl").write_bytes(b"".join(line for line in events_ if b'"type":"run_finished"' not in line))
    code, out, err = end(start(home, "resume", run.name))
    assert code == 0, err
    assert all(one.test for one in read_run(run).replicates)
    assert "the test set was opened 2 times" in out
