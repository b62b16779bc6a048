"""Whole searches on a pseudo-terminal: what a person sees of them, what they type, and how the terminal is left."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mnistlab import events
from mnistlab.cli.search import TOP
from mnistlab.console.ranking import print_leaderboard
from mnistlab.leaderboard import rank
from mnistlab.store import read_events, read_lines, read_run
from tests.cli.starting import IMAGES, MNISTLAB, of_ours, run_of, settings, wait_for, wait_until
from tests.forked import forked
from tests.terminals import PATIENCE, Terminal

pytestmark = pytest.mark.e2e

SETTINGS = ("CI", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "MNISTLAB_UI", "MNISTLAB_FPS", "PYTHONUNBUFFERED")

EXPERIMENT = f"""
name = "tiny"
seed = 3{IMAGES}[model.mlp]
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
def folder(ended: Path, ray_home: Path) -> Path:
    """A folder with images, whose path is short enough for Ray's sockets."""
    return ray_home


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    shown = Terminal(100, 30)
    yield shown
    shown.hang_up()


def environ(folder: Path) -> dict[str, str]:
    there = {key: value for key, value in {**os.environ, **settings(folder)}.items() if key not in SETTINGS}
    return there | {"TERM": "xterm-256color", "MNISTLAB_FPS": "4"}


Started = Callable[..., subprocess.Popen]


@pytest.fixture
def searching(folder: Path) -> Iterator[Started]:
    """Start a search without Ray; whatever the test makes of it, it is gone afterwards."""
    started: list[subprocess.Popen] = []

    def start(text: str, *arguments: str, **streams: Any) -> subprocess.Popen:
        (folder / "tiny.toml").write_text(text)
        words = ["search", "tiny.toml", "--executor", "local", *arguments]
        started.append(forked(words, folder, environ(folder), **streams))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def on_a_terminal(terminal: Terminal, searching: Started) -> Started:
    """Start a search on the terminal."""

    def start(text: str, *arguments: str) -> subprocess.Popen:
        at = terminal.slave
        return searching(text, "--ui", "live", *arguments, terminal=True, stdin=at, stdout=at, stderr=at)

    return start


def assert_nothing_left(folder: Path) -> None:
    wait_until(lambda: not of_ours(folder))
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
    text = LOUD.replace("top = 0", "top = 1\nbaseline = false\nseeds = 1").replace("epochs = 2", "epochs = 20")
    process = on_a_terminal(text, "--plugin", "mnistlab_loud.py")
    terminal.until(lambda: terminal.cursor_hidden)
    terminal.resize(80, 24)
    terminal.until(lambda: b"searching" in terminal.raw)
    terminal.type("x\n")  # as people do who wait
    terminal.resize(90, 20)
    assert process.wait(timeout=PATIENCE) == 0
    assert_ends(terminal, run_of(folder), 90, "done (2 complete)")
    assert_in_order(terminal)
    log = (run_of(folder) / "driver.log").read_text()
    wanted = [f"{way} at import" for way in WAYS] + [f"{way} in the driver" for way in WAYS if way != "warned"]
    assert [words for words in wanted if words not in log] == []
    assert "\n".join(line for line in log.splitlines() if "NOISE" not in line and "warnings.warn" not in line) == ""
    of_a_trial = (run_of(folder) / "trials" / "0000" / "log.txt").read_text()
    assert [way for way in WAYS if way != "warned" and f"{way} in a worker" not in of_a_trial] == []


# --- Ctrl-C, signals, a closed window -----------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "code"), [("Ctrl-C", 130), ("SIGTERM", 143)])
def test_whoever_stops_a_search_gets_what_there_is(
    terminal: Terminal, folder: Path, on_a_terminal: Started, how: str, code: int
) -> None:
    process = on_a_terminal(LONG)
    wait_for(folder, "trial_epoch")
    if how == "Ctrl-C":
        terminal.type("\x03")
    else:
        process.terminate()
    assert process.wait(timeout=PATIENCE) == code
    run = run_of(folder)
    assert_ends(terminal, run, 100, "interrupted")
    assert [line for line in terminal.everything() if line.startswith("   1  0000")]
    assert_in_order(terminal)
    assert [trial.trial for trial in read_run(run).trials] == ["0000"]
    assert [stamped.event.type for stamped in read_events(run)][-2:] == ["run_interrupted", "run_finished"]
    assert_nothing_left(folder)


@pytest.mark.parametrize("kind", ["run_preparing", "trial_epoch"])
def test_ctrl_c_twice_ends_a_search_at_once_and_in_order(
    terminal: Terminal, folder: Path, on_a_terminal: Started, kind: str
) -> None:
    process = on_a_terminal(LONG)
    wait_for(folder, kind)
    terminal.type("\x03")
    insist(process)
    assert_ended_at_once(terminal, folder, process)


