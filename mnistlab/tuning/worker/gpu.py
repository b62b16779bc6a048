"""The part of a GPU that Ray has given to this worker process: the process keeps to that one, and to that part.

CUDA reads once in a process which GPUs it may use. Ray uses the processes of tasks again, and tells each task its GPU
by the environment alone (ray 2.60 ends a process for each task only where the function itself, not a call of it, asks
for GPUs). So a task whose process began with another GPU would train on one that others count on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import ray
import torch

from mnistlab.tuning.resources import GPU_GIB_PER_TRIAL
from mnistlab.tuning.worker.leaving import leave

MOVED = "moved"  # the cause, see `mnistlab.training.causes`
CONTEXT_GIB = 0.5  # what CUDA itself takes of a GPU for each process; torch's allocator does not count it


@dataclass(frozen=True)
class Given:
    """What Ray has given to the trial or task that runs in this process: the ids of GPUs, and how much of each."""

    ids: tuple[str, ...]
    share: float


_began_with: tuple[str, ...] | None = None  # the ids of the first task that was given any


def given() -> Given:
    """Return what Ray has given to the trial or task that runs in this process."""
    context = ray.get_runtime_context()
    ids = tuple(sorted(context.get_accelerator_ids().get("GPU", ())))
    return Given(ids, float(context.get_assigned_resources().get("GPU", 0.0)))


def keep_to(mine: Given) -> None:
    """Make sure that CUDA uses the GPUs of `mine` in this process, or end the process.

    The trial or task then begins in another process, which counts against nobody. Where Ray is told not to set the
    environment, this does: otherwise all processes would use the first GPU.
    """
    global _began_with  # noqa: PLW0603 - so it is with CUDA
    if _began_with is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine.ids)
        _began_with = mine.ids
    elif mine.ids != _began_with:
        words = (f"GPU {', '.join(ids)}" for ids in (_began_with, mine.ids))
        leave(MOVED, "its process began with {} and can't use {}".format(*words))


def limit_memory(share: float) -> None:
    """Let this process take no more than its share of the GPU's memory; one that has a whole GPU has no limit.

    A plan that needs more then fails itself, whatever its neighbours do, and is tried again with a whole GPU. Without
    the limit, it would take what they need, and they would fail. A share of less than any trial needs is taken for a
    way to run many at once, and limits nothing below that need.
    """
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    allowed = max(share * total, GPU_GIB_PER_TRIAL) - CONTEXT_GIB
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total) if share < 1 else 1.0, 0)
