"""Whole searches on a pseudo-terminal: what a person sees of them, what they type, and how the terminal is left."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from mnistlab import events
from mnistlab.cli.search import TOP
from mnistlab.console.summary import print_leaderboard
from mnistlab.leaderboard import rank
from mnistlab.store import read_events, read_lines, read_run
from tests.terminals import PATIENCE, Terminal

pytestmark = pytest.mark.e2e

MNISTLAB = str(Path(sys.executable).parent / "mnistlab")
SETTINGS = ("CI", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "MNISTLAB_UI", "MNISTLAB_FPS", "PYTHONUNBUFFERED")

EXPERIMENT = """
name = "tiny"
seed = 3
[data]
dataset = "idx"
validation = 300
[data.idx]
folder = "images"
[model.mlp]
depth = 1
width = [32, 64, 128]
batch_norm = true
[optimizer.adamw]
lr = 0.003
[training]
epochs = 2
batch_size = 64
[search]
trials = 2
scheduler = "none"
[confirm]
top = 0
[resources]
max_parallel = 1
"""
LONG = EXPERIMENT.replace("epochs = 2", "epochs = 2000")
LOUD = EXPERIMENT.replace("[model.mlp]\ndepth = 1", "[model.loud]").replace("batch_norm = true\n", "")

PLUGIN = """
import ctypes, logging, os, sys, warnings
from typing import Annotated
from torch import nn
from mnistlab.api import Choice, Config, Model, hookimpl

def say(where):
    print("NOISE printed", where)
    warnings.warn(f"NOISE warned {where}")
    logging.warning(f"NOISE logged {where}")
    os.write(1, f"NOISE by descriptor 1 {where}\\n".encode())
    os.write(2, f"NOISE by descriptor 2 {where}\\n".encode())
    os.system(f"echo NOISE by a shell {where}")
    ctypes.CDLL(None).printf(f"NOISE by C {where}\\n".encode())

say("at import")

class Loud(Config):
    width: Annotated[int, Choice(32, 64, 128)] = 32

def build(config, shape):
    say("in a worker")
    layers = nn.Linear(shape.pixels, config.width), nn.ReLU(), nn.Linear(config.width, shape.classes)
    return nn.Sequential(nn.Flatten(), *layers)

@hookimpl
def mnistlab_models():
    return [Model(name="loud", config=Loud, build=build, summary="Says much.")]

@hookimpl
def mnistlab_trial_finished(trial):
    say("in the driver")
"""
WAYS = ("printed", "warned", "logged", "by descriptor 1", "by descriptor 2", "by a shell", "by C")


@pytest.fixture
def folder(digits: Path) -> Iterator[Path]:
    """A folder with nothing but images, whose path is short enough for Ray's sockets."""
    path = Path(tempfile.mkdtemp(prefix="m-", dir="/tmp"))
    shutil.copytree(digits, path / "images")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    shown = Terminal(100, 30)
    yield shown
    shown.hang_up()


def environ(folder: Path) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key not in SETTINGS} | {
        "TMPDIR": str(folder),
        "TERM": "xterm-256color",
    }


def search(folder: Path, text: str, *arguments: str) -> list[str]:
    (folder / "tiny.toml").write_text(text)
    return [MNISTLAB, "search", "tiny.toml", *arguments]


Started = Callable[..., subprocess.Popen]


