"""What there is to compute with, and what share of it a trial gets. Knows no ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import joblib
import torch

from mnistlab.errors import ResourceError
from mnistlab.spec import ResourcesSpec

Node = tuple[int, float]  # its CPUs and GPUs

# What a GPU trial is taken to need until it is measured: CUDA's context, the data and a small network.
GPU_GIB_PER_TRIAL = 3.0


@dataclass(frozen=True)
class Machine:
    """What there is to compute with."""

    cpus: int
    gpus: float
    gpu_names: tuple[str, ...] = ()
    gpu_gib: float = 0.0  # memory of the smallest GPU
    nodes: tuple[Node, ...] = ()  # CPUs and GPUs of each node of a cluster

    def __str__(self) -> str:
        """Return for example `16 CPUs, 1 GPU (NVIDIA A100)`."""
        words = [f"{self.cpus} CPU{'s' * (self.cpus != 1)}"]
        if self.gpus:
            names = f" ({', '.join(sorted(set(self.gpu_names)))})" if self.gpu_names else ""
            words.append(f"{self.gpus:g} GPU{'s' * (self.gpus != 1)}{names}")
        return ", ".join(words)


@dataclass(frozen=True)
class Share:
    """What one trial gets, and how many run at once."""

    cpus: int
    gpus: float
    parallel: int

    def __str__(self) -> str:
        """Return what one trial has, for example `2 CPUs` or `1 CPU, 0.5 GPUs`."""
        return str(Machine(self.cpus, self.gpus))


def this_machine() -> Machine:
    """Return the CPUs that this process may use (a container's quota counts) and the GPUs of this machine."""
    count = torch.cuda.device_count()
    memory = [torch.cuda.get_device_properties(i).total_memory / 2**30 for i in range(count)]
    names = tuple(torch.cuda.get_device_name(i) for i in range(count))
    return Machine(joblib.cpu_count(), float(count), names, min(memory, default=0.0))


def share(machine: Machine, wished: ResourcesSpec, limit: int | None = None) -> Share:
    """Return what each trial gets and how many run at once.

    At most `limit` run at once, unless `max_parallel` says how many. `gpus_per_trial = "auto"` is one GPU divided by
    the trials that fit on it, by memory and by the CPUs that feed them. If fewer trials run than fit, each gets more.

    Raises:
        ResourceError: if not even one trial fits, saying what is short.
    """
    cpus = wished.cpus_per_trial
    nodes = machine.nodes or ((machine.cpus, machine.gpus),)
    most = max(node_cpus for node_cpus, _ in nodes)
    if cpus > most:
        where = " on one node" if len(nodes) > 1 else ""
        raise ResourceError(f"resources.cpus_per_trial = {cpus}, but there are {most} CPUs{where}")
    gpus = _gpus_per_trial(machine, machine.cpus // cpus) if wished.gpus_per_trial is None else wished.gpus_per_trial
    parallel = sum(_fitting(node, cpus, gpus) for node in nodes)
    if parallel < 1:
        raise ResourceError(f"resources.gpus_per_trial = {gpus:g}, but there are {machine.gpus:g} GPUs")
    parallel = min(parallel, wished.max_parallel or limit or parallel)
    return Share(cpus, _spread(nodes, cpus, gpus, parallel) if wished.gpus_per_trial is None else gpus, parallel)


def room(machine: Machine, given: Share) -> Share | None:
    """Return what a trial gets for whose memory its share was too little: a whole GPU, or a node of its own.

    None where it has that already.
    """
    if given.gpus:
        return Share(given.cpus, 1.0, 1) if given.gpus < 1 else None
    most = max(cpus for cpus, _ in machine.nodes or ((machine.cpus, machine.gpus),))
    return Share(most, 0.0, 1) if most > given.cpus and given.parallel > 1 else None


def _fitting(node: Node, cpus: int, gpus: float) -> int:
    """Return how many trials a node holds: a trial never spans two nodes, nor two GPUs for less than a whole one."""
    by_cpu = node[0] // cpus
    if not gpus:
        return by_cpu
    by_gpu = int(node[1]) * int(1 / gpus + 1e-9) if gpus <= 1 else int(node[1] // gpus)
    return min(by_cpu, by_gpu)


def _gpus_per_trial(machine: Machine, by_cpu: int) -> float:
    if not machine.gpus:
        return 0.0
    by_memory = max(1, int(machine.gpu_gib / GPU_GIB_PER_TRIAL))
    return _part(max(1, min(by_memory, int(by_cpu // machine.gpus))))


def _part(fit: int) -> float:
    return int(10_000 / fit) / 10_000  # Ray counts in ten-thousandths; rounding up would leave one out


def _spread(nodes: Sequence[Node], cpus: int, gpus: float, parallel: int) -> float:
    """Return the largest part of a GPU, from `gpus` on, with which `parallel` trials run at once.

    Ray fills one GPU before it uses the next: with small parts, a few trials would share one and leave others idle.
    """
    parts = map(_part, range(1, round(1 / gpus))) if gpus else ()
    return next((part for part in parts if sum(_fitting(node, cpus, part) for node in nodes) >= parallel), gpus)
