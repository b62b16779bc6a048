"""What Ray starts as a worker: it has the template fork one (see `template`), and stands for it until that one ends.

Where there is no template, it becomes Ray's own worker. It imports next to nothing, so that this takes no time.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.path[0]  # this folder: modules in it may bear the names of others

import array
import contextlib
import importlib.util
import json
import os
import socket
from collections.abc import Mapping

VARIABLE = "MNISTLAB_TEMPLATE"  # the path of the socket at which the template listens
FORKED = b"+"  # what it answers when it has forked a worker


def worker_path() -> str:
    """Return the path of Ray's own worker, without importing Ray."""
    spec = importlib.util.find_spec("ray")
    assert spec
    return os.path.join(os.path.dirname(spec.origin or ""), "_private", "workers", "default_worker.py")


def ask(line: socket.socket, arguments: list[str], environment: Mapping[str, str]) -> None:
    """Say what the worker is to be, and hand over the standard descriptors; without arguments, prepare for workers."""
    with open("/proc/self/oom_score_adj") as file:
        oom_score = file.read()
    wish = {
        "arguments": arguments,
        "environment": dict(environment),
        "folder": os.getcwd(),
        "oom_score": oom_score,
    }
    text = json.dumps(wish).encode() + b"\n"
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2] if arguments else []))
    line.sendall(text[line.sendmsg([text], [rights] if arguments else []) :])


def _stand_for(line: socket.socket) -> int | None:
    """Return the exit code of the worker that was forked, once it has ended; None if there is none."""
    if line.recv(1) != FORKED:
        return None
    said = line.recv(16)
    return int(said) if said else 1  # the template is gone, and with it whoever could tell


def main() -> None:
    """Stand for a worker that the template forks, or become one."""
    arguments = [worker_path(), *sys.argv[1:]]
    code = None
    with contextlib.suppress(KeyError, OSError), socket.socket(socket.AF_UNIX) as line:  # there may be no template
        line.connect(os.environ[VARIABLE])
        ask(line, arguments, os.environ)
        code = _stand_for(line)
    if code is None:
        os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606
    if code < 0:  # the signal that the worker was ended by
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
