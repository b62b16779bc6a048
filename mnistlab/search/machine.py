"""What there is to compute with, and what share of it a trial gets. Knows no ray."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from mnistlab.errors import ResourceError
from mnistlab.spec import ResourcesSpec

# What a GPU trial is taken to need until it is measured: CUDA's context, the data and a small network.
GPU_GIB_PER_TRIAL = 3.0


@dataclass(frozen=True)
class Machine:
    """What there is to compute with."""

    cpus: int
    gpus: float
    gpu_names: tuple[str, ...] = ()
    gpu_gib: float = 0.0  # memory of the smallest GPU

    def __str__(self) -> str:
        """Return for example `16 CPUs, 1 GPU (NVIDIA H200)`."""
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


def this_machine() -> Machine:
    """Return the CPUs that this process may use and the GPUs of this machine."""
    count = torch.cuda.device_count()
    memory = [torch.cuda.get_device_properties(i).total_memory / 2**30 for i in range(count)]
    names = tuple(torch.cuda.get_device_name(i) for i in range(count))
    return Machine(len(os.sched_getaffinity(0)), float(count), names, min(memory, default=0.0))


def share(machine: Machine, wished: ResourcesSpec) -> Share:
    """Return what each trial gets and how many run at once.

    `gpus_per_trial = "auto"` is one GPU divided by the trials that fit on it, by memory and by the CPUs that feed them.

    Raises:
        ResourceError: if not even one trial fits, saying what is short.
    """
    by_cpu = machine.cpus // wished.cpus_per_trial
    gpus = _gpus_per_trial(machine, by_cpu) if wished.gpus_per_trial is None else wished.gpus_per_trial
    if by_cpu < 1:
        raise ResourceError(f"resources.cpus_per_trial = {wished.cpus_per_trial}, but there are {machine.cpus} CPUs")
    if gpus > machine.gpus:
        raise ResourceError(f"resources.gpus_per_trial = {gpus:g}, but there are {machine.gpus:g} GPUs")
    parallel = min(by_cpu, _by_gpu(machine, gpus)) if gpus else by_cpu
    return Share(wished.cpus_per_trial, gpus, min(parallel, wished.max_parallel or parallel))


def _gpus_per_trial(machine: Machine, by_cpu: int) -> float:
    if not machine.gpus:
        return 0.0
    by_memory = max(1, int(machine.gpu_gib / GPU_GIB_PER_TRIAL))
    fit = max(1, min(by_memory, int(by_cpu // machine.gpus)))
    return int(10_000 / fit) / 10_000  # Ray counts in ten-thousandths; rounding up would leave one out


def _by_gpu(machine: Machine, gpus: float) -> int:
    """Return how many trials the GPUs hold: a trial never spans two GPUs unless it asks for whole ones."""
    return int(machine.gpus) * int(1 / gpus + 1e-9) if gpus <= 1 else int(machine.gpus // gpus)
