"""What a worker has printed that died before it could report it, found again on whichever node it ran."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil
import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mnistlab.tuning.worker.output import ends_of

FOLDER = "mnistlab-logs"
ANSWER_SECONDS = 10.0
DYING_SECONDS = 0.5


def place_of(name: str) -> Path:
    """Return where this process keeps what it prints for the trial or task of that name: in Ray's folder on this node.

    With the process in it: where paused trials change their workers, two have a file for the same trial for a while.
    And with the driver: in a cluster that was joined, another run has tasks of the same names.
    """
    return _folder() / f"{_own(name)}.{os.getpid()}.log"


def _folder() -> Path:
    context = ray.get_runtime_context()
    return Path(context.get_temp_dir(), context.get_session_name(), FOLDER)


def _own(name: str) -> str:
    return f"{ray.get_runtime_context().get_job_id()}-{name}"


def taken(name: str) -> str:
    """Return what was printed, on this node or another one, and remove it; "" where there is nothing."""
    here = _take(name)
    return here or next((text for text in _elsewhere(name) if text), "")


def _take(name: str) -> str:
    found: list[str] = []
    for path in sorted(_folder().glob(f"{_own(name)}.*.log")):
        with suppress(OSError), path.open("rb") as file:
            if _is_over(int(path.suffixes[-2][1:])):  # else it is a living worker's
                found.append(ends_of(file.fileno()))
                path.unlink()
    return "".join(found)


def _is_over(number: int) -> bool:
    """Return whether a process has ended, or does so now: Ray knows of it before the kernel is done with it."""
    try:
        psutil.Process(number).wait(DYING_SECONDS)
    except psutil.TimeoutExpired:
        return False
    except psutil.Error:
        return True
    return True


def _elsewhere(name: str) -> list[str]:
    here = ray.get_runtime_context().get_node_id()
    others = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    take = ray.remote(_take)
    asked = [
        take.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(name)
        for node in others
    ]
    found: list[str] = []
    for answer in ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS)[0] if asked else []:
        with suppress(RayError, GetTimeoutError):  # a node may be gone, as the worker is
            found.append(ray.get(answer, timeout=ANSWER_SECONDS))
    return found
