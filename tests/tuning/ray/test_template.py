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
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mnistlab.tuning.ray import forking as forking_module
from mnistlab.tuning.ray import start_worker, template
from tests.cli.starting import wait_until

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
PROGRAM = """
import sys
from mnistlab.tuning.ray import template
template.FIRST, template.THEN = (), ("ray",)
template.main()
"""
DRIVER = """
import os, signal, sys, threading, time
from pathlib import Path
from mnistlab.tuning.ray import forking, template
template.__file__, template.FIRST, template.THEN = sys.argv[2], (), ("ray",)
one = forking.Template(Path(sys.argv[1]))
BEGIN
print(one._process.pid, flush=True)
sys.stdin.read()
one.end()
"""
COPY = "import ray; one.fork()"
OWN = {"RAY_JOB_ID": "01000000", "RAY_RAYLET_PID": "1"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    workers = tmp_path / "ray" / "_private" / "workers"
    workers.mkdir(parents=True)
    (workers / "default_worker.py").write_text(WORKER)
    (tmp_path / "ray" / "__init__.py").write_text("")
    (tmp_path / "ray" / "_raylet.py").write_text("def setproctitle(title): pass")
    return tmp_path


def surroundings(home: Path, **more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(home), str(Path(start_worker.__file__).parents[3])]))
    return {**os.environ, **OWN, "PYTHONPATH": path, start_worker.VARIABLE: str(home / "t"), **more}


@dataclass
class Forking:
    """A template, by its process id, and its driver."""

    pid: int
    driver: subprocess.Popen[bytes]


@contextmanager
def begun(home: Path, how: str) -> Generator[Forking]:
    """Have a driver whose template begins in that way."""
    (home / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-c", DRIVER.replace("BEGIN", how), str(home / "t"), str(home / "program.py")]
    driver = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=surroundings(home, OF_THE_TEMPLATE="1")
    )
    assert driver.stdout is not None
    try:
        yield Forking(int(driver.stdout.readline()), driver)
    finally:
        driver.communicate(timeout=20)


@pytest.fixture(params=["one.start()", COPY], ids=["program", "copy"])
def forking(home: Path, request: pytest.FixtureRequest) -> Iterator[Forking]:
    with begun(home, request.param) as one:
        yield one


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
    home: Path, tmp_path_factory: pytest.TempPathFactory, forking: Forking
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
def test_a_stand_in_ends_as_its_worker_does(home: Path, forking: Forking, what: str, code: int) -> None:
    worker = start(home, what)
    assert said(worker)["parent"] == forking.pid
    assert end(worker) == code


def test_a_worker_ends_with_its_stand_in(home: Path, forking: Forking) -> None:
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


def test_a_worker_for_which_ray_would_be_imported_otherwise_is_no_copy(home: Path, forking: Forking) -> None:
    first, other, third = start(home), start(home, RAY_JOB_ID="ffffffff"), start(home)
    # Whichever comes first decides, where no driver has decided.
    found = [said(one)["parent"] == forking.pid for one in (first, other, third)]
    assert found in ([True, False, True], [False, True, False])
    assert [end(one) for one in (first, other, third)] == [0, 0, 0]


