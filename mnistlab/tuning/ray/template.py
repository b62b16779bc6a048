"""The process that workers of a private Ray are forked from, so that only one process imports what all of them need.

A new worker imports torch and Ray Tune, which takes a processor five seconds, for each worker anew. Here one process
does so while Ray is starting. Ray's raylet starts `start_worker` as each of its workers; that one sends its arguments,
environment and descriptors here, and a copy of this process becomes the worker. The two end together, and with the
exit code of the copy, so that the raylet finds nothing changed.

This process runs one thread, or else forks nothing; it opens no connection to Ray and touches no GPU: none of these
could be handed to a copy. It ends with its driver.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.path[0]  # this folder: modules in it may bear the names of others

import array
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnistlab.tuning.ray.start_worker import FORKED

COMMON = (  # what a driver needs as well
    "torch",
    "pandas",  # which Ray Tune imports
    "mnistlab.training.loop",
    "mnistlab.builtin.datasets",
    "mnistlab.builtin.models",
    "mnistlab.builtin.optimizers",
    "mnistlab.builtin.transforms",
)
FIRST = (
    *COMMON,
    "torch._dynamo",  # which torch's optimizers import at their first use
    "torch.utils.flop_counter",  # by which trials count what a prediction takes
)
THEN = ("ray._private.workers.default_worker", "ray.tune", "mnistlab.tuning.ray.trainable")
READ_ONCE: tuple[str, ...] = (
    "RAY_JOB_ID",
    "RAY_RAYLET_PID",
)  # variables of which Ray, once it is imported, has no second look
GPUS = ("/dev/nvidia", "/dev/kfd", "/dev/dri")
ENVIRONMENT: Mapping[str, str] = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""What it starts with, whatever its surroundings say: else OpenBLAS has threads by the time of a fork."""
ASK_SECONDS = 10.0  # that a process may take to say what it wants


@dataclass(frozen=True)
class Wish:
    """What a worker is to be: its arguments, its environment, its folder, and its place among the victims of a lack."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    oom_score: str
    descriptors: tuple[int, ...]  # standard input, output and error


def main() -> None:
    """Be the template of the process that is named, at the socket that is named."""
    live(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))


def live(listening: socket.socket, driver: int) -> None:
    """Import what workers need, then fork them as long as the process `driver` lives."""
    with listening:
        _load(FIRST)
        if "ray" in sys.modules:  # this is a copy of a driver, which has told Ray what it reads once
            _load(THEN)
        if touches_a_gpu():  # no copy could use one: each worker is then started as Ray starts it
            return
        wish = _serve(listening, driver)
    _become(wish)


def _serve(listening: socket.socket, driver: int) -> Wish:
    """Fork a worker for each that asks. Returns in the copy only, with what it is to be."""
    gone = _watched(driver)
    with selectors.DefaultSelector() as events:
        events.register(gone, selectors.EVENT_READ)
        events.register(listening, selectors.EVENT_READ)
        while True:
            for key, _ in events.select():
                if key.fd == gone:
                    os._exit(0)
                if key.fileobj is not listening:
                    _end(events, key)
                elif wish := _fork(events, listening):
                    os.close(gone)
                    return wish


def _watched(driver: int) -> int:
    """Return what can be read once that process has ended."""
    try:
        return os.pidfd_open(driver)
    except ProcessLookupError:
        os._exit(0)


def _fork(events: selectors.BaseSelector, listening: socket.socket) -> Wish | None:
    """Fork the worker that the next in the line asks for; return in the copy what it is to be."""
    line, _ = listening.accept()
    try:
        wish = _hear(line)
    except (OSError, ValueError):  # it has gone, and nobody misses it
        line.close()
        return None
    pid = os.fork() if _suits(wish.environment) and wish.arguments and runs_alone() else None
    if pid == 0:
        line.close()
        for pair in {key.data for key in events.get_map().values() if key.data}:
            pair.close()
        return wish
    for descriptor in wish.descriptors:
        os.close(descriptor)
    if pid is None:  # whoever has asked becomes a worker without us
        line.close()
    else:
        _watch(events, _Pair(line, pid, os.pidfd_open(pid)))
    return None


def _watch(events: selectors.BaseSelector, pair: _Pair) -> None:
    with contextlib.suppress(OSError):  # it may have gone by now; its worker follows
        pair.line.sendall(FORKED)
    events.register(pair.line, selectors.EVENT_READ, pair)
    events.register(pair.end, selectors.EVENT_READ, pair)


def _suits(environment: Mapping[str, str]) -> bool:
    """Return whether Ray, as it is imported here, suits a worker. It is imported for the first that asks."""
    own = {name: environment.get(name, "") for name in READ_ONCE}
    if "ray" not in sys.modules:
        os.environ.update(own)
        _load(THEN)
    return all(os.environ[name] == value for name, value in own.items())


def runs_alone() -> bool:
    """Return whether this is the only thread: a copy has no other, and what that one holds stays locked for ever.

    The thread of an allocator does not count that makes itself a new one in a copy.
    """
    threads = [Path(f"/proc/self/task/{one}/comm").read_text().strip() for one in os.listdir("/proc/self/task")]
    return len([name for name in threads if name != "jemalloc_bg_thd"]) == 1


def touches_a_gpu() -> bool:
    """Return whether something that was imported has opened a GPU."""
    opened: list[str] = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # it was the folder's own
            opened.append(os.readlink(f"/proc/self/fd/{name}"))
    return any(path.startswith(GPUS) for path in opened)


def _load(names: Sequence[str]) -> None:
    for name in names:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what is there now is never garbage: a worker that looks for some has less to look at


@dataclass(frozen=True)
class _Pair:
    """A worker and the process that stands for it: the line to that one, and what tells the worker's end."""

    line: socket.socket
    pid: int
    end: int

    def close(self) -> None:
        """Close what this process has of them."""
        self.line.close()
        os.close(self.end)


def _end(events: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """End the other of a pair of which one has ended."""
    pair: _Pair = key.data
    if pair.line.fileno() < 0:  # closed: this end was told at the same time as the other one's
        return
    events.unregister(pair.line)
    events.unregister(pair.end)
    if key.fileobj is pair.line:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pair.pid, signal.SIGKILL)
    _, status = os.waitpid(pair.pid, 0)
    with contextlib.suppress(OSError):
        pair.line.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    pair.close()


def _hear(line: socket.socket) -> Wish:
    """Return what is asked for at the other end of a line.

    Raises:
        OSError, ValueError: if nothing whole arrives.
    """
    line.settimeout(ASK_SECONDS)
    given = array.array("i")
    data, ancillary, _, _ = line.recvmsg(1 << 16, socket.CMSG_SPACE(3 * given.itemsize))
    for level, kind, part in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            given.frombytes(part[: len(part) - len(part) % given.itemsize])
    while not data.endswith(b"\n"):
        more = line.recv(1 << 16)
        if not more:
            raise ValueError("it has hung up")
        data += more
    line.settimeout(None)
    said: dict[str, Any] = json.loads(data)
    return Wish(**said, descriptors=tuple(given))


def _become(wish: Wish) -> None:
    """Be the worker that was asked for, to its end."""
    os.setpgid(0, 0)  # Ray ends what a worker has started by the worker's process group
    for number, descriptor in enumerate(wish.descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(wish.environment)
    os.chdir(wish.folder)
    Path("/proc/self/oom_score_adj").write_text(wish.oom_score)
    sys.argv = wish.arguments
    runpy.run_path(wish.arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
