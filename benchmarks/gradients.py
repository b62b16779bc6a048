"""How often torch leaves a convolution's gradient unwritten in bfloat16, and what mnistlab's remedy costs.

Shapes are drawn at random, memory is littered with NaN before, and each gradient is compared with that of float64. Then
epochs of built-in models are timed with the remedy (`mnistlab.precision.WholeGradients`) and without, in turns.

Usage: MNISTLAB_DATA=FOLDER python benchmarks/gradients.py [SHAPES] [ROUNDS] [IMAGES]
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import torch
from machine import spread, table
from plans import epoch, mnist, some
from torch import Tensor

from mnistlab import precision, training
from mnistlab.data.device import DeviceData
from mnistlab.precision import WholeGradients

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


def draw(rng: random.Random) -> tuple[Any, Tensor, Tensor, dict[str, int]]:
    """Return a convolution over a small map, the map, the weights and the rest of its settings."""
    while True:
        kind = rng.choice(KINDS)
        ways, groups = int(kind.__name__[-2]), rng.choice((1, 1, 2, 4))
        ins, outs = (groups * rng.choice((1, 4, 8, 16, 24)) for _ in range(2))
        kernel, side, gap = rng.choice((1, 2, 3, 5)), rng.choice((1, 2, 3, 4, 5, 7)), rng.choice((1, 1, 1, 2))
        settings = {
            "stride": rng.choice((1, 2, 2, 3)),
            "padding": rng.choice((0, gap * (kernel - 1) // 2, 1)),
            "dilation": gap,
            "groups": groups,
        }
        shape = (ins, outs // groups) if "transpose" in kind.__name__ else (outs, ins // groups)
        maps, weight = torch.randn(rng.choice((1, 4, 16)), ins, *[side] * ways), torch.randn(*shape, *[kernel] * ways)
        try:
            if kind(maps, weight, **settings).numel():
                return kind, maps.bfloat16().float(), weight.bfloat16().float(), settings
        except RuntimeError:  # a kernel larger than its map, or nothing left of it
            continue


def gradient(kind: Any, maps: Tensor, weight: Tensor, settings: dict[str, int], *, bf16: bool) -> Tensor:
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
        for way, remedy in (("autocast", nullcontext()), ("mnistlab", WholeGradients())):
            with remedy:
                tries = [gradient(kind, maps, weight, settings, bf16=True) for _ in range(3)]
            off = max(float(torch.nan_to_num((got - want).abs(), nan=torch.inf).max()) for got in tries)
            found[kind.__name__, way] += off > TOLERANCE * float(want.abs().max())
    return found


def seconds(model: str, batch_size: int, remedy: Any, data: DeviceData) -> float:
    """Return the seconds of one epoch in bfloat16."""
    with patch.object(precision, "WholeGradients", remedy):
        return epoch(model, "bf16", batch_size, data)["seconds"]


def main(shapes: int = 3000, rounds: int = 5, images: int = 2000) -> None:
    """Print both tables."""
    training.set_up_process(1)
    torch.manual_seed(0)
    found = wrong(shapes)
    rows = [
        (kind.__name__, *(found[kind.__name__, way] for way in ("drawn", "autocast", "mnistlab"))) for kind in KINDS
    ]
    head = ("convolution", "shapes", "wrong by torch.autocast alone", "wrong in mnistlab")
    print(table("Gradients in bfloat16", head, rows))
    data = some(mnist("cpu"), images)
    rows = []
    for model in ("lenet", "cnn", "resnet", "vit"):
        for batch_size in (32, 128):
            ratios = []
            for _ in range(rounds + 1):
                plain = seconds(model, batch_size, nullcontext, data)
                ratios.append(seconds(model, batch_size, WholeGradients, data) / plain)
            rows.append((model, batch_size, spread(ratios[1:], 3)))  # the first round warms up
    print(table("What whole gradients cost", ("model", "batch", "epoch with the remedy / without"), rows))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
