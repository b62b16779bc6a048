"""Workers are forked from a template: what they get of the process that stands for them, and how the two end.

A folder with a module `ray` stands for Ray here: its worker says on standard output what it is.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from mnistlab.tuning import private, start_worker, template

WORKER = """
import json, os, signal, sys, time
if __name__ == "__main__":
    said = {"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "arguments": sys.argv[1:]}
    said |= {"word": os.environ.get("WORD"), "folder": os.getcwd(), "gone": os.environ.get("OF_THE_TEMPLATE")}
    said |= {"victim": open("/proc/self/oom_score_adj").read().strip()}
    print(json.dumps(said), flush=True)
    what = sys.argv[1] if sys.argv[1:] else "0"
    time.sleep(60) if what == "wait" else os.kill(os.getpid(), 9) if what == "die" else sys.exit(int(what))
"""
TEMPLATE = "from mnistlab.tuning import template; template.FIRST, template.THEN = (), ('ray',); template.main()"
OWN = {"RAY_JOB_ID": "01000000", "RAY_RAYLET_PID": "1"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    workers = tmp_path / "ray" / "_private" / "workers"
    workers.mkdir(parents=True)
    (workers / "default_worker.py").write_text(WORKER)
    (tmp_path / "ray" / "__init__.py").write_text("")
    return tmp_path


def surroundings(home: Path, **more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(home), str(Path(start_worker.__file__).parents[2])]))
    return {**os.environ, **OWN, "PYTHONPATH": path, start_worker.VARIABLE: str(home / "t"), **more}


@pytest.fixture
def forking(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(home / "t"))
        listening.listen()
        process = subprocess.Popen(
            [sys.executable, "-c", TEMPLATE, str(listening.fileno())],
            pass_fds=[listening.fileno()],
            stdin=subprocess.PIPE,
            env=surroundings(home, OF_THE_TEMPLATE="1"),
        )
    yield process
    process.kill()
    process.communicate()


def start(home: Path, *arguments: str, folder: Path | None = None, **more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, start_worker.__file__, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=surroundings(home, **more), cwd=folder or home)


def said(process: subprocess.Popen[bytes]) -> Mapping[str, object]:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def end(process: subprocess.Popen[bytes]) -> int:
    process.communicate(timeout=20)
    return process.returncode


def test_a_worker_is_a_copy_with_what_its_stand_in_was_given(
    home: Path, tmp_path_factory: pytest.TempPathFactory, forking: subprocess.Popen[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("elsewhere")
    worker = start(home, "0", "--more", folder=folder, WORD="hello")
    found = said(worker)
    assert found["parent"] == forking.pid
    assert found["arguments"] == ["0", "--more"]
    assert (found["word"], found["folder"], found["gone"]) == ("hello", str(folder), None)
    assert found["group"] == found["pid"]  # Ray ends what it has started by its group
    assert found["victim"] == Path("/proc/self/oom_score_adj").read_text().strip()
    assert end(worker) == 0


@pytest.mark.parametrize(("what", "code"), [("0", 0), ("3", 3), ("die", -signal.SIGKILL)])
def test_a_stand_in_ends_as_its_worker_does(home: Path, forking: subprocess.Popen[bytes], what: str, code: int) -> None:
    worker = start(home, what)
    assert said(worker)["parent"] == forking.pid
    assert end(worker) == code


def test_a_worker_ends_with_its_stand_in(home: Path, forking: subprocess.Popen[bytes]) -> None:
    worker, other = start(home, "wait"), start(home, "wait")
    copies = [psutil.Process(int(str(said(one)["pid"]))) for one in (worker, other)]
    worker.kill()
    assert psutil.wait_procs([copies[0]], timeout=20)[1] == []
    assert copies[1].is_running()
    copies[1].kill()
    assert end(other) == -signal.SIGKILL
    end(worker)


def test_without_a_template_ray_starts_its_own_worker(home: Path) -> None:
    worker = start(home, "3", WORD="hello")
    found = said(worker)
    assert (found["pid"], found["arguments"], found["word"]) == (worker.pid, ["3"], "hello")
    assert end(worker) == 3


def test_a_worker_for_which_ray_would_be_imported_otherwise_is_no_copy(
    home: Path, forking: subprocess.Popen[bytes]
) -> None:
    first, other, third = start(home), start(home, RAY_JOB_ID="ffffffff"), start(home)
    # Whichever comes first decides.
    found = [said(one)["parent"] == forking.pid for one in (first, other, third)]
    assert found in ([True, False, True], [False, True, False])
    assert [end(one) for one in (first, other, third)] == [0, 0, 0]


def test_a_template_in_which_something_has_started_a_thread_forks_nothing(
    home: Path, forking: subprocess.Popen[bytes]
) -> None:
    (home / "ray" / "__init__.py").write_text(
        "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    worker = start(home, "7")
    assert said(worker)["parent"] != forking.pid
    assert end(worker) == 7


def test_a_template_can_be_told_to_get_ready(home: Path, forking: subprocess.Popen[bytes]) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(home / "t"))
        start_worker.ask(line, [], {**OWN, "RAY_JOB_ID": "ffffffff"})
        assert line.recv(1) == b""
    worker = start(home)
    assert said(worker)["pid"] == worker.pid
    assert end(worker) == 0


def test_a_worker_that_has_lost_the_template_is_not_started_twice(home: Path, forking: subprocess.Popen[bytes]) -> None:
    worker = start(home, "wait")
    copy = psutil.Process(int(str(said(worker)["pid"])))
    forking.kill()
    assert worker.wait(20) == 1
    copy.kill()
    end(worker)


def test_a_template_ends_with_whoever_has_started_it(home: Path, forking: subprocess.Popen[bytes]) -> None:
    assert forking.stdin is not None
    forking.stdin.close()
    assert forking.wait(20) == 0


def test_a_template_in_which_a_gpu_was_opened_forks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not template._touches_a_gpu()
    monkeypatch.setattr(template, "GPUS", ("/dev/null",))
    with Path("/dev/null").open():
        assert template._touches_a_gpu()


def test_a_worker_and_its_stand_in_may_end_at_the_same_time() -> None:
    """The template hears of both at once, or of the second one while it is at work with the first."""
    with selectors.DefaultSelector() as events, subprocess.Popen(["true"]) as worker:
        here, there = socket.socketpair()
        pair = template._Pair(here, worker.pid, os.pidfd_open(worker.pid))
        events.register(pair.line, selectors.EVENT_READ, pair)
        events.register(pair.end, selectors.EVENT_READ, pair)
        there.close()
        while len(told := events.select(10)) < 2:
            pass
        for key, _ in told:
            template._end(events, key)
        assert not events.get_map()
        worker.returncode = 0  # the template has waited for it


@pytest.mark.parametrize("variable", template.ENVIRONMENT)
def test_a_template_has_one_thread_whatever_its_surroundings_say(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[Mapping[str, str]] = []
    monkeypatch.setenv(variable, "4")
    monkeypatch.setattr(private.subprocess, "Popen", lambda *_, env, **__: given.append(env) or Nothing())
    with private._template(tmp_path):
        assert os.environ[variable] == "4"  # what a worker computes with is the user's own
    assert [env[variable] for env in given] == ["1"]


class Nothing:
    def kill(self) -> None: ...

    def communicate(self) -> None: ...


ALONE = """
import os
os.environ.update(OWN)
from mnistlab.tuning import template
template._load((*template.FIRST, *template.THEN))
print(template._runs_alone())
"""


def test_what_workers_need_starts_no_thread() -> None:
    """Else no worker would be forked, and nothing but the time until the first epoch would tell."""
    body = ALONE.replace("OWN", repr(OWN))
    own = {**os.environ, **template.ENVIRONMENT}
    done = subprocess.run([sys.executable, "-c", body], env=own, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True"], done.stderr