def test_a_template_in_which_something_has_started_a_thread_forks_nothing(home: Path) -> None:
    (home / "ray" / "__init__.py").write_text(
        "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    with begun(home, "one.start()") as forking:
        worker = start(home, "7")
        assert said(worker)["parent"] != forking.pid
        assert end(worker) == 7


THREAD = "threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); "
GPU = "template.GPUS = ('/dev/null',); opened = open('/dev/null'); "


@pytest.mark.parametrize("lack", [THREAD, GPU], ids=["a thread", "an open GPU"])
def test_a_driver_that_can_not_be_copied_has_a_program_as_its_template(home: Path, lack: str) -> None:
    with begun(home, lack + COPY) as forking:
        worker = start(home, "7")
        assert said(worker)["parent"] == forking.pid
        assert str(home / "program.py") in psutil.Process(forking.pid).cmdline()
        assert end(worker) == 7


def opened_by(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{one}") for one in os.listdir(f"/proc/{pid}/fd")]


def test_a_copy_has_nothing_of_its_driver_s_open(home: Path) -> None:
    """As long as it had a descriptor of the driver's, nobody would see the driver's end."""
    with begun(home, "held = os.pipe(); " + COPY) as forking:
        worker = start(home)  # when it has answered, the copy has left its driver
        said(worker)
        end(worker)
        assert os.getsid(forking.pid) == forking.pid
        assert [one for one in opened_by(forking.pid) if one.startswith(("pipe:", "/dev/null"))] == ["/dev/null"] * 3
        assert any(one.startswith("pipe:") for one in opened_by(forking.driver.pid))


KEPT_FROM_THE_TERMINAL = "import io; said = sys.stdout; sys.stdout = sys.stderr = io.StringIO(); "


def test_a_worker_writes_where_it_is_told_to_whatever_its_driver_does(home: Path) -> None:
    """The driver's own streams may stand for others, which have no descriptor: those it was started without, say."""
    with begun(home, KEPT_FROM_THE_TERMINAL + COPY + "; sys.stdout = said"):
        worker = start(home)
        assert said(worker)["arguments"] == []
        assert end(worker) == 0


def test_a_copy_hears_no_signal_as_its_driver_would(home: Path) -> None:
    with begun(home, "signal.signal(signal.SIGTERM, print); " + COPY) as forking:
        copy = psutil.Process(forking.pid)
        worker = start(home)
        said(worker)
        end(worker)
        copy.terminate()
        wait_until(lambda: copy.status() == psutil.STATUS_ZOMBIE)


def test_signals_that_were_held_are_not_held_any_more(home: Path) -> None:
    """They are while the copy is made, so that it never does what its driver would do."""
    with begun(home, COPY) as forking:
        worker = start(home)
        pids = forking.driver.pid, forking.pid, int(str(said(worker)["pid"]))
        assert end(worker) == 0
        for pid in pids[:2]:
            assert "SigBlk:\t0000000000000000" in Path(f"/proc/{pid}/status").read_text()


def test_the_end_of_a_copy_that_somebody_has_waited_for_is_no_fault(home: Path) -> None:
    with begun(home, COPY + "; os.kill(one._process.pid, 9); os.waitpid(one._process.pid, 0)") as forking:
        forking.driver.communicate(timeout=20)
        assert forking.driver.returncode == 0


def test_without_a_process_those_who_ask_are_refused_and_not_kept_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = forking_module.Template(tmp_path / "t")
    assert one.waits
    monkeypatch.setattr(template, "runs_alone", lambda: True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", no_more)
        with pytest.raises(BlockingIOError):
            one.fork()
    assert not one.waits
    with socket.socket(socket.AF_UNIX) as line, pytest.raises(ConnectionRefusedError):
        line.connect(str(tmp_path / "t"))
    one.end()


def no_more() -> int:
    raise BlockingIOError("no more processes")


def test_what_a_worker_wants_done_at_its_end_is_done(home: Path, forking: Forking) -> None:
    done = home / "done"
    worker = home / "ray" / "_private" / "workers" / "default_worker.py"
    worker.write_text(f"import atexit, pathlib\natexit.register(pathlib.Path({str(done)!r}).touch)\n{WORKER}")
    one = start(home, "3")
    said(one)
    assert end(one) == 3
    assert done.exists()


def test_a_template_can_be_told_to_get_ready(home: Path) -> None:
    with begun(home, "one.start()"), socket.socket(socket.AF_UNIX) as line:
        line.connect(str(home / "t"))
        start_worker.ask(line, [], {**OWN, "RAY_JOB_ID": "ffffffff"})
        assert line.recv(1) == b""
        worker = start(home)
        assert said(worker)["pid"] == worker.pid
        assert end(worker) == 0


def test_a_worker_that_has_lost_the_template_is_not_started_twice(home: Path, forking: Forking) -> None:
    worker = start(home, "wait")
    copy = psutil.Process(int(str(said(worker)["pid"])))
    os.kill(forking.pid, signal.SIGKILL)
    assert worker.wait(20) == 1
    copy.kill()
    end(worker)


def test_a_template_ends_with_whoever_has_started_it(home: Path, forking: Forking) -> None:
    itself = psutil.Process(forking.pid)
    forking.driver.kill()
    assert psutil.wait_procs([itself], timeout=20)[1] == []


def test_a_template_in_which_a_gpu_was_opened_forks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not template.touches_a_gpu()
    monkeypatch.setattr(template, "GPUS", ("/dev/null",))
    with Path("/dev/null").open():
        assert template.touches_a_gpu()


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
    monkeypatch.setattr(forking_module.subprocess, "Popen", lambda *_, env, **__: given.append(env) or Nothing())
    one = forking_module.Template(tmp_path / "t")
    one.start()
    one.end()
    assert os.environ[variable] == "4"  # what a worker computes with is the user's own
    assert [env[variable] for env in given] == ["1"]


class Nothing:
    def kill(self) -> None: ...

    def wait(self) -> None: ...


ALONE = """
import os
os.environ.update(OWN)
from mnistlab.tuning.ray import template
template._load((*template.FIRST, *template.THEN))
print(template.runs_alone())
"""


def test_what_workers_need_starts_no_thread() -> None:
    """Else no worker would be forked, and nothing but the time until the first epoch would tell."""
    body = ALONE.replace("OWN", repr(OWN))
    own = {**os.environ, **template.ENVIRONMENT}
    done = subprocess.run([sys.executable, "-c", body], env=own, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True"], done.stderr
