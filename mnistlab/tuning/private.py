"""A private Ray of this process: its folder, its surroundings, its processes, and the template of its workers.

A command begins it before it imports and checks what it needs a Ray for: all of that takes seconds, and so does Ray's
start, on another core (see docs/decisions/0037). Nothing heavy is imported here.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import psutil

from mnistlab.errors import ResourceError
from mnistlab.signals import ENDS
from mnistlab.tuning import start_worker, template
from mnistlab.tuning.folders import in_use, private_folder
from mnistlab.tuning.surroundings import closed_to_others, environment

if TYPE_CHECKING:
    from mnistlab.tuning.head import Starting

ANSWER_SECONDS = 5.0  # for processes that were killed
TRIES = 5  # to end what is starting, in a second
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, of AMD, of Windows for its Linux
FIRST_JOB = "01000000"  # what Ray calls the first, and here the only, driver that a cluster has


class Private:
    """A private Ray, or the place for one."""

    def __init__(self, folder: Path) -> None:
        """Keep everything in `folder`."""
        self.folder = folder
        self._starting: Starting | None = None
        self._ended = False

    def start(self, cpus: int, gpus: int) -> Starting:
        """Start its processes, or return those that were started: the caller need not wait for them."""
        from mnistlab.tuning.head import Starting  # noqa: PLC0415 - Ray comes with it, half a second

        if self._starting is None:
            self._starting = Starting(cpus, gpus, self.folder, self._prepare)
        return self._starting

    def suits(self, cpus: int, gpus: int) -> bool:
        """Return whether this is, or can be, a Ray of that size."""
        return self._starting is None or self._starting.size == (cpus, gpus)

    def _prepare(self, raylet: int) -> None:
        """Have the template import Ray by now: it needs to know what Ray reads from the environment then."""
        told = dict(zip(template.READ_ONCE, (FIRST_JOB, str(raylet)), strict=True))
        with suppress(OSError), socket.socket(socket.AF_UNIX) as line:  # there may be no template
            line.connect(os.environ[start_worker.VARIABLE])
            start_worker.ask(line, [], told)

    def end(self) -> None:
        """Kill what there is of it, once: until it ends, it may still write into the folder."""
        if self._ended:
            return
        self._ended = True
        for _ in range(TRIES):  # what is just starting may start more; what starts after them ends with this process
            kill_what_is_left(self.folder)
            if self._starting is None or self._starting.over(1 / TRIES):
                break
        kill_what_is_left(self.folder)


def kill_what_is_left(folder: Path) -> None:
    """Kill the processes of this one that have to do with `folder`."""
    ours = {process.pid for process in psutil.Process().children(recursive=True)}
    left = [process for process in in_use(folder) if process.pid in ours]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=ANSWER_SECONDS)


_begun: list[Private] = []  # what a command has begun, until a search takes it up


def is_early() -> bool:
    """Return whether the imports are still to come, beside which Ray can start.

    A process that has them lives on, as one of tests does: there, what was begun and killed would go on connecting.
    """
    return "torch" not in sys.modules


@contextmanager
def begun(executor: str, address: str | None) -> Generator[None]:
    """Start a private Ray in the background, where a search with these options will need one; end it if none did.

    What goes wrong is not said here: it is when Ray is needed.
    """
    with ExitStack() as until_then:
        if executor == "ray" and address is None and is_early():
            with suppress(ResourceError, OSError):
                one = until_then.enter_context(private())
                until_then.enter_context(_left_whole(one))
                _begun.append(one)
                until_then.callback(_begun.clear)
                if not any(map(os.path.exists, GPU_DEVICES)):  # how many there are torch knows, once it is imported
                    one.start(joblib.cpu_count(), 0)
        yield


@contextmanager
def _left_whole(one: Private) -> Generator[None]:
    """Have a signal that ends this process at once end what was begun first; a run hears them in its own way later."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: object) -> None:
        one.end()
        shutil.rmtree(one.folder, ignore_errors=True)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    ends = [number for number in ENDS if signal.getsignal(number) == signal.SIG_DFL]
    for number in ends:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ends:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def begun_or_new(cpus: int, gpus: int) -> Generator[Private]:
    """Yield the private Ray that was begun, or a new one, of that size."""
    one = _begun.pop() if _begun else None
    if one is not None and one.suits(cpus, gpus):
        yield one
        return
    if one is not None:
        one.end()
    with private() as new:
        yield new


@contextmanager
def private() -> Generator[Private]:
    """Yield the place for a private Ray, with a template for its workers; at the end nothing of it is left.

    Raises:
        ResourceError: if there is no folder for one.
    """
    with private_folder() as folder, closed_to_others(None, folder), _template(folder):
        one = Private(folder)
        try:
            yield one
        finally:
            one.end()


@contextmanager
def _template(folder: Path) -> Generator[None]:
    """Have a process that workers are forked from; it ends with this one, however that dies."""
    path = folder / "template"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(64)
        process = subprocess.Popen(  # noqa: S603 - this interpreter, with a file of ours
            [sys.executable, template.__file__, str(listening.fileno()), str(path)],
            pass_fds=[listening.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **template.ENVIRONMENT},  # a copy gets the surroundings of its worker
            start_new_session=True,
        )
    try:
        with environment({start_worker.VARIABLE: str(path)}):
            yield
    finally:
        process.kill()
        process.communicate()
