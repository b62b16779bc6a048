"""torchvision's classification models for small images of any number of channels. No weights are ever downloaded.

The architectures were made for photographs of 224 pixels. What is adapted is found on the model itself: its first
convolution, the pooling that follows it, its last layer, and the least size of image at which it still works.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Annotated, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision import models

from mnistlab.api import Choice, Config, Float, ImageShape

ARCHITECTURES = tuple(models.list_models(module=models))
RGB = ImageShape(3, 224, 224, 1000)  # what the architectures were made for; sizes depend on neither colours nor classes
SIZES = (16, 24, 32, 48, 64, 96, 128, 224, 299)  # what an image may be enlarged to

# The exceptions, each with its reason.
ANY_SIZE = "regnet_"  # convolutions and a mean: no size is too small, and its widths can't be computed without numbers
AUXILIARY = ("googlenet", "inception_v3")  # their extra heads would change what forward returns
VISION_TRANSFORMER = "vit_"  # built for one size, a multiple of its patch
FEWEST_PATCHES = 4  # along a side: a transformer that sees an image as one patch works, and is none
MAXVIT = "maxvit_t"  # built for one size; cut into windows of 7 after five halvings, also by its own stem
MAXVIT_UNIT = 7 * 2**5


class Torchvision(Config):
    """The architecture, as torchvision writes it, how the image enters, and how the classes are told apart."""

    architecture: Annotated[str, Choice(*ARCHITECTURES)] = "shufflenet_v2_x0_5"
    """The name of one of torchvision's classification models; a pattern stands for several: "resnet*"."""
    stem: Annotated[str, Choice("small", "original")] = "small"
    """small: the first convolution keeps the resolution and the pooling after it is left out, as is usual for images
    of 32 pixels (He et al. 2016, section 4.2). Stems that cut the image into patches are always the original ones."""
    dropout: Annotated[float, Float(0.0, 0.5)] = 0.0
    """Share of the features that is dropped before the last layer, besides what the architecture drops by itself."""


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
    size = working_size(config.architecture, config.stem, (shape.height, shape.width))
    return Enlarged(_adapted(config, shape, size), size)


# --- the size ---------------------------------------------------------------------------------------------------------


@cache
def working_size(architecture: str, stem: str, native: tuple[int, int]) -> tuple[int, int]:
    """Return the least (height, width) from the images' own upwards at which the model gives a row of logits an image.

    A convolutional net is tried on the meta device, which computes shapes and no numbers.

    Raises:
        ValueError: if there is none up to 299 pixels; the message is that of the largest size.
    """
    if architecture.startswith(ANY_SIZE):
        return native
    if side := _side_of_transformer(architecture, max(native)):
        return (side, side)
    fault = ""
    for size in (native, *((side, side) for side in SIZES if side > max(native))):
        try:
            with torch.no_grad():
                found = _skeleton(architecture, stem)(torch.empty(2, RGB.channels, *size, device="meta"))
        except (RuntimeError, ValueError) as error:  # what torch raises for an image that is too small
            fault = str(error)
            continue
        if found.shape == (2, RGB.classes):
            return size
    raise ValueError(f"torchvision's {architecture} works at no size from {native} to {SIZES[-1]} pixels: {fault}")


@lru_cache(maxsize=1)
def _skeleton(architecture: str, stem: str) -> nn.Module:
    """Return the architecture without numbers, in evaluation mode."""
    with torch.device("meta"):
        return _adapted(Torchvision(architecture=architecture, stem=stem), RGB, (RGB.height, RGB.width)).eval()


def _side_of_transformer(architecture: str, native: int) -> int:
    """Return the least side of `native` pixels or more that a transformer of fixed size is built for; 0 for others."""
    if architecture.startswith(VISION_TRANSFORMER):
        patch = int(architecture.rpartition("_")[2])
        return patch * max(FEWEST_PATCHES, math.ceil(native / patch))
    return MAXVIT_UNIT * math.ceil(native / MAXVIT_UNIT) if architecture == MAXVIT else 0


# --- the model --------------------------------------------------------------------------------------------------------


def _adapted(config: Torchvision, shape: ImageShape, size: tuple[int, int]) -> nn.Module:
    extras = _arguments(config.architecture, size)
    model = models.get_model(config.architecture, weights=None, num_classes=shape.classes, **extras)
    _replace_stem(model, shape.channels, small=config.stem == "small" and config.architecture != MAXVIT)
    if config.dropout:
        _drop_before_the_last_layer(model, config.dropout)
    return model


def _arguments(architecture: str, size: tuple[int, int]) -> dict[str, Any]:
    """Return what a family's constructor needs beside the number of classes."""
    if architecture in AUXILIARY:
        return {"aux_logits": False, "init_weights": False, "transform_input": False}
    if architecture.startswith(VISION_TRANSFORMER):
        return {"image_size": size[0]}
    return {"input_size": size} if architecture == MAXVIT else {}


def _replace_stem(model: nn.Module, channels: int, *, small: bool) -> None:
    """Give the first convolution the images' channels; where `small`, let a stem that shrinks the image not do so."""
    layers = [(name, part) for name, part in model.named_modules() if isinstance(part, (nn.Conv2d, nn.MaxPool2d))]
    (name, conv), *others = cast("list[tuple[str, Any]]", layers)
    shrinks = conv.stride not in {(1, 1), conv.kernel_size}  # the latter cuts patches
    keep = small and shrinks
    made = nn.Conv2d(
        channels,
        conv.out_channels,
        conv.kernel_size,
        stride=(1, 1) if keep else conv.stride,
        padding=conv.padding,
        bias=conv.bias is not None,
    )
    model.set_submodule(name, made)
    if keep and isinstance(others[0][1], nn.MaxPool2d):
        model.set_submodule(others[0][0], nn.Identity())


def _drop_before_the_last_layer(model: nn.Module, share: float) -> None:
    """Put a dropout before the layer that tells the classes apart: a linear one, in SqueezeNet a convolution."""
    layers = [(name, part) for name, part in model.named_modules() if isinstance(part, (nn.Linear, nn.Conv2d))]
    name, last = layers[-1]
    model.set_submodule(name, nn.Sequential(nn.Dropout(share), last))
