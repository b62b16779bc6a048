"""`watch`, `replay` and `status`: a run seen from its event stream alone, finished, broken off or going on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from mnistlab import events
from mnistlab.cli import watch
from mnistlab.store import RunWriter, read_events
from tests.conftest import RunCli

RECORDINGS = Path(__file__).parents[1] / "recordings"
MNISTLAB = str(Path(sys.executable).parent / "mnistlab")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A finished run of the folder in which commands are typed."""
    path = tmp_path / "runs" / "flat-1"
    path.mkdir(parents=True)
    shutil.copy(RECORDINGS / "flat.jsonl", path / "events.jsonl")
    return path


def cut(run: Path, at: float) -> None:
    """Take away what came after `at`, as if the driver had been killed then."""
    count = sum(one.t <= at for one in read_events(run))
    stream = run / "events.jsonl"
    stream.write_bytes(b"".join(stream.read_bytes().splitlines(keepends=True)[:count]))


def test_status_says_where_a_run_stands(recorded: Path, run_here: RunCli) -> None:
    done = run_here("status")
    assert (done.code, done.err) == (0, "")
    assert "over 14/14 · 1m34s" in done.out
    assert "best 98.33 %  trial 0006" in done.out
    assert "gone" not in done.out
    assert "\x1b" not in done.out


def test_status_says_where_it_stood(recorded: Path, run_here: RunCli) -> None:
    done = run_here("status", "flat-1", "--at", "30s")
    assert "searching 4/14 · 30s · ETA" in done.out
    assert "gone" not in done.out


def test_status_as_json_is_one_object_for_programs(recorded: Path, run_here: RunCli) -> None:
    told = json.loads(run_here("status", str(recorded), "--json", "--at", "30s").out)
    assert (told["schema"], told["phase"], told["seconds"]) == ("mnistlab.status/1", "search", 30.0)
    assert told["trials"] | {"running": 0} == {
        "total": 14, "complete": 4, "pruned": 0, "paused": 0, "interrupted": 0, "failed": 0, "running": 0,
    }  # fmt: skip
    assert [one["trial"] for one in told["trials"]["running"]] == ["0004", "0005"]
    assert told["eta_seconds"]["median"] <= told["eta_seconds"]["p90"]
    assert told["best"]["trial"] == "0000"


