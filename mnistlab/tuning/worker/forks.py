"""What a plugin forks must not keep Ray's connections: as long as one is open, Ray takes the worker for alive."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from functools import cache


@cache  # a process that does one task after another says so once
def keep_from_children() -> None:
    """Have each process that is forked from this one let go of the sockets that lead to Ray.

    That is every TCP socket, and every Unix socket with a name. What `multiprocessing` itself hands down, pipes and
    pairs of sockets without a name, stays. Processes that are started as another program inherit nothing anyway.
    """
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # it was the folder's own
            descriptor = int(name)
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode) and _leads_away(descriptor):
                os.close(descriptor)


def _leads_away(descriptor: int) -> bool:
    """Return whether a socket leads to a process that did not come of this one."""
    with socket.socket(fileno=os.dup(descriptor)) as one:
        if one.family != socket.AF_UNIX or one.getsockname():
            return True
        with suppress(OSError):  # it is connected to nobody
            return bool(one.getpeername())
        return False
