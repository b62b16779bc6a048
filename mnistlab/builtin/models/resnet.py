"""A residual net with pre-activation for small images (He, Zhang, Ren, Sun 2016, "Identity mappings")."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from mnistlab.api import Choice, Config, Float, ImageShape, Int
from mnistlab.builtin.models.layers import check_shape


class ResNet(Config):
    """Stages of residual blocks; each stage after the first halves the side and doubles the filters."""

    width: Annotated[int, Int(8, 64, log=True)] = 32
    """Filters of the first stage."""
    stem_stride: Annotated[int, Choice(1, 2)] = 2
    """Step of the first convolution: 2 halves the side at once, for a quarter of the work."""
    stages: Annotated[int, Int(1, 4)] = 3
    """Number of stages. A map of fewer than 4 pixels a side is not halved any more."""
    blocks: Annotated[int, Int(1, 4)] = 1
    """Residual blocks of each stage."""
    dropout: Annotated[float, Float(0.0, 0.5)] = 0.0
    """Share of the filters' means that is dropped before the logits."""


class _Block(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))): (N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the shortcut and the residual."""
        active = relu(self.norm1(x), inplace=True)
        # Where the shape changes, the shortcut starts after the activation, as in the paper's own nets.
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return shortcut + self.conv2(relu(self.norm2(self.conv1(active)), inplace=True))


class _MeanOfMap(nn.Module):
    """(N, C, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over the pixels."""
        return torch.mean(x, dim=(2, 3))


def build_resnet(config: ResNet, shape: ImageShape) -> nn.Module:
    """Return a module (N, C, H, W) -> (N, classes).

    Raises:
        SpecError: if the images are smaller than 8 x 8.
    """
    check_shape("resnet", shape)
    layers: list[nn.Module] = [
        nn.Conv2d(shape.channels, config.width, 3, stride=config.stem_stride, padding=1, bias=False)
    ]
    side, filters = -(-min(shape.height, shape.width) // config.stem_stride), config.width
    for stage in range(config.stages):
        outputs = config.width * 2**stage
        stride = 2 if stage and side >= 4 else 1
        layers += [_Block(filters, outputs, stride)]
        layers += [_Block(outputs, outputs, 1) for _ in range(config.blocks - 1)]
        side, filters = -(-side // stride), outputs
    drop = [nn.Dropout(config.dropout)] if config.dropout > 0 else []
    head = [nn.BatchNorm2d(filters), nn.ReLU(inplace=True), _MeanOfMap(), *drop, nn.Linear(filters, shape.classes)]
    return nn.Sequential(*layers, *head)