def test_status_as_a_picture_needs_nothing_from_elsewhere(recorded: Path, run_here: RunCli, tmp_path: Path) -> None:
    done = run_here("status", "--at", "30s", "--svg", "x.svg", "--size", "100x24", "--theme", "light")
    assert done.code == 0, done.err
    text = (tmp_path / "x.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert "ETA" in "".join(root.itertext())
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_wrong_words_are_refused_in_words(recorded: Path, run_here: RunCli) -> None:
    for arguments, words in (
        (("status", "--at", "soon"), "[--at] must be a duration"),
        (("status", "--svg", "x.svg", "--size", "9x9", "--theme", "drak"), "[--size] must be columns x lines"),
        (("status", "--svg", "x.svg", "--theme", "drak"), "did you mean 'dark'"),
        (("status", "--svg", "no/x.svg"), "can't write no/x.svg: No such file"),
        (("replay", "--speed", "0"), "[--speed] must be a number greater than 0"),
        (("watch", "falt-1"), "did you mean 'flat-1'"),
        (("watch", "--ui", "lvie"), "did you mean 'live'"),
    ):
        done = run_here(*arguments)
        assert done.code in (2, 75)
        assert words in done.err
        assert "Traceback" not in done.err


def test_commands_that_go_on_can_be_typed_and_are_named_only_where_they_would(recorded: Path, run_here: RunCli) -> None:
    cut(recorded, 40.0)
    there = "'my runs/flat-1'"
    recorded.parent.rename(recorded.parent.with_name("my runs"))
    for command in ("status", "watch"):
        done = run_here(command, "--runs", "my runs", *(["--ui", "plain"] if command == "watch" else []))
        assert f": mnistlab resume {there}\n" in done.out + done.err
    assert f"Next: mnistlab leaderboard {there}\n" in done.err
    run = recorded.parent.with_name("my runs") / recorded.name
    (run / "events.jsonl").unlink()
    writer = RunWriter(run)
    writer.append(events.RunPreparing(run="flat-1", step="starting Ray"))
    writer.close()
    for command in ("status", "watch"):
        done = run_here(command, "--runs", "my runs", *(["--ui", "plain"] if command == "watch" else []))
        assert "Nothing had begun yet, so there is nothing to go on with" in done.out + done.err
        assert "mnistlab resume" not in done.out + done.err
        assert "mnistlab leaderboard" not in done.out + done.err


def test_a_run_that_lost_its_driver_says_so(recorded: Path, run_here: RunCli) -> None:
    cut(recorded, 40.0)
    out = run_here("status").out
    assert "The process that drove this run is gone" in out
    assert "To go on with it: mnistlab resume " in out
    assert re.search(r"searching \d+/14 · \d+s$", out, re.MULTILINE)
    assert "ETA" not in out  # nobody is at work on it
    assert json.loads(run_here("status", "--json").out)["eta_seconds"] is None
    assert "ETA" in run_here("status", "--at", "40s").out  # as it stood then
    done = run_here("watch", "--ui", "plain")
    assert done.code == 0
    assert "has no end yet, and no process is driving it" in done.err


def test_replay_tells_the_run_again(recorded: Path, run_here: RunCli) -> None:
    done = run_here("replay", "flat-1", "--speed", "1000", "--ui", "plain")
    assert (done.code, done.out) == (0, "")
    told = [line for line in done.err.splitlines() if line.startswith("[")]
    assert "run flat-2026-11-25-1: up to 14 trials" in told[0]
    assert told[-1] == "[ 1m34s] run over: done (14 complete) in 1m34s"
    assert sum(" started: " in line for line in told) == 14


def test_replay_keeps_the_pace(recorded: Path, run_here: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept))
    monkeypatch.setattr(watch, "time", clock)
    assert run_here("replay", "--speed", "40", "--ui", "json").code == 0
    last = [one.t for one in read_events(recorded)][-1]
    assert last > 93
    assert sum(slept) == pytest.approx(last / 40)


def test_a_replay_as_json_is_the_stream(recorded: Path, run_here: RunCli) -> None:
    done = run_here("replay", "--speed", "100000", "--ui", "json")
    told = [json.loads(line) for line in done.out.splitlines()]
    kept = [json.loads(line) for line in (recorded / "events.jsonl").read_text().splitlines()]
    assert [one["seq"] for one in told] == [one["seq"] for one in kept]
    known = events.from_json(kept[-1])
    assert known is not None
    assert told[-1] == events.to_json(known)


@pytest.mark.e2e
def test_who_leaves_a_view_has_not_ended_the_run(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "live-1"
    path.mkdir(parents=True)
    writer = RunWriter(path)
    for one in read_events_of("flat")[:10]:
        writer.append(one.event)
    watching = subprocess.Popen(
        [MNISTLAB, "watch", "--ui", "json"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert watching.stdout is not None
    for _ in range(10):
        watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=30)
    writer.close()
    assert watching.returncode == 0
    assert "you have left the view; the run goes on" in err


@pytest.mark.e2e
def test_watch_follows_a_run_that_goes_on_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "live-1"
    path.mkdir(parents=True)
    writer = RunWriter(path)
    stream = [one.event for one in read_events_of("flat")]
    for event in stream[:10]:
        writer.append(event)
    watching = subprocess.Popen(
        [MNISTLAB, "watch", "--ui", "json"],
        cwd=tmp_path,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    told = [watching.stdout.readline() for _ in range(10)]
    for event in stream[10:]:
        writer.append(event)
    reader = threading.Thread(target=lambda: told.extend(watching.stdout or []))
    reader.start()
    assert watching.wait(30) == 0
    reader.join()
    writer.close()
    assert [json.loads(line)["seq"] for line in told] == list(range(1, len(stream) + 1))


def read_events_of(name: str) -> list[events.Stamped]:
    lines = (RECORDINGS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [one for one in map(events.from_json, map(json.loads, lines)) if one is not None]