@pytest.mark.ray
@pytest.mark.chaos
def test_ctrl_c_twice_at_any_moment_ends_a_search_with_a_ray_at_once_and_in_order(
    terminal: Terminal, folder: Path
) -> None:
    (folder / "tiny.toml").write_text(LONG)
    process = terminal.run([MNISTLAB, "search", "tiny.toml"], folder, environ(folder))
    terminal.until(lambda: b"reading tiny.toml" in terminal.raw)
    draw = random.Random(folder.name)
    moment, pause = draw.uniform(0.0, 12.0), draw.uniform(0.0, 0.5)
    print(f"Ctrl-C {moment:.3f} s after the start, and again {pause:.3f} s later")
    time.sleep(moment)
    terminal.type("\x03")
    time.sleep(pause)
    insist(process)
    assert_ended_at_once(terminal, folder, process)


def insist(process: subprocess.Popen) -> None:
    """Send what a second Ctrl-C sends; typed after the end, it would take along what the terminal has not shown yet."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)


def assert_ended_at_once(terminal: Terminal, folder: Path, process: subprocess.Popen) -> None:
    assert process.wait(timeout=PATIENCE) == 130
    assert "Traceback" not in "".join(terminal.everything())
    assert_in_order(terminal)
    for run in (folder / "runs").glob("*"):
        read_run(run)
        assert [stamped.event.type for stamped in read_events(run)][-2:] == ["run_interrupted", "run_finished"]
    assert_nothing_left(folder)


def test_a_driver_that_is_killed_gives_the_terminal_back(
    terminal: Terminal, folder: Path, on_a_terminal: Started
) -> None:
    process = on_a_terminal(LONG)
    wait_for(folder, "trial_epoch")
    terminal.until(lambda: terminal.cursor_hidden and not terminal.echoes)
    process.kill()
    again = f"go on with `mnistlab resume {run_of(folder).relative_to(folder)}"
    terminal.until(lambda: again in "".join(terminal.lines()))  # it may fill two of them
    assert not terminal.cursor_hidden
    assert terminal.echoes


def test_a_window_that_is_closed_stops_the_search_in_order(
    terminal: Terminal, folder: Path, on_a_terminal: Started
) -> None:
    process = on_a_terminal(LONG)
    wait_for(folder, "trial_epoch")
    terminal.hang_up()
    assert process.wait(timeout=PATIENCE) == 143
    run = run_of(folder)
    assert [trial.trial for trial in read_run(run).trials] == ["0000"]
    stream = [stamped.event for stamped in read_events(run)]
    assert [event.type for event in stream][-2:] == ["run_interrupted", "run_finished"]
    assert isinstance(stream[-1], events.RunFinished)
    assert stream[-1].exit_code == 143
    assert_nothing_left(folder)


# --- pipes --------------------------------------------------------------------------------------------------------


def test_sigusr1_says_in_a_line_where_the_run_stands(folder: Path, searching: Started) -> None:
    process = searching(LONG)
    wait_for(folder, "trial_epoch")
    process.send_signal(signal.SIGUSR1)
    wait_for(folder, "status_asked")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    (said,) = [line for line in err.splitlines() if "status: " in line]
    assert re.search(r"1 running \(000\d epoch \d+/2000\), \d of 2 finished", said)
    assert all(line.startswith("[") for line in err.splitlines())
    assert "\x1b" not in out + err


def test_json_is_the_event_stream_and_nothing_else(folder: Path, searching: Started) -> None:
    process = searching(EXPERIMENT, "--ui", "json")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert [json.loads(line) for line in out.splitlines()] == list(without_sums(run_of(folder)))
    assert "rank" in err  # the ranking is for people
    assert "run over" not in err


@pytest.mark.parametrize(("ui", "first"), [("quiet", "Run tiny-"), ("json", '{"schema":"mnistlab.event/1","seq":1,')])
def test_a_reader_that_goes_after_the_first_line_does_not_stop_the_search(
    folder: Path, searching: Started, ui: str, first: str
) -> None:
    process = searching(EXPERIMENT, "--ui", ui)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(first)  # as `| head -1` does
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=PATIENCE) == 0, err
    assert "Traceback" not in err
    assert "Broken" not in err
    assert ui == "json" or err == ""
    assert [trial.state for trial in read_run(run_of(folder)).trials] == ["complete"] * 2
    assert [stamped.event.type for stamped in read_events(run_of(folder))][-1] == "run_finished"


@pytest.mark.parametrize(
    "closed", [*(pytest.param(one, marks=pytest.mark.chaos) for one in ("0<&-", "1>&-")), "2>&-", "0<&- 1>&- 2>&-"]
)
def test_a_command_that_was_started_without_its_streams_works(folder: Path, closed: str) -> None:
    command = ["sh", "-c", f'exec "$0" plugins list --json {closed}', MNISTLAB]
    done = subprocess.run(command, cwd=folder, env=environ(folder), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("mnistlab" in done.stdout) == ("1>&-" not in closed)


def test_a_reader_that_never_was_is_no_error(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = forked(["plugins", "list", "--json"], folder, environ(folder), stdout=writing)
    os.close(writing)
    assert process.communicate(timeout=PATIENCE)[1] == ""
    assert process.returncode == 1


def without_sums(run: Path) -> Iterator[dict[str, object]]:
    for record in read_lines(run / "events.jsonl"):
        yield {key: value for key, value in record.items() if key != "crc"}
