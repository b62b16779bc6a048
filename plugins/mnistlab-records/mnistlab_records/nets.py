"""The nets. Their defaults are the published ones; the other settings lead away from them.

Where an image has become smaller than the kernel of a convolution without padding, the convolution keeps the size of
the map ("same" padding) instead, so that every net can be built for images of any size. On the 28 x 28 pixels of the
papers that never happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

from torch import Tensor, nn
from torch.nn.functional import relu

from mnistlab.api import Config, Float, ImageShape, Int, Model


class AnNet(Config):
    """A net of An et al. 2020 (arXiv:2008.10400)."""

    width: Annotated[float, Float(0.25, 2.0, log=True)] = 1.0
    """Factor on the number of channels of every layer; 1 is the published net."""


class Reference(Config):
    """C. Deotte's net (repository cdeotte/MNIST-CNN-99.75)."""

    width: Annotated[float, Float(0.25, 2.0, log=True)] = 1.0
    """Factor on the number of channels of every layer; 1 is the published net."""
    dropout: Annotated[float, Float(0.0, 0.6)] = 0.4
    """Share that is dropped after each of the three parts; 0.4 is published."""


class Preact(Config):
    """Pre-activation ResNet of 6 `blocks` + 2 layers (He et al. 2016, arXiv:1603.05027)."""

    blocks: Annotated[int, Int(1, 5)] = 3
    """Residual blocks of each of the three stages; 3 is ResNet-20."""
    width: Annotated[int, Int(8, 64, log=True)] = 16
    """Channels of the first stage, doubled by each later one."""


class Thrifty(Config):
    """The net of 697 parameters (repository JoshWarn/Parameter-Efficient-MNIST)."""

    dropout: Annotated[float, Float(0.0, 0.3)] = 0.05
    """Share that is dropped after each separable convolution but the last; 0.05 is published."""


# --- parts --------------------------------------------------------------------------------------------------------


