"""Whoever writes while a search runs: it lands in the log, and nothing of it on the terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mnistlab.console.redirect import guarded
from mnistlab.errors import MnistlabError

pytestmark = pytest.mark.e2e

# Each of these writes MARK in a way of its own. They run in processes of their own, as in a search.
WAYS = {
    "print": "print('MARK')",
    "standard error": "sys.stderr.write('MARK')",
    "a stream that was kept": "kept.write('MARK')",
    "the original stream": "sys.__stdout__.write('MARK')",
    "descriptor 1": "os.write(1, b'MARK')",
    "descriptor 2": "os.write(2, b'MARK')",
    "the C library's buffer": "library.printf(b'MARK')",
    "the C library's own flush": "library.puts(b'MARK'); library.fflush(None)",
    "a warning": "warnings.warn('MARK')",
    "logging": "logging.warning('MARK')",
    "a handler that was there": "old.warning('MARK')",
    "a shell": "os.system('echo MARK')",
    "a child process": "subprocess.run([sys.executable, '-c', 'print(\"MARK\")'])",
    "another thread": "t = threading.Thread(target=print, args=('MARK',)); t.start(); t.join()",
    "a traceback of a thread": "t = threading.Thread(target=lambda: {}['MARK']); t.start(); t.join()",
}

PROGRAM = """
import ctypes, logging, os, pathlib, subprocess, sys, threading, warnings
from mnistlab.console.redirect import guarded, held_back, open_what_is_closed

kept, library, old = sys.stdout, ctypes.CDLL(None), logging.getLogger("old")
if sys.stderr is not None:
    old.addHandler(logging.StreamHandler())
log = pathlib.Path(sys.argv[1])
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a process of its own; its streams are pipes, so that C and Python hold back what is written."""

    def start(text: str, redirection: str = "") -> subprocess.CompletedProcess[str]:
        (tmp_path / "program.py").write_text(PROGRAM + text)
        command = f'exec "$0" program.py driver.log {redirection}'
        return subprocess.run(
            ["sh", "-c", command, sys.executable],
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "default", "PYTHONUNBUFFERED": ""},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return start


def test_whatever_is_written_lands_in_the_log_and_none_of_it_on_the_terminal(run, tmp_path):
    body = "".join(f"    {way.replace('MARK', f'MARK {number:02}.')}\n" for number, way in enumerate(WAYS.values()))
    done = run(
        f"""
print("before")
with guarded(log) as streams:
{body}
    print("progress", file=streams.err)
    print("result", file=streams.out)
print("after")
print("the end", file=sys.stderr)
library.puts(b"from C")
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "before\nresult\nafter\nfrom C\n", "progress\nthe end\n")
    log = (tmp_path / "driver.log").read_text()
    assert [name for number, name in enumerate(WAYS) if f"MARK {number:02}." not in log] == []


@pytest.mark.parametrize("error", ["RuntimeError('x')", "KeyboardInterrupt", "SystemExit(5)"])
def test_streams_come_back_whatever_ends_the_guard(run, error):
    done = run(
        f"""
try:
    with guarded(log):
        print("inside")
        raise {error}
except BaseException as caught:
    print("back", type(caught).__name__)
    os.write(1, b"descriptor 1\\n")
    os.write(2, b"descriptor 2\\n")
sys.stdout.flush()
"""
    )
    assert sorted(done.stdout.splitlines()) == [f"back {error.partition('(')[0]}", "descriptor 1"]
    assert done.stderr == "descriptor 2\n"


def test_a_log_in_which_nothing_was_written_is_not_kept(run, tmp_path):
    assert run("with guarded(log) as streams: print('shown', file=streams.out)").stdout == "shown\n"
    assert not (tmp_path / "driver.log").exists()


def test_guards_one_after_the_other_add_to_the_log_and_leave_no_descriptor_open(run, tmp_path):
    done = run(
        """
before = len(os.listdir("/proc/self/fd"))
for number in range(20):
    with guarded(log):
        print(number)
print(len(os.listdir("/proc/self/fd")) - before)
"""
    )
    assert done.stdout == "0\n"
    assert (tmp_path / "driver.log").read_text().split() == [str(number) for number in range(20)]


