"""A private Ray of this process: its folder, its surroundings, its processes, and the template of its workers.

A command begins it before it imports and checks what it needs a Ray for: all of that takes seconds, and so does Ray's
start, on another core (see docs/decisions/0037). Nothing heavy is imported here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from mnistlab.errors import ResourceError
from mnistlab.tuning.ray import start_worker, template
from mnistlab.tuning.ray.forking import Template
from mnistlab.tuning.ray.surroundings import closed_to_others, environment
from mnistlab.tuning.ray.tempdir import in_use, private_folder
from mnistlab.util.signals import ENDS

ANSWER_SECONDS = 5.0  # for processes that were killed
END_SECONDS = 10.0  # that a Ray which is up may take to end in good order
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of NVIDIA, of AMD, of Windows for its Linux
HEAD = Path(__file__).with_name("head.py")  # which imports Ray: it is run, not imported


@dataclass(frozen=True)
class Up:
    """A private Ray that is up: its address, and the process ids of what all depends on."""

    address: str
    parts: Mapping[str, int]


class Head:
    """The process that starts a private Ray, and ends it with this one."""

    def __init__(self, cpus: int, gpus: int, folder: Path) -> None:
        """Begin to start one."""
        self.size = cpus, gpus
        self._lines: list[dict[str, Any]] = []  # that it has written
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with a file of ours
            [sys.executable, str(HEAD), str(cpus), str(gpus), str(folder), json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def once(self) -> Mapping[str, str]:
        """Return what Ray is to find in the environment where a worker imports it: that is known before Ray is up.

        Raises:
            ChildProcessError: if it does not come up.
        """
        return self._said(0)

    def up(self) -> Up:
        """Return where it is, once it is up.

        Raises:
            ChildProcessError: if it does not come up.
        """
        return Up(**self._said(1))

    def _said(self, number: int) -> dict[str, Any]:
        assert self._process.stdout is not None
        while len(self._lines) <= number and not any("error" in line for line in self._lines):
            line = self._process.stdout.readline()
            self._lines.append(json.loads(line) if line else {"error": "the process that starts it has ended"})
        if "error" in self._lines[-1]:
            raise ChildProcessError(self._lines[-1]["error"])
        return self._lines[number]

    def end(self) -> None:
        """Have Ray end in good order."""
        assert self._process.stdin is not None
        with suppress(OSError, subprocess.TimeoutExpired):
            self._process.stdin.close()
            self._process.wait(END_SECONDS)

    def kill(self) -> None:
        """Kill it: Linux ends what it has started with it.

        A signal may ask for this while `up` is reading, so that nothing is done to the pipe that it reads from.
        """
        self._process.kill()
        self._process.wait()


class Private:
    """A private Ray, or the place for one."""

    def __init__(self, folder: Path) -> None:
        """Keep everything in `folder`."""
        self.folder = folder
        self.head: Head | None = None  # once it has been started
        self.template = Template(folder / "template")
        self.importing = ExitStack()  # what holds until its driver has imported what workers need
        self._ended = False

    def start(self, cpus: int, gpus: int) -> Head:
        """Start its processes, or return those that were started: the caller need not wait for them."""
        if self.head is None:
            self.head = Head(cpus, gpus, self.folder)
        return self.head

    def have_template(self) -> None:
        """Start a template unless there is one; without one, workers start as Ray starts them."""
        if self.template.waits:
            with suppress(OSError):
                self.template.start()

    def suits(self, cpus: int, gpus: int) -> bool:
        """Return whether this is, or can be, a Ray of that size."""
        return self.head is None or self.head.size == (cpus, gpus)

    def end(self) -> None:
        """Kill what there is of it, once: until it ends, it may still write into the folder.

        Where Ray is lost nobody waits for it: it ends this process within seconds, without a word.
        """
        if self._ended:
            return
        self._ended = True
        kill_what_is_left(self.folder)
        if self.head is not None:
            self.head.kill()
        self.template.end()


def kill_what_is_left(folder: Path) -> None:
    """Kill the processes of this one that have to do with `folder`."""
    ours = {process.pid for process in psutil.Process().children(recursive=True)}
    left = [process for process in in_use(folder) if process.pid in ours]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + ANSWER_SECONDS
    while not all(map(has_ended, left)) and time.monotonic() < deadline:
        time.sleep(0.01)


def has_ended(process: psutil.Process) -> bool:
    """Return whether a process has ended, also where its parent has not waited for it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


_begun: list[Private] = []  # what a command has begun, until a search takes it up


def is_early() -> bool:
    """Return whether the imports are still to come, beside which Ray can start."""
    return "torch" not in sys.modules


@contextmanager
def begun(executor: str, address: str | None) -> Generator[None]:
    """Start a private Ray in the background, where a search with these options will need one; end it if none did.

    What goes wrong is not said here: it is when Ray is needed. What is imported from here on starts no threads, so that
    workers can be forked from this process (`import_for_workers`).
    """
    with ExitStack() as until_then:
        if executor == "ray" and address is None and is_early():
            with suppress(ResourceError, OSError):
                one = until_then.enter_context(private())
                until_then.enter_context(_left_whole(one))
                _begun.append(one)
                until_then.callback(_begun.clear)
                gpus = any(map(os.path.exists, GPU_DEVICES))  # how many there are torch knows, once it is imported
                if not gpus:
                    one.start(_cpus(), 0)
                if gpus or "ray" in sys.modules:
                    one.have_template()
                else:
                    until_then.callback(one.importing.close)
                    one.importing.enter_context(environment(template.ENVIRONMENT))
        yield


def _cpus() -> int:
    with environment(template.ENVIRONMENT):
        import joblib  # noqa: PLC0415 - and with it numpy, which would start threads

    return joblib.cpu_count()


def import_for_workers() -> None:
    """Import what both this process and the workers of what was begun need, and have those forked from here.

    Ray reads something only once, when it is imported: so the private one must have got as far as to know it.
    """
    one = _begun[-1] if _begun else None
    if one is None or one.head is None or not one.template.waits:
        return
    with one.importing:
        _import(template.COMMON)
        if "ray" in sys.modules:
            one.have_template()
            return
        with suppress(OSError), environment(one.head.once()):  # what is wrong is told when Ray is needed
            _import(template.THEN)
            one.template.fork()


def _import(names: Sequence[str]) -> None:
    for name in names:
        import_module(name)


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
        one.have_template()
        yield one
        return
    if one is not None:
        one.end()
    with private() as new:
        new.have_template()
        yield new


@contextmanager
def private() -> Generator[Private]:
    """Yield the place for a private Ray, with a template for its workers; at the end nothing of it is left.

    Raises:
        ResourceError: if there is no folder for one.
    """
    with private_folder() as folder, closed_to_others(None, folder):
        one = Private(folder)
        try:
            with environment({start_worker.VARIABLE: str(one.template.path)}):
                yield one
        finally:
            one.end()
