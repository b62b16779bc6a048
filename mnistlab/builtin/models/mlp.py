"""The multi-layer perceptron: pixels in one row, hidden layers of one width."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from mnistlab.api import Choice, Config, Float, ImageShape, Int
from mnistlab.builtin.models.layers import activation, check_shape


class Mlp(Config):
    """A perceptron. The input is not dropped out: at 28 x 28 pixels that costs more than it gives."""

    depth: Annotated[int, Int(1, 4)] = 2
    """Number of hidden layers."""
    width: Annotated[int, Int(32, 2048, log=True)] = 512
    """Units of each hidden layer."""
    dropout: Annotated[float, Float(0.0, 0.5)] = 0.2
    """Share of the units that is dropped after each hidden layer."""
    activation: Annotated[str, Choice("relu", "gelu", "silu", "tanh")] = "relu"
    batch_norm: Annotated[bool, Choice(True, False)] = True
    """Normalise each hidden layer before its activation."""


def build_mlp(config: Mlp, shape: ImageShape) -> nn.Module:
    """Return a module (N, C, H, W) -> (N, classes).

    Raises:
        SpecError: if the images are smaller than 8 x 8.
    """
    check_shape("mlp", shape)
    layers: list[nn.Module] = [nn.Flatten()]
    units = shape.pixels
    for _ in range(config.depth):
        layers += _hidden(config, units)
        units = config.width
    return nn.Sequential(*layers, nn.Linear(units, shape.classes))


def _hidden(config: Mlp, units: int) -> list[nn.Module]:
    """Return the modules of one hidden layer that takes `units` inputs."""
    # The normalisation has a bias of its own: a second one before it would never get a gradient.
    layers: list[nn.Module] = [nn.Linear(units, config.width, bias=not config.batch_norm)]
    if config.batch_norm:
        layers.append(nn.BatchNorm1d(config.width))
    layers.append(activation(config.activation))
    if config.dropout > 0:
        layers.append(nn.Dropout(config.dropout))
    return layers
