"""Images per second of three loops that train the same network on one core: the usual one, ours, the best by hand.

The network is a 24/32-channel two-layer CNN (train_mnist_fast's). The usual loop is a DataLoader with torchvision's
ToTensor and Normalize at batch 64, as in pytorch/examples; ours is `mnistlab.training.loop` at batch 256; the
hand-written one does the same work as ours with nothing in between. The three take turns, and ratios are taken within a
round.

Usage: MNISTLAB_DATA=FOLDER python benchmarks/training_loop.py [ROUNDS] [IMAGES]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from machine import spread, table
from plans import mnist, part
from torch import nn
from torchvision.transforms import v2 as transforms

from mnistlab.data.device import DeviceData
from mnistlab.plugins.registry import installed
from mnistlab.training import loop as training
from mnistlab.training.precision import cpu_has_bf16

NET = {
    "depth": 2,
    "channels": 24,
    "growth": 4 / 3,
    "stem_kernel": 5,
    "kernel": 3,
    "padding": "valid",
    "batch_norm": False,
    "dropout": 0.0,
    "pool": "before",
    "activation": "relu",
    "head_width": 256,
}


def network() -> nn.Module:
    """Return the same network as the plan's, written out."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(24, 32, 3), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(800, 256), nn.ReLU(), nn.Linear(256, 10),
    )  # fmt: skip


class Digits(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """A map-style dataset as torchvision's: one PIL image, one transform, one label at a time."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def usual(data: DeviceData) -> float:
    """Return the images per second of the DataLoader loop."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    dataset = Digits(data.train_images[:, 0].numpy(), data.train_labels.numpy())
    loader = torch.utils.data.DataLoader(dataset, batch_size=64, shuffle=True)
    start = time.perf_counter()
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    return len(dataset) / (time.perf_counter() - start)


def by_hand(data: DeviceData) -> float:
    """Return the images per second of the best loop that we could write by hand."""
    model = network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    images, labels, batch = data.train_images, data.train_labels, 256
    bf16 = cpu_has_bf16()
    scale, offset = float(1 / (255 * data.std)), float(-data.mean / data.std)
    steps = len(images) // batch
    start = time.perf_counter()
    order = torch.randperm(len(images))
    model.train()
    for step in range(steps):
        index = order[step * batch : (step + 1) * batch]
        pixels = images[index].float().mul_(scale).add_(offset)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(pixels)
        loss = F.cross_entropy(logits.float(), labels[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return steps * batch / (time.perf_counter() - start)


def ours(data: DeviceData) -> float:
    """Return the images per second of `mnistlab.training.loop`, as it reports them."""
    plan = {
        "model": part("model", "cnn", **NET),
        "optimizer": part("optimizer", "adam", lr=1e-3),
        "transforms": [],
        "training": {"epochs": 1, "batch_size": 256, "precision": "auto", "label_smoothing": 0.0},
    }
    return training.run_epoch(training.begin(plan, 0, data, installed()))["images_per_second"]


def main(rounds: int = 7, images: int = 20_000) -> None:
    """Print the table."""
    training.set_up_process(1)
    whole = mnist()
    data = replace(whole, train_images=whole.train_images[:images], train_labels=whole.train_labels[:images])
    loops: dict[str, Callable[[DeviceData], float]] = {"usual": usual, "by hand": by_hand, "ours": ours}
    for loop in loops.values():
        loop(replace(data, train_images=data.train_images[:2048], train_labels=data.train_labels[:2048]))  # warm-up
    speeds = {name: list[float]() for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            speeds[name].append(loop(data))
    pairs = list(zip(speeds["usual"], speeds["by hand"], speeds["ours"], strict=True))
    rows = [(f"{name}, images/s", "", spread(values, 0)) for name, values in speeds.items()]
    rows.append(("ours / usual", ">= 2.5", spread([o / u for u, _, o in pairs], 2)))
    rows.append(("ours / by hand", ">= 0.95", spread([o / h for _, h, o in pairs], 3)))
    print(table("Training loop on one core", ("figure", "wanted", "median (range, n)"), rows))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
