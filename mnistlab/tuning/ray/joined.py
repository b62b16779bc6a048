"""What `ray.init` is given for a private Ray: the node that `head` has started, as this process sees it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import psutil
from ray import _raylet
from ray._private import node as ray_node
from ray._private.parameter import RayParams

from mnistlab.tuning.ray.private import Head, has_ended


@contextmanager
def given(head: Head) -> Generator[None]:
    """Have `ray.init` take the Ray of `head` for one that it has started itself."""

    def node(**_: object) -> ray_node.Node:
        return _Joined(head)

    module: Any = ray_node
    before, module.Node = module.Node, node
    try:
        yield
    finally:
        module.Node = before


class _Joined(ray_node.Node):
    """The only node of a private Ray."""

    def __init__(self, head: Head) -> None:
        """Wait for it.

        Raises:
            ChildProcessError: if it does not come up.
        """
        up = head.up()
        parameters = RayParams(gcs_address=up.address)
        super().__init__(parameters, head=False, shutdown_at_exit=False, spawn_reaper=False, connect_only=True)
        self.head, self._started_by = True, head
        self.all_processes = {part: [SimpleNamespace(process=Part(pid))] for part, pid in up.parts.items()}

    def kill_all_processes(self, *_: object, **__: object) -> None:
        """End Ray, as its own process does: `ray.shutdown` asks for it."""
        self._started_by.end()


class Part:
    """A process of Ray, in the form of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        """Look at it for the first time."""
        self.pid = pid
        try:
            self._process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._process = None

    def poll(self) -> int | None:
        """Return 1 once it has ended, None before; what its own exit code was only its parent knows."""
        return 1 if self._process is None or has_ended(self._process) else None


def reread_credentials() -> None:
    """Make Ray look at the environment again: it reads mode and token once, when it is imported."""
    compiled: Any = _raylet  # has no stubs
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()