class Stack:
    """Layers in the making, and the size (`channels`, `height`, `width`) of the map that they lead to."""

    def __init__(self, shape: ImageShape) -> None:
        self.layers: list[nn.Module] = []
        self.channels, self.height, self.width = shape.channels, shape.height, shape.width

    @property
    def features(self) -> int:
        """Return how many numbers the map holds."""
        return self.channels * self.height * self.width

    def add(self, *layers: nn.Module) -> None:
        """Append layers that keep the size of the map."""
        self.layers += layers

    def conv(self, out: int, kernel: int, *, bias: bool = True, groups: int = 1) -> None:
        """Append a convolution without padding, or, where the map has become smaller than `kernel`, with."""
        fits = min(self.height, self.width) >= kernel
        padding = "valid" if fits else "same"
        self.add(nn.Conv2d(self.channels, out, kernel, padding=padding, bias=bias, groups=groups))
        self.channels, lost = out, (kernel - 1) * fits
        self.height, self.width = self.height - lost, self.width - lost

    def strided(self, kernel: int) -> None:
        """Append a convolution of step 2 over a padded map, which halves the map."""
        self.add(nn.Conv2d(self.channels, self.channels, kernel, stride=2, padding=kernel // 2))
        self._halve()

    def pool(self) -> None:
        """Append the maximum over 2 x 2 pixels."""
        self.add(nn.MaxPool2d(2, ceil_mode=True))
        self._halve()

    def _halve(self) -> None:
        self.height, self.width = -(-self.height // 2), -(-self.width // 2)

    def head(self, classes: int, *, bias: bool = True) -> None:
        """Append the linear layer to the logits."""
        self.add(nn.Flatten(), nn.Linear(self.features, classes, bias=bias))


class PreactBlock(nn.Module):
    """Batch norm and ReLU before each of two convolutions: (N, inputs, H, W) -> (N, outputs, H / step, W / step).

    In the first block of a stage the shortcut, too, starts after the first ReLU, as in the paper's own nets.
    """

    def __init__(self, inputs: int, outputs: int, step: int, *, first: bool) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, step, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, step, bias=False)
        self.first = first

    def forward(self, maps: Tensor) -> Tensor:
        """Return the sum of the shortcut and the residual."""
        active = relu(self.norm1(maps))
        residual = self.conv2(relu(self.norm2(self.conv1(active))))
        return self.shortcut(active if self.first else maps) + residual


class GlobalMean(nn.Module):
    """The mean over each feature map."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, C) of (N, C, H, W)."""
        return maps.mean(dim=(2, 3))


def scaled(channels: int, factor: float) -> int:
    """Return `factor` times so many channels, at least one."""
    return max(1, round(channels * factor))


def keras_norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm with the defaults of Keras, by which those nets were trained."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def start_like_keras(module: nn.Module) -> nn.Module:
    """Draw the weights as Keras does by default (Glorot & Bengio 2010), set the biases to 0, return the module."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:  # pyright: ignore[reportUnnecessaryComparison] - torch's stubs say it never is
                nn.init.zeros_(part.bias)
    return module


# --- nets ---------------------------------------------------------------------------------------------------------


def an_net(kernel: int, channels: Iterable[int]) -> Callable[[AnNet, ImageShape], nn.Module]:
    """Return the build function of M3, M5 or M7: convolutions without padding, batch norm also on the logits."""

    def build(config: AnNet, shape: ImageShape) -> nn.Module:
        stack = Stack(shape)
        for published in channels:
            out = scaled(published, config.width)
            stack.conv(out, kernel, bias=False)
            stack.add(nn.BatchNorm2d(out), nn.ReLU(inplace=True))
        stack.head(shape.classes, bias=False)
        return nn.Sequential(*stack.layers, nn.BatchNorm1d(shape.classes))

    return build


def build_reference(config: Reference, shape: ImageShape) -> nn.Module:
    """Return C. Deotte's net: strided convolutions instead of pooling, ReLU before batch norm."""
    stack = Stack(shape)

    def activate() -> None:
        stack.add(nn.ReLU(inplace=True), keras_norm(stack.channels))

    for published in (32, 64):
        for _ in range(2):
            stack.conv(scaled(published, config.width), 3)
            activate()
        stack.strided(5)
        activate()
        stack.add(nn.Dropout(config.dropout))
    stack.conv(scaled(128, config.width), 4)
    activate()
    stack.add(nn.Dropout(config.dropout))
    stack.head(shape.classes)
    return start_like_keras(nn.Sequential(*stack.layers))


def build_preact(config: Preact, shape: ImageShape) -> nn.Module:
    """Return the pre-activation ResNet: three stages, of which the second and the third halve the map."""
    layers: list[nn.Module] = [nn.Conv2d(shape.channels, config.width, 3, padding=1, bias=False)]
    inputs = config.width
    for stage in range(3):
        for block in range(config.blocks):
            outputs, first = config.width * 2**stage, block == 0
            layers.append(PreactBlock(inputs, outputs, 2 if stage and first else 1, first=first))
            inputs = outputs
    head = nn.Linear(inputs, shape.classes)
    nn.init.zeros_(head.bias)
    net = nn.Sequential(*layers, nn.BatchNorm2d(inputs), nn.ReLU(), GlobalMean(), head)
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out")
    return net


def build_thrifty(config: Thrifty, shape: ImageShape) -> nn.Module:
    """Return a convolution and four separable ones with 6, 5, 9, 10 and 8 channels.

    697 parameters are those with a bias in the first convolution, in each pointwise one and in the linear layer, and
    none in the depthwise ones.
    """
    stack = Stack(shape)
    first = nn.Conv2d(shape.channels, 6, 3, padding=1)
    stack.add(first, nn.LeakyReLU(0.2))
    stack.channels = 6
    stack.pool()
    for out in (5, 9, 10, 8):
        stack.conv(stack.channels, 3, bias=False, groups=stack.channels)
        stack.conv(out, 1)
        stack.add(nn.LeakyReLU(0.2))
        if out != 8:
            stack.add(nn.Dropout(config.dropout))
    net = start_like_keras(nn.Sequential(*stack.layers, GlobalMean(), nn.Linear(8, shape.classes)))
    nn.init.kaiming_normal_(first.weight)  # the one layer for which the source names an initialisation that is used
    return net


def records() -> list[Model[Any]]:
    """Return the six records."""
    m3, m5, m7 = an_net(3, range(32, 177, 16)), an_net(5, range(32, 161, 32)), an_net(7, range(48, 193, 48))
    return [
        Model(name="m3", config=AnNet, build=m3, summary="Ten 3x3 convolutions (An et al. 2020)."),
        Model(name="m5", config=AnNet, build=m5, summary="Five 5x5 convolutions (An et al. 2020)."),
        Model(name="m7", config=AnNet, build=m7, summary="Four 7x7 convolutions (An et al. 2020)."),
        Model(name="reference-net", config=Reference, build=build_reference, summary="The net of 1,500 honest runs."),
        Model(name="preact-resnet20", config=Preact, build=build_preact, summary="Pre-activation ResNet (He 2016)."),
        Model(name="thrifty-net", config=Thrifty, build=build_thrifty, summary="99 % with 697 parameters."),
    ]
