"""The arithmetic of a training, by fixed rules: the same plan and seed give the same numbers on the same machine.

torch keeps most of these settings for the whole process. They are set for a while and put back: the next trial of a
worker, and the program that calls mnistlab as a library, find them as they were.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from mnistlab.training.convolutions import whole_gradients

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


class Draws:
    """The streams of Python's and numpy's own generators that a part of this process has for itself."""

    def __init__(self) -> None:
        """Begin with copies of those that there are."""
        self._states = self._others = _drawn()

    @contextmanager
    def on(self) -> Generator[None]:
        """Draw from these for a while; the others are as before afterwards."""
        self._others = _drawn()
        _draw_from(self._states)
        try:
            yield
        finally:
            self._states = _drawn()
            _draw_from(self._others)

    @contextmanager
    def off(self) -> Generator[None]:
        """Draw from the others for a while within `on`."""
        self._states = _drawn()
        _draw_from(self._others)
        try:
            yield
        finally:
            self._others = _drawn()
            _draw_from(self._states)


def _drawn() -> tuple[Any, Any]:
    return random.getstate(), np.random.get_state()  # noqa: NPY002, RUF100 - the global one


def _draw_from(states: tuple[Any, Any]) -> None:
    pythons, numpys = states
    random.setstate(pythons)
    np.random.set_state(numpys)  # noqa: NPY002, RUF100


@contextmanager
def process_restored() -> Generator[None]:
    """Train for a program that calls mnistlab as a library: its threads and its random numbers are as before.

    `training.set_up_process` and `training.begin` set them for good, which is right for a process of their own.
    """
    threads, flushing, always = torch.get_num_threads(), _flushes_denormals(), torch.is_warn_always_enabled()
    try:
        with torch.random.fork_rng(devices=_devices_in_use()), Draws().on():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushing)
        torch.set_warn_always(always)


def _devices_in_use() -> list[int]:
    """Return the numbers of the GPUs whose generators there are: asking starts none."""
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []


def _flushes_denormals() -> bool:
    """Return whether this thread takes numbers next to 0 for 0. torch does not tell."""
    return float(torch.tensor(1e-310, dtype=torch.float64) * 1) == 0


@contextmanager
def reproducible(device: torch.device) -> Generator[None]:
    """Compute on `device` in float32 where a plan says so, and on a GPU also the same sums in the same order."""
    with float32_is_exact():
        if device.type != "cuda":
            yield
            return
        with deterministic():
            yield


@contextmanager
def deterministic() -> Generator[None]:
    """Let torch choose deterministic kernels. It warns of an operation that has none, and computes it all the same.

    torch would also fill each new tensor before it is written: 107 times in a step of the default `cnn`, 5 times
    without. That is for programs that read memory which they have not written.
    """
    off, warn, _ = range(3)  # and the last: raise an error
    mode = torch.get_deterministic_debug_mode()
    memory = cast("Any", torch.utils.deterministic)
    fill, benchmark = memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    memory.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False  # it chooses kernels by their times
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=mode != off, warn_only=mode == warn)
        memory.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def float32_is_exact() -> Generator[None]:
    """Multiply float32 numbers as float32 numbers: on GPUs since Ampere, torch convolves in TF32 if nobody objects.

    TF32 has 10 bits of mantissa instead of 23. The old switches are set as well as the new ones (torch 2.9), because
    torch raises an error where a plugin reads an old switch that contradicts a new one.
    """
    matmul, convolutions = _old_switches()
    before = list(map(_taken, _float32_operations()))
    _set_old_switches("highest", tf32=False)
    for operations in _float32_operations():
        operations.fp32_precision = "ieee"
    try:
        yield
    finally:
        _set_old_switches(matmul, tf32=convolutions)
        for operations, precision in zip(_float32_operations(), before, strict=True):
            operations.fp32_precision = precision


def _float32_operations() -> list[Any]:
    """Return what has an `fp32_precision`; what others follow where theirs is "none" stands before them.

    All of mkldnn together is left out: what is written there, torch 2.15 takes for `torch.backends` itself.
    """
    cudnn, mkldnn = cast("Any", torch.backends.cudnn), cast("Any", torch.backends.mkldnn)
    above = [torch.backends, cudnn]
    return [*above, torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]


def _taken(operations: Any) -> str:
    """Return the precision of some operations and leave "none" in its place, so that none follows it any more."""
    precision = str(operations.fp32_precision)
    operations.fp32_precision = "none"
    return precision


def _old_switches() -> tuple[str | None, bool | None]:
    """Return the precision of matrix products and whether cuDNN may use TF32; None where torch does not say.

    It does not where somebody has set old and new switches to different values.
    """
    matmul, tf32 = None, None
    with suppress(RuntimeError):
        matmul = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        tf32 = torch.backends.cudnn.allow_tf32
    return matmul, tf32


def _set_old_switches(matmul: str | None, *, tf32: bool | None) -> None:
    if matmul is not None:
        torch.set_float32_matmul_precision(matmul)
    if tf32 is not None:
        torch.backends.cudnn.allow_tf32 = tf32
