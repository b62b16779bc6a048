"""What there is to compute with, and what share of it a trial gets. Knows no ray."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import joblib
import torch

from mnistlab.errors import ResourceError
from mnistlab.experiment.spec import ResourcesSpec

Node = tuple[int, float]  # its CPUs and GPUs

# What a GPU trial is taken to need until it is measured: CUDA's context, the data and a small network.
GPU_GIB_PER_TRIAL = 3.0


class Gpu(NamedTuple):
    """A GPU: its name, its memory, and what of it other programs use, in GiB."""

    name: str
    gib: float
    used_gib: float = 0.0


@dataclass(frozen=True)
class Machine:
    """What there is to compute with."""

    cpus: int
    gpus: float
    gpu_names: tuple[str, ...] = ()
    gpu_gib: float = 0.0  # memory for trials on the GPU that has the least; 0 where that is not known
    nodes: tuple[tuple[int, float], ...] = ()  # CPUs and GPUs of each node of a cluster
    silent: tuple[str, ...] = ()  # nodes that did not say how much memory their GPUs have

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
    """Return the CPUs that this process may use (a container's quota counts) and the GPUs that it may use.

    Memory that other programs use is not counted: nobody but them can share it out.
    """
    gpus = gpus_here()
    free = [gpu.gib - gpu.used_gib for gpu in gpus]
    return Machine(joblib.cpu_count(), float(len(gpus)), tuple(gpu.name for gpu in gpus), min(free, default=0.0))


def gpus_here() -> list[Gpu]:
    """Return the GPUs that this process may use: `CUDA_VISIBLE_DEVICES` counts, and of MIG, the slice."""
    return [_gpu(index) for index in range(torch.cuda.device_count())]


def _gpu(index: int) -> Gpu:
    """Return one GPU. Asking takes no memory of it; what can't be known of its use is taken for nothing."""
    name, used = torch.cuda.get_device_name(index), 0
    if "MIG" not in name:  # the driver answers for the whole GPU, of which the slice is a part
        with suppress(Exception):  # NVML, AMD's library and torch each raise errors of their own
            used = torch.cuda.device_memory_used(index)
    return Gpu(name, torch.cuda.get_device_properties(index).total_memory / 2**30, used / 2**30)


def share(machine: Machine, wished: ResourcesSpec, limit: int | None = None) -> Share:
    """Return what each trial gets and how many run at once.

    At most `limit` run at once, unless `max_parallel` says how many. `gpus_per_trial = "auto"` divides each GPU among
    as many trials as its memory and the CPUs of its node allow. All trials get the same share, so the GPU with the
    least memory decides. If fewer trials run than fit, each gets more.

    Raises:
        ResourceError: if not even one trial fits, saying what is short.
    """
    cpus, most = wished.cpus_per_trial, wished.max_parallel or limit
    nodes = machine.nodes or ((machine.cpus, machine.gpus),)
    most_cpus = max(node_cpus for node_cpus, _ in nodes)
    if cpus > most_cpus:
        where = " on one node" if len(nodes) > 1 else ""
        raise ResourceError(f"resources.cpus_per_trial = {cpus}, but there are {most_cpus} CPUs{where}")
    gpus = _gpus_per_trial(machine, cpus, most) if wished.gpus_per_trial is None else wished.gpus_per_trial
    parallel = _parallel(nodes, cpus, gpus)
    if parallel < 1:
        raise ResourceError(_nowhere(nodes, cpus, gpus, machine.gpus))
    return Share(cpus, gpus, min(parallel, most or parallel))


def room(machine: Machine, given: Share) -> Share | None:
    """Return what a trial gets for whose memory its share was too little: a whole GPU, or a node of its own.

    None where it has that already.
    """
    if given.gpus:
        return Share(given.cpus, 1.0, 1) if given.gpus < 1 else None
    most = max(cpus for cpus, _ in machine.nodes or ((machine.cpus, machine.gpus),))
    return Share(most, 0.0, 1) if most > given.cpus and given.parallel > 1 else None


def doubts(machine: Machine, wished: ResourcesSpec) -> list[str]:
    """Return in sentences what a user should know of the share: GPUs that could not be divided."""
    if wished.gpus_per_trial is not None or not machine.silent:
        return []
    who = f"{'node' if len(machine.silent) == 1 else 'nodes'} {', '.join(machine.silent)}"
    return [
        f"{who} did not say how much memory the GPUs there have, so each trial gets a whole GPU; to share GPUs, set "
        "resources.gpus_per_trial, for example to 0.25"
    ]


def _parallel(nodes: Sequence[tuple[int, float]], cpus: int, gpus: float) -> int:
    """Return how many trials run at once on all nodes."""
    return sum(_fitting(node, cpus, gpus) for node in nodes)


def _nowhere(nodes: Sequence[tuple[int, float]], cpus: int, gpus: float, in_all: float) -> str:
    """Return why no node has a place for even one trial, though some node has CPUs enough."""
    beside = max((node_cpus for node_cpus, node_gpus in nodes if node_gpus >= gpus), default=None)
    if beside is not None:
        return f"resources.cpus_per_trial = {cpus}, but nodes with GPUs enough for a trial have at most {beside} CPUs"
    if in_all < gpus:
        return f"resources.gpus_per_trial = {gpus:g}, but there are {in_all:g} GPUs"
    most = max(node_gpus for _, node_gpus in nodes)
    return f"resources.gpus_per_trial = {gpus:g}, but one node has at most {most:g} of the {in_all:g} GPUs"


def _fitting(node: tuple[int, float], cpus: int, gpus: float) -> int:
    """Return how many trials a node holds: a trial never spans two nodes, nor two GPUs for less than a whole one."""
    by_cpu = node[0] // cpus
    if not gpus:
        return by_cpu
    by_gpu = int(node[1]) * int(1 / gpus + 1e-9) if gpus <= 1 else int(node[1] // gpus)
    return min(by_cpu, by_gpu)


def _gpus_per_trial(machine: Machine, cpus: int, most: int | None) -> float:
    """Return the largest share of a GPU with which as many trials run at once as memory, CPUs and `most` allow."""
    if not machine.gpus:
        return 0.0
    nodes = machine.nodes or ((machine.cpus, machine.gpus),)

    def parallel(fit: int) -> int:
        found = _parallel(nodes, cpus, _part(fit))
        return min(found, most or found)

    by_memory = max(1, int(machine.gpu_gib / GPU_GIB_PER_TRIAL))
    return _part(max(range(1, by_memory + 1), key=parallel))  # of equal ones the first, which is the largest share


def _part(fit: int) -> float:
    """Return the share of a GPU that `fit` trials get. Ray counts in ten-thousandths; rounding up leaves one out."""
    return int(10_000 / fit) / 10_000