@pytest.fixture
def on_a_terminal(folder: Path, terminal: Terminal) -> Iterator[Started]:
    """Start a search on the terminal; whatever the test makes of it, it is gone afterwards."""
    started: list[subprocess.Popen] = []

    def start(text: str, *arguments: str) -> subprocess.Popen:
        started.append(terminal.run(search(folder, text, *arguments), folder, environ(folder)))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def piped(folder: Path) -> Iterator[Started]:
    """Start a search whose streams are pipes."""
    started: list[subprocess.Popen] = []

    def start(text: str, *arguments: str) -> subprocess.Popen:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(search(folder, text, *arguments), cwd=folder, env=environ(folder), **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def only_run(folder: Path) -> Path:
    (path,) = (folder / "runs").iterdir()
    return path


def happened(folder: Path, kind: type[events.Event]) -> bool:
    runs = list((folder / "runs").glob("*/events.jsonl"))
    return bool(runs) and any(isinstance(stamped.event, kind) for stamped in read_events(runs[0].parent))


def wait_for(true: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert process.poll() is None, f"it ended with {process.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_of(folder: Path) -> list[str]:
    """The command lines of processes that name the folder: those of its Ray."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found += [words] * (str(folder) in words)
    return found


def assert_nothing_left(folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while processes_of(folder):
        assert time.monotonic() < deadline, processes_of(folder)
        time.sleep(0.2)
    assert not list(folder.glob("mnistlab-*"))


def assert_in_order(terminal: Terminal) -> None:
    """The terminal is as it was: the cursor shows, what is typed shows, and nothing of the dashboard is left."""
    terminal.settle()
    assert not terminal.cursor_hidden
    assert terminal.echoes
    text = terminal.written()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")
    assert "\x1b" not in re.sub(r"\x1b\[\d*m", "", text.rpartition("\x1b[?25h")[2].replace("\r\x1b[2K", ""))
    assert not [line for line in terminal.everything() if re.search("searching|queued|starting", line)]


def assert_ends(terminal: Terminal, run: Path, width: int, outcome: str) -> None:
    """The terminal holds how the run ended and its ranking, in that width, and no other line, scrollback included."""
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=True, color_system=None, highlight=False)
    print_leaderboard(rank(read_run(run)), console, top=TOP)
    ranking = [line.rstrip() for line in text.getvalue().splitlines()]
    shown, count = terminal.everything(), Counter(line.partition(" ")[2] for line in terminal.everything())
    written = [f"runs/{run.name}/{path.name}" for path in run.iterdir() if count[f"runs/{run.name}/{path.name}"]]
    told = {"Run over: ": 1, "Written: ": len(written), "Next: ": 2}
    assert len(written) >= 4
    assert f"run over: {outcome}" in shown[0]
    assert [line for line in shown[1:] if not line.startswith(tuple(told))] == ranking
    assert {word: sum(line.startswith(word) for line in shown) for word in told} == told
    assert len(shown) == 1 + len(ranking) + sum(told.values())


# --- from start to end --------------------------------------------------------------------------------------------


def test_a_search_leaves_its_end_and_its_ranking_and_no_other_line(
    terminal: Terminal, folder: Path, on_a_terminal: Started
) -> None:
    (folder / "mnistlab_loud.py").write_text(PLUGIN)
    text = LOUD.replace("top = 0", "top = 1\nseeds = 1")
    process = on_a_terminal(text, "--plugin", "mnistlab_loud.py")
    terminal.until(lambda: any("starting Ray" in line for line in terminal.lines()))
    assert terminal.cursor_hidden
    terminal.resize(80, 24)
    terminal.until(lambda: any("searching" in line for line in terminal.lines()))
    terminal.type("x\n")  # as people do who wait
    terminal.resize(90, 20)
    assert process.wait(timeout=PATIENCE) == 0
    assert_ends(terminal, only_run(folder), 90, "done (2 complete)")
    assert_in_order(terminal)
    log = (only_run(folder) / "driver.log").read_text()
    wanted = [f"{way} at import" for way in WAYS] + [f"{way} in the driver" for way in WAYS if way != "warned"]
    assert [words for words in wanted if words not in log] == []
    assert "\n".join(line for line in log.splitlines() if "NOISE" not in line and "warnings.warn" not in line) == ""


# --- Ctrl-C, signals, a closed window -----------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "code"), [("Ctrl-C", 130), ("SIGTERM", 143)])
def test_whoever_stops_a_search_gets_what_there_is(
    terminal: Terminal, folder: Path, on_a_terminal: Started, how: str, code: int
) -> None:
    process = on_a_terminal(LONG)
    wait_for(lambda: happened(folder, events.TrialEpoch), process)
    moment = random.Random(folder.name).uniform(0.0, 2.0)
    print(f"{how} {moment:.3f} s after the first epoch was seen")
    time.sleep(moment)
    if how == "Ctrl-C":
        terminal.type("\x03")
    else:
        process.terminate()
    assert process.wait(timeout=PATIENCE) == code
    run = only_run(folder)
    assert_ends(terminal, run, 100, "interrupted")
    assert [line for line in terminal.everything() if line.startswith("   1  0000")]
    assert_in_order(terminal)
    assert [trial.trial for trial in read_run(run).trials] == ["0000"]
    assert [stamped.event.type for stamped in read_events(run)][-2:] == ["run_interrupted", "run_finished"]
    assert_nothing_left(folder)


def test_ctrl_c_twice_at_any_moment_ends_a_search_at_once_and_in_order(
    terminal: Terminal, folder: Path, on_a_terminal: Started
) -> None:
    process = on_a_terminal(LONG)
    terminal.until(lambda: "reading tiny.toml" in "".join(terminal.lines()))
    moment, pause = random.Random(folder.name).uniform(0.0, 12.0), random.Random(folder.name).uniform(0.0, 0.5)
    print(f"Ctrl-C {moment:.3f} s after the start, and again {pause:.3f} s later")
    time.sleep(moment)
    terminal.type("\x03")
    time.sleep(pause)
    terminal.type("\x03")
    assert process.wait(timeout=PATIENCE) == 130
    assert "Traceback" not in "".join(terminal.everything())
    assert_in_order(terminal)
    for run in (folder / "runs").glob("*"):
        read_run(run)
        assert [stamped.event.type for stamped in read_events(run)][-2:] == ["run_interrupted", "run_finished"]
    assert_nothing_left(folder)


def test_a_window_that_is_closed_stops_the_search_in_order(
    terminal: Terminal, folder: Path, on_a_terminal: Started
) -> None:
    process = on_a_terminal(LONG)
    wait_for(lambda: happened(folder, events.TrialEpoch), process)
    terminal.hang_up()
    assert process.wait(timeout=PATIENCE) == 143
    run = only_run(folder)
    assert [trial.trial for trial in read_run(run).trials] == ["0000"]
    stream = [stamped.event for stamped in read_events(run)]
    assert [event.type for event in stream][-2:] == ["run_interrupted", "run_finished"]
    assert isinstance(stream[-1], events.RunFinished)
    assert stream[-1].exit_code == 143
    assert_nothing_left(folder)


# --- pipes --------------------------------------------------------------------------------------------------------


def test_sigusr1_says_in_a_line_where_the_run_stands(folder: Path, piped: Started) -> None:
    process = piped(LONG, "--set", "training.epochs=300")
    wait_for(lambda: happened(folder, events.TrialEpoch), process)
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    (said,) = [line for line in err.splitlines() if "status: " in line]
    assert re.search(r"1 running \(000\d epoch \d+/300\), \d of 2 finished", said)
    assert all(line.startswith("[") for line in err.splitlines())
    assert "\x1b" not in out + err


def test_json_is_the_event_stream_and_nothing_else(folder: Path, piped: Started) -> None:
    process = piped(EXPERIMENT, "--ui", "json")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert [json.loads(line) for line in out.splitlines()] == list(without_sums(only_run(folder)))
    assert "rank" in err  # the ranking is for people
    assert "run over" not in err


@pytest.mark.parametrize(("ui", "first"), [("quiet", "Run tiny-"), ("json", '{"schema":"mnistlab.event/1","seq":1,')])
def test_a_reader_that_goes_after_the_first_line_does_not_stop_the_search(
    folder: Path, piped: Started, ui: str, first: str
) -> None:
    process = piped(EXPERIMENT, "--ui", ui)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(first)  # as `| head -1` does
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=PATIENCE) == 0, err
    assert "Traceback" not in err
    assert "Broken" not in err
    assert ui == "json" or err == ""
    assert [trial.state for trial in read_run(only_run(folder)).trials] == ["complete"] * 2
    assert [stamped.event.type for stamped in read_events(only_run(folder))][-1] == "run_finished"


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_command_that_was_started_without_its_streams_works(folder: Path, closed: str) -> None:
    command = ["sh", "-c", f'exec "$0" plugins list --json {closed}', MNISTLAB]
    done = subprocess.run(command, cwd=folder, env=environ(folder), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("mnistlab" in done.stdout) == ("1>&-" not in closed)


def test_a_reader_that_never_was_is_no_error(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [MNISTLAB, "plugins", "list", "--json"]
    done = subprocess.run(command, cwd=folder, env=environ(folder), stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 1


def without_sums(run: Path) -> Iterator[dict[str, object]]:
    for record in read_lines(run / "events.jsonl"):
        yield {key: value for key, value in record.items() if key != "crc"}
