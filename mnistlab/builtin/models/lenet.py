"""LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998), with the choices that have changed since."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from mnistlab.api import Choice, Config, Float, ImageShape
from mnistlab.builtin.models.layers import activation, check_shape


class LeNet(Config):
    """Two convolutions and three dense layers. At width 1, tanh and avg it is nearest to the paper's net."""

    width: Annotated[float, Float(0.5, 4.0, log=True)] = 1.0
    """Factor on the 6 and 16 filters and on the 120 and 84 units of the paper, each rounded to an integer."""
    activation: Annotated[str, Choice("relu", "gelu", "tanh")] = "relu"
    pooling: Annotated[str, Choice("max", "avg")] = "max"
    """How 2 x 2 pixels become one."""
    dropout: Annotated[float, Float(0.0, 0.5)] = 0.0
    """Share of the units that is dropped after each hidden dense layer."""


def build_lenet(config: LeNet, shape: ImageShape) -> nn.Module:
    """Return a module (N, C, H, W) -> (N, classes); 61,706 parameters at width 1 for 1 x 28 x 28 and 10 classes.

    Raises:
        SpecError: if the images are smaller than 8 x 8.
    """
    check_shape("lenet", shape)
    first, second, third, fourth = (round(config.width * size) for size in (6, 16, 120, 84))
    height, width = shape.height // 2, shape.width // 2
    # The paper pads 28 pixels to 32; its second convolution is valid, which maps below 6 pixels a side can't afford.
    padding = 0 if min(height, width) >= 6 else 2
    height, width = ((side + 2 * padding - 4) // 2 for side in (height, width))
    return nn.Sequential(
        nn.Conv2d(shape.channels, first, 5, padding=2),
        activation(config.activation),
        _pool(config),
        nn.Conv2d(first, second, 5, padding=padding),
        activation(config.activation),
        _pool(config),
        nn.Flatten(),
        *_dense(config, second * height * width, third),
        *_dense(config, third, fourth),
        nn.Linear(fourth, shape.classes),
    )


def _pool(config: LeNet) -> nn.Module:
    return nn.MaxPool2d(2) if config.pooling == "max" else nn.AvgPool2d(2)


def _dense(config: LeNet, inputs: int, outputs: int) -> list[nn.Module]:
    """Return one hidden dense layer."""
    drop = [nn.Dropout(config.dropout)] if config.dropout > 0 else []
    return [nn.Linear(inputs, outputs), activation(config.activation), *drop]
