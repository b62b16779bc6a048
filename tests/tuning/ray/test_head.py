"""What the driver hears of the process that starts a private Ray; a small program stands for that process here."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mnistlab.tuning.ray import private
from mnistlab.tuning.ray.private import Head, Up

ONCE = {"RAY_JOB_ID": "01000000", "RAY_RAYLET_PID": "7"}
START = "import json, sys, time\nsay = lambda what: print(json.dumps(what), flush=True)\n"
FIRST = f"say({ONCE})\n"
SECOND = "say({'address': '127.0.0.1:9', 'parts': {'raylet': 7, 'gcs_server': 8}})\n"
LAST = "sys.stdin.read()\n"

Heads = Callable[[str], Head]


@pytest.fixture
def heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Heads:
    def head(body: str) -> Head:
        (tmp_path / "head.py").write_text(START + body)
        monkeypatch.setattr(private, "HEAD", tmp_path / "head.py")
        return Head(2, 1, tmp_path)

    return head


def test_what_workers_are_told_is_known_before_ray_is_up(heads: Heads) -> None:
    head = heads(FIRST + "sys.stdin.readline()\n" + SECOND + LAST)
    assert head.once() == ONCE
    assert head._process.stdin is not None
    head._process.stdin.write(b"\n")
    head._process.stdin.flush()
    assert head.up() == Up("127.0.0.1:9", {"raylet": 7, "gcs_server": 8})
    head.end()
    assert head._process.returncode == 0


@pytest.mark.parametrize("before", ["", FIRST])
@pytest.mark.parametrize(
    ("body", "said"),
    [("say({'error': 'no room'})", "no room"), ("sys.exit(3)", "the process that starts it has ended")],
    ids=["an error", "an end"],
)
def test_each_who_asks_hears_why_ray_has_not_come_up(heads: Heads, before: str, body: str, said: str) -> None:
    head = heads(before + body)
    for _ in range(2):
        with pytest.raises(ChildProcessError, match=said):
            head.up()
    if not before:
        with pytest.raises(ChildProcessError, match=said):
            head.once()
    head.end()


def test_a_ray_that_is_not_up_yet_is_killed(heads: Heads, tmp_path: Path) -> None:
    head = heads(FIRST + "time.sleep(60)")
    head.once()
    private.kill_what_is_left(tmp_path)  # which knows it by the folder that it was told
    assert private.has_ended(psutil.Process(head._process.pid))
    head.kill()
    assert head._process.returncode == -signal.SIGKILL


def test_a_part_of_ray_is_alive_until_its_end_whoever_waits_for_it() -> None:
    from mnistlab.tuning.ray import joined

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        part = joined.Part(process.pid)
        assert part.poll() is None
        process.kill()
        while part.poll() is None:  # it is nobody's to wait for but its parent's: a zombie has ended
            pass
    assert joined.Part(process.pid).poll() == 1  # it has been waited for: there is no such process any more
