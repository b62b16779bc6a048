"""The plain networks whose weights get a distribution."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from mnistlab.api import ImageShape


def perceptron(depth: int, width: int, shape: ImageShape) -> nn.Sequential:
    """Return (N, C, H, W) -> (N, classes), with `depth` hidden layers of `width` units."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise([shape.pixels, *[width] * depth]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, shape.classes))


def convolutional(depth: int, width: int, shape: ImageShape) -> nn.Sequential:
    """Return (N, C, H, W) -> (N, classes), with `depth` stages of width, 2 width, 4 width, ... channels.

    Raises:
        ValueError: if the images are too small to be halved `depth` times.
    """
    height, across = shape.height >> depth, shape.width >> depth
    if min(height, across) < 1:
        rule, deepest = f"needs sides of at least {2**depth} pixels", min(shape.height, shape.width).bit_length() - 1
        found = f"depth = {depth} {rule}, but the images are {shape.height} x {shape.width}"
        raise ValueError(f"model.bayesian-cnn: {found}; depth may be at most {deepest} here")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([shape.channels, *[width << stage for stage in range(depth)]]):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    features = (width << (depth - 1)) * height * across
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, shape.classes))
