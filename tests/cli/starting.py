"""Searches that tests start: forked from this process and without Ray, or by the installed command and with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from mnistlab import events
from mnistlab.store import read_events, read_run
from tests.conftest import PACKAGES
from tests.forked import forked
from tests.terminals import PATIENCE

MNISTLAB = str(Path(sys.executable).parent / "mnistlab")
DRIVING = ("search", "resume", "retry", "confirm")  # commands that have an executor
IMAGES = """
[data]
dataset = "idx"
validation = 300
[data.idx]
folder = "images"
"""  # of an experiment in the folder `home`
EXPERIMENT = f"""
name = "tiny"{IMAGES}[model.mlp]
depth = 1
width = [32, 64, 128]
[optimizer.adamw]
lr = {{ low = 1e-3, high = 1e-2 }}
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
baseline = false
seeds = 2
"""
MOODY = f"""
name = "tiny"{IMAGES}[model.moody]
mood = "raise"
[optimizer.adamw]
[training]
epochs = 2000
batch_size = 64
[search]
trials = 3
scheduler = "none"
"""


def settings(home: Path) -> dict[str, str]:
    """What is set for commands that are typed in `home`: what they cache and what Ray keeps lies there too."""
    ours = {"MNISTLAB_OFFLINE": "1", "MNISTLAB_CACHE": str(home / "cache"), "TMPDIR": str(home), "COLUMNS": "150"}
    return {**ours, "MNISTLAB_DISABLE": ",".join(PACKAGES)}


def environ(home: Path, **more: str) -> dict[str, str]:
    """The whole environment of a process that is started in `home`."""
    return os.environ | settings(home) | more


def start(home: Path, *arguments: str, plain: bool = True, cwd: Path | None = None, **more: str) -> subprocess.Popen:
    """Start a command in `home`; trials run in its process."""
    local = ["--executor", "local"] if arguments[0] in DRIVING and "--executor" not in arguments else []
    words = [*arguments, *local, *(["--ui", "plain"] if plain else [])]
    return forked(words, cwd or home, environ(home, **more))


def start_on_ray(home: Path, *arguments: str, **more: str) -> subprocess.Popen:
    """Start the installed command in `home`, whose path is short enough for Ray's sockets."""
    return subprocess.Popen(
        [MNISTLAB, *arguments, "--ui", "plain"],
        cwd=home,
        env=environ(home, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives it
    )


def end(process: subprocess.Popen) -> tuple[int, str, str]:
    """Wait for the end; return the exit code and what was said."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def run_of(home: Path) -> Path:
    (path,) = (home / "runs").iterdir()
    return path


def kinds(home: Path) -> Counter[str]:
    """How many events of each kind the runs in `home` have."""
    return Counter(stamped.event.type for path in home.glob("runs/*") for stamped in read_events(path))


def wait_until(true: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Wait until something is true; as long as that takes, `process` must live.

    A look may be costly, as that at all processes, so only the first ones come quickly after each other.
    """
    began = time.monotonic()
    while not true():
        assert process is None or process.poll() is None, process.communicate()
        looked = time.monotonic()
        assert looked - began < PATIENCE / 2
        time.sleep(0.02 if looked - began < 0.1 else 0.1)


@contextmanager
def home_for_ray(images: Path, experiment: str = EXPERIMENT) -> Iterator[Path]:
    """Yield a folder with images and an experiment, and a path short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="m-", dir="/tmp"))
    (folder / "images").symlink_to(images)
    (folder / "tiny.toml").write_text(experiment)
    yield folder
    shutil.rmtree(folder)


def wait_for(home: Path, kind: str, count: int = 1) -> None:
    """Wait until so many events of a kind have happened."""
    wait_until(lambda: kinds(home)[kind] >= count)


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


def check_whole(home: Path, trials: int = 5, replicates: int = 2) -> None:
    """Everything that the experiment asks for is there, once."""
    record, stream = read_run(run_of(home)), list(read_events(run_of(home)))
    assert [one.trial for one in record.trials] == [f"{number:04}" for number in range(trials)]
    assert {one.state for one in record.trials} <= {"complete", "pruned"}
    assert len(record.replicates) == replicates
    assert all(one.test for one in record.replicates)
    assert [stamped.seq for stamped in stream] == list(range(1, len(stream) + 1))
    assert not list(run_of(home).glob("trials/*/checkpoints"))


def check_interrupted(home: Path, process: subprocess.Popen[str], code: int, reason: str, *, twice: bool) -> None:
    ended, _, err = end(process)
    assert ended == code, err
    assert "Traceback" not in err
    stream = [stamped.event for stamped in read_events(run_of(home))]
    assert [event.type for event in stream][-2:] == ["run_interrupted", "run_finished"]
    asked = [event.at_once for event in stream if isinstance(event, events.StopAsked)]
    assert asked == [False, True][: 1 + twice]
    assert ("stopping at once; what runs is cut short" in err) == twice
    cut = [event for event in stream if isinstance(event, events.TrialInterrupted)]
    assert {event.reason for event in cut} == {reason}
    assert stream[-1].counts == {"interrupted": len(cut)}
