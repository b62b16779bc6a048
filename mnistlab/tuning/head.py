"""The processes of a private Ray, started in a thread of their own.

Ray's own `ray.init` starts them while its caller waits for seconds, most of which are Python processes that import.
Here they start beside whatever the caller does meanwhile, and fewer of them: nobody scales this Ray, reads its logs or
asks for a dashboard. `ray.init` is then given what has started.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import _raylet
from ray._private import node as ray_node
from ray._private import ray_constants
from ray._private.parameter import RayParams

from mnistlab.tuning import start_worker

# Data is loaded by each worker itself; only plans, split positions and weights pass through Ray's store.
STORE_BYTES = 512 << 20


class _Head(ray_node.Node):
    """The only node of a private Ray."""

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:  # noqa: ARG002 - Ray's
        """Start none: it would serve the dashboard."""
        self._webui_url = ""


def settings(cpus: int, gpus: int, folder: Path) -> dict[str, Any]:
    """Return with what a private Ray is started, as `ray.init` calls it."""
    return {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES,
        "_temp_dir": str(folder / "r"),  # Ray opens its own folder to everybody; the one around it is closed
    }


def _started(cpus: int, gpus: int, folder: Path) -> ray_node.Node:
    given = settings(cpus, gpus, folder)
    less: dict[str, Any] = {"no_monitor": True, "include_log_monitor": False, "_system_config": {}}
    parameters = RayParams(temp_dir=given.pop("_temp_dir"), worker_path=start_worker.__file__, **given, **less)
    return _Head(parameters, head=True, shutdown_at_exit=False, spawn_reaper=True, ray_init_cluster=True)


class Starting:
    """A private Ray that is starting, or up: `node` is its only node, or the error that its start ended with."""

    def __init__(self, cpus: int, gpus: int, folder: Path, then: Callable[[int], None]) -> None:
        """Begin; once it is up, `then` is given the process id of its raylet."""
        self.size, self.node = (cpus, gpus), Future[ray_node.Node]()
        self._over = threading.Event()
        reread_credentials()
        self._thread = threading.Thread(target=self._run, args=(folder, then), name="mnistlab-ray", daemon=True)
        self._thread.start()

    def _run(self, folder: Path, then: Callable[[int], None]) -> None:
        try:
            with _loopback():
                node: Any = _started(*self.size, folder)
            then(node.all_processes[ray_constants.PROCESS_TYPE_RAYLET][0].process.pid)
            self.node.set_result(node)
        except BaseException as error:
            self.node.set_exception(error)
        self._over.wait()  # Linux ends Ray's processes when the thread ends that has started them

    def over(self, seconds: float) -> bool:
        """Let the thread end; return whether it has done so in time."""
        self._over.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()


@contextmanager
def given(starting: Starting) -> Generator[None]:
    """Have `ray.init` take what is starting for its own."""

    def node(**_: object) -> ray_node.Node:
        return starting.node.result()

    module: Any = ray_node
    before, module.Node = module.Node, node
    try:
        with _loopback():
            yield
    finally:
        module.Node = before


_loopbacks = 0  # users of the switch at this moment: the thread that starts a Ray, and who is given it
_usual = True  # what it is without them
_switching = threading.Lock()


@contextmanager
def _loopback() -> Generator[None]:
    """Make a Ray that starts now one of a single machine: its node is 127.0.0.1, and it listens there alone.

    Left to itself it listens on every address of the machine, and `_node_ip_address="127.0.0.1"` is turned into an
    address that others reach (`resolve_ip_for_localhost`). This is Ray's own switch for Windows and macOS (ray#18730):
    read once from the environment when Ray is imported, so it is set where this process reads it; the processes that
    Ray starts get it by their environment.
    """
    _switch(1)
    try:
        yield
    finally:
        _switch(-1)


def _switch(users: int) -> None:
    """Turn Ray's switch with its first user, and back with its last one."""
    global _loopbacks, _usual  # noqa: PLW0603 - Ray's switch is one of the process
    constants: Any = ray_constants
    with _switching:
        if not _loopbacks:
            _usual = getattr(constants, "ENABLE_RAY_CLUSTER", True)
        _loopbacks += users
        constants.ENABLE_RAY_CLUSTER = _usual and not _loopbacks


def reread_credentials() -> None:
    """Make Ray look at the environment again: it reads mode and token once, when it is imported."""
    compiled: Any = _raylet  # has no stubs
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()
