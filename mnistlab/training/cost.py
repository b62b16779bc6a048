"""What a prediction of a trained model takes: multiply-accumulates, and seconds on this device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mnistlab.store.results import Cost
from mnistlab.training import loop
from mnistlab.training.loop import Training
from mnistlab.training.precision import Draws, reproducible

RUNS = 7  # of each batch size, after one that warms up
LARGE = 256


def cost_of(one: Training) -> Cost:
    """Measure what a prediction of a trained model takes, on validation images.

    It is the whole way from uint8 images on the device to class scores, as `evaluate` goes it.

    Raises:
        Exception: whatever the model raises.
    """
    images = one.data.validation_images
    large = images[torch.arange(LARGE, device=images.device) % len(images)]
    with reproducible(images.device):
        return Cost(
            macs=count_macs(one, images[:1]),
            latency_1=_latency(one, images[:1]),
            latency_256=_latency(one, large),
            device=device_name(images.device),
        )


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or that of the processor with the number of threads that this process uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' * (threads != 1)}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "CPU")


def count_macs(one: Training, image: Tensor) -> int | None:
    """Return the multiply-accumulates for `image` (1, H, W); None where nothing that torch can count is computed.

    Raises:
        Exception: whatever the model raises.
    """
    from torch.utils.flop_counter import FlopCounterMode  # noqa: PLC0415 - Triton comes with it; a driver counts nothing

    counter = FlopCounterMode(display=False)
    # It draws from streams of its own: when a count comes depends on interruptions, and what is trained next must not.
    with Draws().on(), counter:
        loop.predict(one, image)
    return counter.get_total_flops() // 2 or None


def _latency(one: Training, images: Tensor) -> float:
    """Return the median seconds of a prediction for `images`."""
    wait: Callable[[], None] = torch.cuda.synchronize if images.device.type == "cuda" else lambda: None
    loop.predict(one, images)
    taken: list[float] = []
    for _ in range(RUNS):
        wait()
        start = time.perf_counter()
        loop.predict(one, images)
        wait()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
