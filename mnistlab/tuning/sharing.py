"""Whether all nodes of a cluster share the run folder, which population-based training needs.

Ray Tune hands a trial's state to another worker as a folder: the worker that saves it writes it there, the one that
takes it over reads it there, and each may be on any node.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mnistlab.errors import ResourceError
from mnistlab.store.layout import RAY

ANSWER_SECONDS = 120.0  # a node may have to start a worker first, which imports torch
_FOLDER = "shared"  # in the run's `ray` folder

Ask = Callable[[Path, str, Mapping[str, str]], Mapping[str, str]]
"""(the folder, the word in it, nodes' names by their ids) -> for each id what is wrong there, or ""."""


def require_shared(run: Path, scheduler: str, nodes: Mapping[str, str] | None = None, ask: Ask | None = None) -> None:
    """Have each other node read a file that this process has written into the run folder, and write one.

    `nodes` and `ask` are by default those of the Ray that is running.

    Raises:
        ResourceError: naming every node that does not share the folder.
    """
    nodes = _others() if nodes is None else nodes
    if not nodes:
        return
    folder, word = (run / RAY / _FOLDER).resolve(), secrets.token_hex(8)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / "driver").write_text(word)
        answers = (ask or _ask_all)(folder, word, nodes)
        wrong = {node: answers[node] or _reply_fault(folder / node, word) for node in nodes}
    finally:
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()
    if faults := [f"  node {nodes[node]}: {text}" for node, text in sorted(wrong.items()) if text]:
        rule = (
            f'scheduler = "{scheduler}" copies trials between nodes through the run folder, which must be shared: {run}'
        )
        hint = "Put the runs on a disk that all nodes mount (--runs), or choose another scheduler, for example asha."
        raise ResourceError("\n".join([rule, *faults, hint]))


def look(folder: Path, word: str, node: str) -> str:
    """Return what is wrong with the driver's file in the folder, seen from `node`; leave a reply where nothing is."""
    try:
        if (folder / "driver").read_text() != word:
            return "it has another folder of that name"
        (folder / node).write_text(word)
    except FileNotFoundError:
        return "it does not have that folder"
    except OSError as error:
        return f"it can't use that folder: {error.strerror}"
    return ""


def _reply_fault(reply: Path, word: str) -> str:
    return "" if reply.exists() and reply.read_text() == word else "what it writes there does not arrive here"


def _others() -> dict[str, str]:
    """Return the address of each node that can run trials, but for this process's own, by its id."""
    here = ray.get_runtime_context().get_node_id()
    can = [node for node in ray.nodes() if node["Alive"] and {"CPU", "GPU"} & node["Resources"].keys()]
    return {node["NodeID"]: node["NodeManagerAddress"] for node in can if node["NodeID"] != here}


def _ask_all(folder: Path, word: str, nodes: Mapping[str, str]) -> dict[str, str]:
    remote = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = {
        node: remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            folder, word, node
        )
        for node in nodes
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_SECONDS)
    return {node: _answer(reference) for node, reference in asked.items()}


def _answer(reference: ray.ObjectRef[str]) -> str:
    try:
        return ray.get(reference, timeout=0)
    except GetTimeoutError:
        return f"it has not answered for {ANSWER_SECONDS:g} s"
    except RayError as error:
        return f"it can't answer: {str(error).strip().splitlines()[-1]}"
