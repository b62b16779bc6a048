"""torchvision's classification models for small images of any number of channels. No weights are ever downloaded.

The architectures were made for photographs of 224 pixels. What is adapted is found on the model itself: its first
convolution, the pooling that follows it, and the least size of image at which it still works.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision import models

from mnistlab.api import Choice, Config, ImageShape

ARCHITECTURES = tuple(models.list_models(module=models))
SIZES = (16, 24, 32, 48, 64, 96, 128, 224, 299)  # what an image may be enlarged to
ANY_SIZE = "regnet_"  # convolutions and a mean: no size is too small, and its widths can't be computed without numbers
FIXED_STEM = "maxvit_t"  # its blocks are cut for the resolution that its own stem leaves
TOKENS = 4  # a vision transformer of fixed size sees its image as so many patches squared


class Torchvision(Config):
    """The architecture, as torchvision writes it, and how the image enters.

    The small stem keeps the resolution: the first convolution has stride 1 and the pooling after it is left out, as is
    usual for images of 32 pixels (He et al. 2016, section 4.2). Stems that cut the image into patches stay as they are.
    """

    architecture: Annotated[str, Choice(*ARCHITECTURES)] = "shufflenet_v2_x0_5"
    stem: Annotated[str, Choice("small", "original")] = "small"


class Enlarged(nn.Module):
    """A model behind an enlargement of its images to `size` pixels, for architectures that need more than there is."""

    def __init__(self, model: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, C, H, W)."""
        if images.shape[-2:] == self.size:
            return self.model(images)
        return self.model(interpolate(images, self.size, mode="bilinear", antialias=True))


def build(config: Torchvision, shape: ImageShape) -> nn.Module:
    """Return the architecture with fresh weights.

    Raises:
        ValueError: if it works at no size up to 299 pixels.
    """
    size = working_size(config, shape)  # pyright: ignore[reportArgumentType] - a frozen config is hashable
    return Enlarged(_adapted(config, shape, size), size)


@cache
def working_size(config: Torchvision, shape: ImageShape) -> tuple[int, int]:
    """Return the least (height, width) from the images' own upwards at which the model works, tried without weights.

    Raises:
        ValueError: if there is none up to 299 pixels.
    """
    native = (shape.height, shape.width)
    if config.architecture.startswith(ANY_SIZE):
        return native
    for size in (native, *((side, side) for side in SIZES if side > max(native))):
        if _works(config, shape, size):
            return size
    raise ValueError(f"torchvision's {config.architecture} works at no size from {native} to {SIZES[-1]} pixels")


def _works(config: Torchvision, shape: ImageShape, size: tuple[int, int]) -> bool:
    """Return whether a forward pass succeeds on the meta device, which computes shapes and no numbers."""
    try:
        with torch.device("meta"), torch.no_grad():
            model = _adapted(config, shape, size).eval()
            return model(torch.empty(2, shape.channels, *size)).shape == (2, shape.classes)
    except (RuntimeError, ValueError, AssertionError):  # what torchvision raises for an image that is too small
        return False


def _adapted(config: Torchvision, shape: ImageShape, size: tuple[int, int]) -> nn.Module:
    extras = _arguments(config.architecture, size)
    model = models.get_model(config.architecture, weights=None, num_classes=shape.classes, **extras)
    _replace_stem(model, shape.channels, small=config.stem == "small" and config.architecture != FIXED_STEM)
    return model


def _arguments(architecture: str, size: tuple[int, int]) -> dict[str, Any]:
    """Return what a family's constructor needs beside the number of classes."""
    if architecture in {"googlenet", "inception_v3"}:  # their extra heads would change what forward returns
        return {"aux_logits": False, "init_weights": False, "transform_input": False}
    if architecture.startswith("vit_"):
        patch = int(architecture.rpartition("_")[2])
        if size != (patch * TOKENS, patch * TOKENS) and size[0] % patch:
            raise ValueError(f"images of {size} pixels can't be cut into patches of {patch}")
        return {"image_size": size[0]}
    return {"input_size": size} if architecture == "maxvit_t" else {}


def _replace_stem(model: nn.Module, channels: int, *, small: bool) -> None:
    """Give the first convolution the images' channels; make it and the pooling right after it keep the resolution."""
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.MaxPool2d))]
    name, first = layers[0]
    conv = cast("nn.Conv2d", first)
    patches = conv.stride == conv.kernel_size
    stride = (1, 1) if small and not patches else cast("tuple[int, int]", conv.stride)
    made = nn.Conv2d(
        channels,
        conv.out_channels,
        cast("tuple[int, int]", conv.kernel_size),
        stride=stride,
        padding=cast("tuple[int, int]", conv.padding),
        bias=conv.bias is not None,
    )
    model.set_submodule(name, made)
    for (_, before), (after, pool) in pairwise(layers[:2]):
        if small and isinstance(before, nn.Conv2d) and isinstance(pool, nn.MaxPool2d):
            model.set_submodule(after, nn.Identity())
