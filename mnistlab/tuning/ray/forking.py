"""The template (see `template`) as its driver sees it: a program of its own, or a copy of the driver itself.

A driver that has just imported what workers need is copied, so that nothing is imported twice. It must have one thread
and no GPU open, and Ray must have been imported with the variables in `template.READ_ONCE` set.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mnistlab.tuning.ray import template

HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
"""Signals for which a driver may have a handler."""


class Template:
    """A template that listens at `path` for those who want to become workers; they wait until it has begun."""

    def __init__(self, path: Path) -> None:
        """Listen."""
        self.path = path
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(path))
        self.listening.listen(64)
        self._process: subprocess.Popen[bytes] | _Copy | None = None

    @property
    def waits(self) -> bool:
        """Whether those who ask wait for it to begin."""
        return self.listening.fileno() >= 0

    def start(self) -> None:
        """Run it as a program, which imports everything anew.

        Raises:
            OSError: if no process can be made; those who want to become workers are refused then.
        """
        with self.listening:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with a file of ours
                [sys.executable, template.__file__, str(self.listening.fileno()), str(os.getpid()), str(self.path)],
                pass_fds=[self.listening.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **template.ENVIRONMENT},  # a copy gets the surroundings of its worker
                start_new_session=True,
            )

    def fork(self) -> None:
        """Make it a copy of this process; where that can't be, run it as a program.

        Raises:
            OSError: as `start`.
        """
        if not template.runs_alone() or template.touches_a_gpu():
            self.start()
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # else the copy would write it too
        driver, mask = os.getpid(), signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        try:
            with self.listening:
                pid = os.fork()
                if not pid:
                    _be_template(self, driver, mask)
            self._process = _Copy(pid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def end(self) -> None:
        """Kill it."""
        self.listening.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class _Copy:
    """A copy of this process, in the form of `subprocess.Popen`."""

    pid: int

    def kill(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for its end; somebody else may have done so."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _be_template(one: Template, driver: int, mask: set[signal.Signals] | set[int]) -> NoReturn:
    """Be the template, and then perhaps a worker, from here to the end: nothing of the driver is gone back to."""
    code = 1
    try:
        _leave_the_driver(one.listening.fileno())
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _name(f"mnistlab: the template of workers {one.path}")  # else `pkill -f "mnistlab search"` would mean it too
        template.live(one.listening, driver)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(BaseException):  # what Python does at the end of a process, and `os._exit` does not
        threads: Any = threading
        threads._shutdown()
        exits: Any = atexit
        exits._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    os._exit(code)


def _name(title: str) -> None:
    from ray import _raylet  # noqa: PLC0415 - it is there by now

    compiled: Any = _raylet  # has no stubs
    compiled.setproctitle(title)


def _leave_the_driver(kept: int) -> None:
    """Give up the driver's session, streams, signal handlers, and descriptors but `kept`.

    As long as a copy has its descriptors too, nobody sees the driver's end.
    """
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor != kept:  # the standard ones stay
            with contextlib.suppress(OSError):  # the folder's own
                os.close(descriptor)
    # The driver's may be others: it keeps what is written from the terminal, or was started without some.
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", closefd=False, errors="backslashreplace", buffering=1)  # noqa: SIM115
    for number in HEARD:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    warnings.simplefilter("ignore")  # as PYTHONWARNINGS says to those that start anew
