"""The plain convolutional net: stages of convolution and pooling, then a small head.

The settings reach from the two-convolution net that learns MNIST to 99 % in one epoch (tuomaso/train_mnist_fast: depth
2, channels 24, growth 4/3, stem_kernel 5, padding valid, no batch norm, no dropout, head_width 256) to deep and wide
nets. The defaults are three stages with batch norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import nn

from mnistlab.api import Choice, Config, Float, ImageShape, Int
from mnistlab.builtin.models.layers import activation, check_shape

_LEAST = 2
"""Pixels a side below which nothing shrinks a feature map further: batch norm needs several values a channel."""


class Cnn(Config):
    """Stages of one convolution and one 2 x 2 max-pool each, then the head."""

    depth: Annotated[int, Int(1, 4)] = 3
    """Number of stages."""
    channels: Annotated[int, Int(8, 96, log=True)] = 32
    """Filters of the first stage."""
    growth: Annotated[float, Float(1.0, 2.0)] = 2.0
    """Factor from stage to stage: stage i (from 0) has channels x growth^i filters, rounded to the nearest integer."""
    kernel: Annotated[int, Choice(3, 5)] = 3
    """Side of the filters from the second stage on."""
    stem_kernel: Annotated[int, Choice(3, 5, 7)] = 3
    """Side of the first stage's filters, which see the pixels."""
    padding: Annotated[str, Choice("same", "valid")] = "same"
    """`valid` pads nothing, so that maps shrink; a map too small for that is padded all the same."""
    batch_norm: Annotated[bool, Choice(True, False)] = True
    """Normalise the output of each convolution."""
    activation: Annotated[str, Choice("relu", "gelu", "silu")] = "relu"
    pool: Annotated[str, Choice("before", "after")] = "before"
    """Pool before or after normalisation and activation. With ReLU alone both give the same; before is less work."""
    head_width: Annotated[int, Int(0, 512, step=64)] = 0
    """Units of the hidden layer between the last stage and the logits; 0: none."""
    dropout: Annotated[float, Float(0.0, 0.6)] = 0.2
    """Share of the inputs of each layer of the head that is dropped."""


@dataclass(frozen=True)
class _Map:
    """The size of a feature map (channels, height, width)."""

    channels: int
    height: int
    width: int

    def shrunk(self, kernel: int) -> _Map | None:
        """Return the map after a valid convolution, or None where that would leave too little."""
        height, width = self.height - kernel + 1, self.width - kernel + 1
        return _Map(self.channels, height, width) if min(height, width) >= _LEAST else None

    def halved(self) -> _Map | None:
        """Return the map after 2 x 2 pooling, or None where that would leave too little."""
        height, width = self.height // 2, self.width // 2
        return _Map(self.channels, height, width) if min(height, width) >= _LEAST else None


def build_cnn(config: Cnn, shape: ImageShape) -> nn.Module:
    """Return a module (N, C, H, W) -> (N, classes).

    Raises:
        SpecError: if the images are smaller than 8 x 8.
    """
    check_shape("cnn", shape)
    layers: list[nn.Module] = []
    size = _Map(shape.channels, shape.height, shape.width)
    for stage in range(config.depth):
        filters = round(config.channels * config.growth**stage)
        modules, size = _stage(config, size, filters, config.kernel if stage else config.stem_kernel)
        layers += modules
    layers += [nn.Flatten(), *_head(config, size.channels * size.height * size.width, shape.classes)]
    return nn.Sequential(*layers)


def _stage(config: Cnn, size: _Map, filters: int, kernel: int) -> tuple[list[nn.Module], _Map]:
    """Return the modules of one stage, and the size of the map that they make of a map of size `size`."""
    valid = size.shrunk(kernel) if config.padding == "valid" else None
    convolved = valid or size
    halved = convolved.halved()
    pool = [nn.MaxPool2d(2)] if halved else []
    end = halved or convolved
    # The normalisation has a bias of its own: a second one before it would never get a gradient.
    padding = 0 if valid else kernel // 2
    conv = nn.Conv2d(size.channels, filters, kernel, padding=padding, bias=not config.batch_norm)
    norm = [nn.BatchNorm2d(filters)] if config.batch_norm else []
    shape = [*norm, activation(config.activation)]
    ordered = [conv, *pool, *shape] if config.pool == "before" else [conv, *shape, *pool]
    return ordered, _Map(filters, end.height, end.width)


def _head(config: Cnn, features: int, classes: int) -> list[nn.Module]:
    """Return the modules that map (N, features) to (N, classes)."""
    drop = [nn.Dropout(config.dropout)] if config.dropout > 0 else []
    if config.head_width == 0:
        return [*drop, nn.Linear(features, classes)]
    hidden = [nn.Linear(features, config.head_width), activation(config.activation)]
    # Dropout holds no parameters, so the same module may stand twice.
    return [*drop, *hidden, *drop, nn.Linear(config.head_width, classes)]
