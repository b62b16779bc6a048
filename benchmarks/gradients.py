"""How often torch leaves a convolution's gradient unwritten in bfloat16, and what mnistlab's remedy costs.

Shapes are drawn at random, memory is littered with NaN before, and each gradient is compared with that of float64. Then
epochs of built-in models are timed with the remedy (`mnistlab.training.convolutions`) and without, in turns.

Usage: MNISTLAB_DATA=FOLDER python benchmarks/gradients.py [SHAPES] [ROUNDS] [IMAGES]
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from machine import spread, table
from plans import epoch, mnist, some
from torch import Tensor

from mnistlab.data.device import DeviceData
from mnistlab.training import loop, precision
from mnistlab.training.convolutions import whole_gradients

KINDS = (
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
)
TOLERANCE = 0.1  # of the largest gradient: rounding to bfloat16 stays far below


def litter() -> None:
    """Free memory of many sizes that is full of NaN."""
    kept = [torch.full((2**n,), float("nan"), dtype=t) for n in range(3, 16) for t in (torch.float32, torch.bfloat16)]
    del kept


@contextmanager
def kernels(of: str) -> Generator[None]:
    """Let convolutions within `torch.autocast` be prepared by kernels of `torch` or of `mnistlab`."""
    library = whole_gradients() if of == "mnistlab" else None
    try:
        with patch.object(precision, "_whole_gradients_for_good", lambda: None):
            yield
    finally:
        if library:
            library._destroy()


def draw(rng: random.Random) -> tuple[Any, Tensor, Tensor, dict[str, Any]]:
    """Return a convolution over a small map, the map, the weights and the rest of its settings."""
    while True:
        kind = rng.choice(KINDS)
        ways, groups = int(kind.__name__[-2]), rng.choice((1, 1, 2, 4))
        ins, outs = (groups * rng.choice((1, 4, 8, 16, 24)) for _ in range(2))

        def each(*numbers: int, ways: int = ways) -> list[int]:  # mostly the same in all dimensions
            return [rng.choice(numbers)] * ways if rng.random() < 0.8 else rng.choices(numbers, k=ways)

        kernel, sides, gaps = each(1, 2, 3, 5, 7), each(1, 2, 3, 4, 5, 7), each(1, 1, 1, 2)
        halves = [gap * (side - 1) // 2 for gap, side in zip(gaps, kernel, strict=True)]
        padding = rng.choice((0, 1, halves, halves))
        settings = {"stride": each(1, 2, 2, 3), "padding": padding, "dilation": gaps, "groups": groups}
        shape = (ins, outs // groups) if "transpose" in kind.__name__ else (outs, ins // groups)
        maps, weight = torch.randn(rng.choice((1, 4, 16)), ins, *sides), torch.randn(*shape, *kernel)
        try:
            if kind(maps.double(), weight.double(), **settings).numel():
                return kind, maps.bfloat16().float(), weight.bfloat16().float(), settings
        except RuntimeError:  # a kernel larger than its map, or nothing left of it
            continue


def gradient(kind: Any, maps: Tensor, weight: Tensor, settings: dict[str, Any], *, bf16: bool) -> Tensor:
    """Return the gradient of the weights."""
    weight = weight.clone().requires_grad_()
    litter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        found = kind(maps, weight, **settings)
    litter()
    found.to(weight.dtype).square().mean().backward()
    assert weight.grad is not None
    return weight.grad.double()


def wrong(shapes: int) -> Counter[tuple[str, str]]:
    """Return how many of the shapes had a wrong gradient in one of three tries, by kind and way."""
    rng, found = random.Random(0), Counter[tuple[str, str]]()
    for _ in range(shapes):
        kind, maps, weight, settings = draw(rng)
        want = gradient(kind, maps.double(), weight.double(), settings, bf16=False)
        found[kind.__name__, "drawn"] += 1
        for way in ("torch", "mnistlab"):
            with kernels(way):
                tries = [gradient(kind, maps, weight, settings, bf16=True) for _ in range(3)]
            off = max(float(torch.nan_to_num((got - want).abs(), nan=torch.inf).max()) for got in tries)
            found[kind.__name__, way] += off > TOLERANCE * float(want.abs().max())
    return found


def seconds(model: str, batch_size: int, of: str, data: DeviceData) -> float:
    """Return the seconds of one epoch in bfloat16."""
    with kernels(of):
        return epoch(model, "bf16", batch_size, data)["seconds"]


def main(shapes: int = 3000, rounds: int = 5, images: int = 2000) -> None:
    """Print both tables."""
    loop.set_up_process(1)
    torch.manual_seed(0)
    found = wrong(shapes)
    rows = [(kind.__name__, *(found[kind.__name__, way] for way in ("drawn", "torch", "mnistlab"))) for kind in KINDS]
    head = ("convolution", "shapes", "wrong by torch.autocast alone", "wrong in mnistlab")
    print(table("Gradients in bfloat16", head, rows))
    data = some(mnist("cpu"), images)
    rows = []
    for model in ("lenet", "cnn", "resnet", "vit"):
        for batch_size in (32, 128):
            ratios = []
            for _ in range(rounds + 1):
                plain = seconds(model, batch_size, "torch", data)
                ratios.append(seconds(model, batch_size, "mnistlab", data) / plain)
            rows.append((model, batch_size, spread(ratios[1:], 3)))  # the first round warms up
    print(table("What whole gradients cost", ("model", "batch", "epoch with the remedy / without"), rows))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
