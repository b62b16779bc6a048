"""The nets. Where an image has become smaller than a kernel, a convolution that is "valid" in its paper pads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, relu

from mnistlab.api import Config, Float, ImageShape, Int, Model


class Plain(Config):
    """A net that is exactly the published one."""


class Reference(Config):
    """The reference net; 0.4 is the published dropout."""

    dropout: Annotated[float, Float(0.0, 0.6)] = 0.4


class Preact(Config):
    """Pre-activation ResNet of depth 6 n + 2; n = 3 and width 16 are ResNet-20."""

    blocks: Annotated[int, Int(1, 5)] = 3
    width: Annotated[int, Int(8, 64, log=True)] = 16


class Thrifty(Config):
    """A net of 697 parameters; 0.05 is the published dropout."""

    dropout: Annotated[float, Float(0.0, 0.3)] = 0.05


class Trimmed:
    """The side of the feature map while a net is being put together."""

    def __init__(self, shape: ImageShape) -> None:
        self.height, self.width, self.channels = shape.height, shape.width, shape.channels

    def conv(self, out: int, kernel: int, *, bias: bool = True, groups: int = 1) -> nn.Conv2d:
        """Return a convolution without padding, or with, where the map has become too small."""
        fits = min(self.height, self.width) >= kernel
        made = nn.Conv2d(self.channels, out, kernel, padding="valid" if fits else "same", bias=bias, groups=groups)
        self.height, self.width = (side - (kernel - 1) * fits for side in (self.height, self.width))
        self.channels = out
        return made

    def halve(self, out: int, kernel: int) -> nn.Conv2d:
        """Return a convolution of stride 2 that keeps half of the map."""
        made = nn.Conv2d(self.channels, out, kernel, stride=2, padding=kernel // 2)
        self.height, self.width, self.channels = -(-self.height // 2), -(-self.width // 2), out
        return made


def an_net(kernel: int, channels: Sequence[int], shape: ImageShape) -> nn.Module:
    """Return M3, M5 or M7 of An et al. 2020 (arXiv:2008.10400): convolutions only, batch norm also on the logits."""
    side, layers = Trimmed(shape), list[nn.Module]()
    for out in channels:
        layers += [side.conv(out, kernel, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    flat = side.channels * side.height * side.width
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(flat, shape.classes, bias=False), nn.BatchNorm1d(shape.classes)
    )


def build_m3(_config: Plain, shape: ImageShape) -> nn.Module:
    """Return M3: ten layers of 3x3, 32 to 176 channels."""
    return an_net(3, range(32, 177, 16), shape)


def build_m5(_config: Plain, shape: ImageShape) -> nn.Module:
    """Return M5: five layers of 5x5."""
    return an_net(5, (32, 64, 96, 128, 160), shape)


def build_m7(_config: Plain, shape: ImageShape) -> nn.Module:
    """Return M7: four layers of 7x7."""
    return an_net(7, (48, 96, 144, 192), shape)


def build_reference(config: Reference, shape: ImageShape) -> nn.Module:
    """Return the net of C. Deotte's 1,500 trainings: strided convolutions for pooling, ReLU before batch norm."""
    side, layers = Trimmed(shape), list[nn.Module]()
    for out in (32, 64):
        for made in (side.conv(out, 3), side.conv(out, 3), side.halve(out, 5)):
            layers += [made, nn.ReLU(), nn.BatchNorm2d(out)]
        layers.append(nn.Dropout(config.dropout))
    layers += [side.conv(128, 4), nn.ReLU(), nn.BatchNorm2d(128), nn.Flatten(), nn.Dropout(config.dropout)]
    return nn.Sequential(*layers, nn.Linear(128 * side.height * side.width, shape.classes))


class PreactBlock(nn.Module):
    """Batch norm and ReLU before each of two convolutions (He et al. 2016, arXiv:1603.05027)."""

    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inside), nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(out), nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inside, out, 1, stride, bias=False) if inside != out else None

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, out, H / stride, W / stride)."""
        active = relu(self.norm1(images))
        rest = images if self.shortcut is None else self.shortcut(active)
        return rest + self.conv2(relu(self.norm2(self.conv1(active))))


class GlobalMean(nn.Module):
    """The mean over each feature map."""

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, C) of (N, C, H, W)."""
        return adaptive_avg_pool2d(images, 1).flatten(1)


def build_preact(config: Preact, shape: ImageShape) -> nn.Module:
    """Return the pre-activation ResNet: three stages of doubling width, each but the first halving the map."""
    inside, layers = config.width, list[nn.Module]()
    for stage in range(3):
        for block in range(config.blocks):
            out = config.width * 2**stage
            layers.append(PreactBlock(inside, out, 2 if stage and not block else 1))
            inside = out
    stem = nn.Conv2d(shape.channels, config.width, 3, padding=1, bias=False)
    return nn.Sequential(
        stem, *layers, nn.BatchNorm2d(inside), nn.ReLU(), GlobalMean(), nn.Linear(inside, shape.classes)
    )


def build_thrifty(config: Thrifty, shape: ImageShape) -> nn.Module:
    """Return a convolution and four separable ones with 6, 5, 9, 10 and 8 channels."""
    side = Trimmed(shape)
    layers: list[nn.Module] = [nn.Conv2d(shape.channels, 6, 3, padding=1), nn.MaxPool2d(2)]
    side.height, side.width, side.channels = shape.height // 2, shape.width // 2, 6
    for out in (5, 9, 10, 8):
        depthwise = side.conv(side.channels, 3, bias=False, groups=side.channels)
        layers += [depthwise, side.conv(out, 1), nn.LeakyReLU(0.2)]
        layers += [nn.Dropout(config.dropout)] * (out != 8)
    return nn.Sequential(*layers, GlobalMean(), nn.Linear(8, shape.classes))


def records() -> list[Model[Any]]:
    """Return the six records."""
    return [
        Model(name="m3", config=Plain, build=build_m3, summary="Ten 3x3 convolutions (An et al. 2020)."),
        Model(name="m5", config=Plain, build=build_m5, summary="Five 5x5 convolutions (An et al. 2020)."),
        Model(name="m7", config=Plain, build=build_m7, summary="Four 7x7 convolutions (An et al. 2020)."),
        Model(name="reference-net", config=Reference, build=build_reference, summary="The net of 1,500 honest runs."),
        Model(name="preact-resnet20", config=Preact, build=build_preact, summary="Pre-activation ResNet (He 2016)."),
        Model(name="thrifty-net", config=Thrifty, build=build_thrifty, summary="99 % with 697 parameters."),
    ]
