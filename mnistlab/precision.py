"""Which precision a plan is trained in, by a fixed rule, and how: the same plan and seed give the same numbers."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn

from mnistlab.convolutions import whole_gradients

BF16_BATCH = 128


def uses_bf16(precision: str, device: torch.device, module: nn.Module, batch_size: int) -> bool:
    """Return whether to compute in bfloat16: `auto` does where the hardware has it and it was measured to be faster.

    The rule is fixed, not timed at each start, so that the same plan and seed give the same numbers. By
    `benchmarks/precision.py`, on a CPU with AMX, convolutions gain at every batch size (1.1 to 2 times), and the small
    matrices of an MLP at 128 images and more; below that, casting costs more than it saves.
    """
    if precision != "auto":
        return precision == "bf16"
    if batch_size < BF16_BATCH and not any(isinstance(part, nn.Conv2d) for part in module.modules()):
        return False
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and cpu_has_bf16()


def cpu_has_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware (AMX or AVX512-BF16)."""
    amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)
    avx = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    return bool(amx() or avx())


_whole_gradients_for_good = cache(whole_gradients)


@contextmanager
def autocast(device: torch.device, *, bf16: bool) -> Generator[None]:
    """Compute in bfloat16 what gains by it, as `torch.autocast` does, where `bf16` says so.

    On a CPU, convolutions over small maps are computed so that no part of their gradient is left unwritten, from now on
    wherever this process uses `torch.autocast`.
    """
    if bf16 and device.type == "cpu":
        _whole_gradients_for_good()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        yield
