"""timm in mnistlab: every architecture of its registry, by name or pattern. No weights are ever downloaded.

timm (Wightman 2019) builds for any number of channels and classes. Sizes are another matter: an image is enlarged,
inside the model, to the least size at which the architecture works, which is tried without weights.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mnistlab.api import Choice, Config, ImageShape, Model, hookimpl

SIZES = (16, 32, 48, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 336, 384, 448, 512)
FEWEST_PATCHES = 16  # a transformer that sees an image as one patch works, and is none


class Timm(Config):
    """The architecture, as timm writes it; the rates are passed on where they are not zero."""

    architecture: Annotated[str, Choice(*timm.list_models())] = "resnet10t"
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0


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


def build(config: Timm, shape: ImageShape) -> nn.Module:
    """Return the architecture with fresh weights.

    Raises:
        ValueError: if it works at no size up to 512 pixels, or does not know a rate that is not zero.
    """
    size, sized = working_size(config, shape)  # pyright: ignore[reportArgumentType] - a frozen config is hashable
    return Enlarged(_made(config, shape, size, sized=sized), size)


@cache
def working_size(config: Timm, shape: ImageShape) -> tuple[tuple[int, int], bool]:
    """Return the least (height, width), from the images' own upwards, at which the architecture works.

    The second value says whether it has to be told that size when it is built, as transformers have.

    Raises:
        ValueError: if there is none.
    """
    native = (shape.height, shape.width)
    last: Exception | None = None
    for size in (native, *((side, side) for side in SIZES if side > max(native))):
        for sized in (True, False):
            try:
                _try(config, shape, size, sized=sized)
            except Exception as error:
                last = error
            else:
                return size, sized
    raise ValueError(f"timm's {config.architecture} works at no size from {native} to {SIZES[-1]} pixels: {last}")


def _try(config: Timm, shape: ImageShape, size: tuple[int, int], *, sized: bool) -> None:
    """Make a forward pass on the meta device, which computes shapes and no numbers."""
    with torch.device("meta"), torch.no_grad():
        model = _made(config, shape, size, sized=sized).eval()
        found = model(torch.empty(2, shape.channels, *size))
    for part in model.modules():
        patches = getattr(part, "num_patches", None)
        if isinstance(patches, int) and patches < FEWEST_PATCHES:
            raise ValueError(f"an image of {size} is only {patches} patches")
    if not isinstance(found, Tensor) or found.shape != (2, shape.classes):
        raise ValueError("it returns something else than one row of logits an image")


def _made(config: Timm, shape: ImageShape, size: tuple[int, int], *, sized: bool) -> nn.Module:
    extras: dict[str, Any] = {"drop_rate": config.drop_rate, "drop_path_rate": config.drop_path_rate}
    extras = {name: value for name, value in extras.items() if value}
    if sized:
        extras["img_size"] = size
    return timm.create_model(
        config.architecture, pretrained=False, in_chans=shape.channels, num_classes=shape.classes, **extras
    )


@hookimpl
def mnistlab_models() -> list[Model[Timm]]:
    """Offer timm's registry as one model, chosen by `architecture`."""
    return [Model(name="timm", config=Timm, build=build, summary="Any architecture of timm.")]