@pytest.mark.parametrize(
    "closed", ["1>&-", "2>&-", pytest.param("1>&- 2>&-", marks=pytest.mark.chaos), "0<&- 1>&- 2>&-"]
)
def test_a_stream_that_is_closed_from_the_start_takes_no_file_of_ours(run, tmp_path, closed):
    done = run(
        """
open_what_is_closed()
ours = os.open("ours", os.O_CREAT | os.O_WRONLY)
with guarded(log) as streams:
    print("inside")
    os.system("echo from a shell")
    print("result", file=streams.out)
    print("progress", file=streams.err)
os.write(1, b"descriptor 1")
os.write(2, b"descriptor 2")
print("after", ours > 2)
""",
        closed,
    )
    assert done.returncode == 0
    assert (tmp_path / "ours").read_bytes() == b""
    assert (tmp_path / "driver.log").read_text() == "inside\nfrom a shell\n"
    assert ("result" in done.stdout) == ("1>&-" not in closed)
    assert ("progress" in done.stderr) == ("2>&-" not in closed)


def test_closed_streams_do_not_break_a_guard_that_nobody_prepared_for_them(run, tmp_path):
    done = run("with guarded(log) as streams: print('inside'); print('x', file=streams.err)", "1>&- 2>&-")
    assert done.returncode == 0
    assert (tmp_path / "driver.log").read_text() == "inside\n"


def test_a_reader_that_goes_away_meanwhile_breaks_nothing(run):
    done = run(
        """
with guarded(log) as streams:
    reading, writing = os.pipe()
    os.dup2(writing, streams.out.fileno())
    os.close(reading); os.close(writing)
    try:
        print("result", file=streams.out, flush=True)
    except BrokenPipeError:
        print("gone", file=streams.err)
"""
    )
    assert (done.returncode, done.stderr) == (0, "gone\n")


def test_streams_in_memory_are_left_to_whoever_made_them(tmp_path, monkeypatch):
    mine = io.StringIO()
    monkeypatch.setattr(sys, "stdout", mine)
    with guarded(tmp_path / "driver.log") as streams:
        print("inside")
        assert streams.out is mine
    assert sys.stdout is mine
    assert mine.getvalue() == ""
    assert (tmp_path / "driver.log").read_text() == "inside\n"


@pytest.mark.parametrize("memory", ["", "sys.stderr = io.StringIO()"])
def test_a_logger_that_was_set_up_inside_speaks_outside_and_inside_the_next_guard(run, tmp_path, memory):
    done = run(
        f"""
import io
real = sys.stderr
{memory}
with held_back() as said:
    logging.basicConfig(format="%(message)s")
    logging.warning("first")
logging.warning("second")
with guarded(log):
    logging.warning("third")
logging.warning("fourth")
real.write(getattr(sys.stderr, "getvalue", str)())
assert said() == b"first\\n"
"""
    )
    assert (done.returncode, done.stderr) == (0, "second\nfourth\n")
    assert (tmp_path / "driver.log").read_text() == "third\n"


@pytest.mark.parametrize("place", ["no/such/folder/driver.log", "link"])
def test_a_log_that_cannot_be_written_is_refused_and_the_streams_stay(tmp_path, place):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    before = sys.stdout
    with pytest.raises(MnistlabError, match=f"can't write .*{place}"), guarded(tmp_path / place):
        pass
    assert sys.stdout is before
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_held_back_is_handed_over_afterwards(run):
    done = run(
        """
with held_back() as said:
    print("printed")
    os.system("echo from a shell")
    library.printf(b"from C")
print(said().decode())
"""
    )
    assert done.stdout == "printed\nfrom a shell\nfrom C\n"
    assert done.stderr == ""


def test_what_is_held_back_is_shown_after_all_where_something_breaks(run):
    done = run(
        """
try:
    with held_back():
        print("why it breaks\\x1b[2J")
        raise SystemExit(5)
except SystemExit:
    print("broken")
"""
    )
    assert done.stdout == "broken\n"
    assert done.stderr == "why it breaks\\x1b[2J\n"


def test_the_c_library_here_is_one_that_holds_back(run):
    """Without that, the tests above would not prove that it is flushed."""
    done = run("library.printf(b'C'); os.write(1, b'first ')")
    assert done.stdout == "first C"
