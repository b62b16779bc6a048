"""What a worker has printed that died before it could report it, found again on whichever node it ran."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mnistlab.tuning.capture import ends_of

FOLDER = "mnistlab-logs"
ANSWER_SECONDS = 10.0


def place_of(name: str) -> Path:
    """Return where a worker on this node keeps what it prints for the trial of that name: in Ray's own folder."""
    context = ray.get_runtime_context()
    return Path(context.get_temp_dir(), context.get_session_name(), FOLDER, f"{name}.log")


def taken(name: str) -> str:
    """Return what was printed, on this node or another one, and remove it; "" where there is nothing."""
    here = _take(name)
    return here or next((text for text in _elsewhere(name) if text), "")


def _take(name: str) -> str:
    path = place_of(name)
    with suppress(OSError), path.open("rb") as file:
        text = ends_of(file.fileno())
        path.unlink()
        return text
    return ""


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
