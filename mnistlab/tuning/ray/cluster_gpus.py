"""What the nodes of a joined cluster have. Ray counts their GPUs; how much memory those have, each node says itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mnistlab.tuning.resources import Gpu, Machine, gpus_here

ANSWER_SECONDS = 30.0  # a node loads torch before it can answer


def reached() -> Machine:
    """Return what the nodes of the joined cluster have together, and each by itself.

    The memory of a GPU counts as a whole: what other jobs use of it, Ray shares out. Where a node does not say how much
    there is, its name is among the silent ones and no GPU is divided: Ray may put any trial on any node.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = tuple((int(_has(node, "CPU")), _has(node, "GPU")) for node in alive)
    with_gpus = [node for node in alive if _has(node, "GPU") >= 1]
    answers = _asked([node["NodeID"] for node in with_gpus])
    # Ray may have been given fewer than there are: it hands out the first ones.
    gpus = {node["NodeID"]: answers.get(node["NodeID"], [])[: int(_has(node, "GPU"))] for node in with_gpus}
    silent = tuple(sorted(_name(node) for node in with_gpus if not gpus[node["NodeID"]]))
    known = [gpu for of_one in gpus.values() for gpu in of_one]
    return Machine(
        cpus=sum(cpus for cpus, _ in nodes),
        gpus=sum(count for _, count in nodes),
        gpu_names=tuple(gpu.name for gpu in known),
        gpu_gib=0.0 if silent else min((gpu.gib for gpu in known), default=0.0),
        nodes=nodes,
        silent=silent,
    )


def _has(node: Mapping[str, Any], resource: str) -> float:
    return float(node["Resources"].get(resource, 0.0))


def _name(node: Mapping[str, Any]) -> str:
    return str(node.get("NodeManagerHostname") or node.get("NodeManagerAddress") or node["NodeID"])


def _asked(ids: Sequence[str]) -> dict[str, list[Gpu]]:
    """Return the GPUs of the nodes that answer in time, by node. Asking takes nothing of what Ray shares out."""
    if not ids:
        return {}
    # A process that has looked at GPUs knows them as they were: Ray must not use it for a trial.
    ask = ray.remote(max_calls=1, max_retries=0, num_cpus=0)(gpus_here)
    asked = {
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(one, soft=False)).remote(): one for one in ids
    }
    answers: dict[str, list[Gpu]] = {}
    in_time, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    for answer in in_time:
        with suppress(RayError):  # no torch there, another version, a driver that fails, a node that left
            answers[asked[answer]] = ray.get(answer)
    for answer in late:
        ray.cancel(answer, force=True)
    return answers
