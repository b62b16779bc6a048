"""A process of its own that starts a private Ray, says where it is, and ends it when it is told to, or with its driver.

Ray's own `ray.init` starts it while its caller waits for seconds. Here it starts beside whatever the driver does
meanwhile, and with fewer processes: nobody scales this Ray, reads its logs or asks for a dashboard. The driver is given
what has started (see `joined`).
"""

from __future__ import annotations

import json
import sys

if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv.pop())  # the driver's

import contextlib
import os
import select
import socket
from collections.abc import Callable, Mapping
from typing import Any

from ray._private import node as ray_node
from ray._private import ray_constants
from ray._private.parameter import RayParams

from mnistlab.tuning.ray import start_worker, template

# Data is loaded by each worker itself; only plans, split positions and weights pass through Ray's store.
STORE_BYTES = 512 << 20
FIRST_JOB = "01000000"  # what Ray calls the first, and here the only, driver that a cluster has
Say = Callable[[Mapping[str, object]], None]
RAYLET, GCS = ray_constants.PROCESS_TYPE_RAYLET, ray_constants.PROCESS_TYPE_GCS_SERVER


class _Head(ray_node.Node):
    """The only node of a private Ray."""

    def __init__(self, parameters: RayParams, say: Say) -> None:
        """Start it; `say` is called as soon as there is something to say."""
        self._say = say
        super().__init__(parameters, head=True, shutdown_at_exit=False, spawn_reaper=True, ray_init_cluster=True)

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:  # noqa: ARG002 - Ray's
        """Start none: it would serve the dashboard."""
        self._webui_url = ""

    def start_ray_processes(self) -> None:
        """Say who its raylet is as soon as there is one: the first worker can be prepared while the rest comes up."""
        super().start_ray_processes()
        once = dict(zip(template.READ_ONCE, (FIRST_JOB, str(self.part(RAYLET))), strict=True))
        self._say(once)
        _prepare(once)

    def part(self, name: str) -> int:
        """Return the process id of one of its processes."""
        return int(self.all_processes[name][0].process.pid)


def main(cpus: str, gpus: str, folder: str) -> None:
    """Start Ray in `folder`, say so in two lines of JSON, and end it with the driver or when it closes standard input.

    The first line has what Ray is to read from the environment where a worker imports it. The second one has the
    `address` of Ray and the process ids of its `parts`. A start that fails ends with a line that has the `error`.
    """
    driver = os.pidfd_open(os.getppid())
    say = _sayer()
    try:
        node = _Head(_parameters(int(cpus), int(gpus), folder), say)
    except Exception as error:  # Ray starts programs and opens sockets: what it raises then is of any kind
        say({"error": str(error) or type(error).__name__})
        return
    say({"address": node.gcs_address, "parts": {part: node.part(part) for part in (RAYLET, GCS)}})
    select.select([0, driver], [], [])  # a process that the driver has forked may hold standard input open
    node.kill_all_processes(check_alive=False, allow_graceful=True)


def _sayer() -> Say:
    """Return what says something to the driver: from now on, nobody else writes where it does."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(what: Mapping[str, object]) -> None:
        with contextlib.suppress(OSError):  # the driver may have gone
            out.write(json.dumps(what) + "\n")
            out.flush()

    return say


def _parameters(cpus: int, gpus: int, folder: str) -> RayParams:
    less: dict[str, Any] = {"no_monitor": True, "include_log_monitor": False, "_system_config": {}}
    return RayParams(
        num_cpus=cpus,
        num_gpus=gpus,
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
        temp_dir=f"{folder}/r",  # Ray opens its own folder to everybody; the one around it is closed
        worker_path=start_worker.__file__,
        **less,
    )


def _prepare(once: Mapping[str, str]) -> None:
    """Have a template that has not imported Ray yet do so by now: it needs to know what Ray reads once."""
    with contextlib.suppress(KeyError, OSError), socket.socket(socket.AF_UNIX) as line:  # there may be none
        line.connect(os.environ[start_worker.VARIABLE])
        start_worker.ask(line, [], once)


if __name__ == "__main__":
    main(*sys.argv[1:])
