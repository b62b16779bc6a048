"""Affine maps about the centre of the image, each batch resampled once: `rotate` and `scale` are cases of `affine`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import affine_grid

from mnistlab.api import Config, Float, ImageShape, TransformFn
from mnistlab.builtin.transforms.drawing import resample, unchanged, uniform


class Rotate(Config):
    """Each image turns by its own angle."""

    degrees: Annotated[float, Float(0.0, 45.0)] = 10.0
    """Largest angle, either way."""


class Scale(Config):
    """Each image is zoomed by its own factor, as likely in as out."""

    share: Annotated[float, Float(0.0, 0.4)] = 0.1
    """The factor lies between 1 / (1 + share) and 1 + share, evenly on a logarithmic scale."""


class Affine(Config):
    """Each image is sheared, zoomed, turned and moved. One resampling is cheaper and blurs less than several."""

    degrees: Annotated[float, Float(0.0, 45.0)] = 10.0
    """Largest angle, either way."""
    shift: Annotated[float, Float(0.0, 0.25)] = 0.07
    """Furthest move along each axis, as a share of the side (0.07 of 28 pixels is 2)."""
    scale: Annotated[float, Float(0.0, 0.4)] = 0.1
    """The zoom lies between 1 / (1 + scale) and 1 + scale, evenly on a logarithmic scale."""
    shear: Annotated[float, Float(0.0, 30.0)] = 5.0
    """Largest slant in degrees, either way: how far upright strokes lean."""


def build_rotate(config: Rotate, shape: ImageShape) -> TransformFn:
    """Return the transform of images (N, C, H, W)."""
    return build_affine(Affine(degrees=config.degrees, shift=0, scale=0, shear=0), shape)


def build_scale(config: Scale, shape: ImageShape) -> TransformFn:
    """Return the transform of images (N, C, H, W)."""
    return build_affine(Affine(degrees=0, shift=0, scale=config.share, shear=0), shape)


def build_affine(config: Affine, shape: ImageShape) -> TransformFn:
    """Return the transform of images (N, C, H, W)."""
    if not any((config.degrees, config.shift, config.scale, config.shear)):
        return unchanged
    draw = _sampler(config, shape)

    def affine(images: Tensor, generator: torch.Generator) -> Tensor:
        maps = draw(uniform(images, generator, 5))
        return resample(images, affine_grid(maps, list(images.shape), align_corners=False))

    return affine


def _sampler(config: Affine, shape: ImageShape) -> Callable[[Tensor], Tensor]:
    """Return the function (N, 5) numbers from -1 to 1 -> (N, 2, 3) maps from places of the result to the image."""
    largest = (math.radians(config.degrees), math.radians(config.shear), math.log1p(config.scale))
    # Places run from -1 to 1 along both axes, whatever the sides: the map of pixels is stretched by their ratio.
    ratio = shape.height / shape.width

    def draw(numbers: Tensor) -> Tensor:
        turn, slant, zoom = (numbers[:, i] * most for i, most in enumerate(largest))
        cos, sin, lean, size = turn.cos(), turn.sin(), slant.tan(), zoom.neg().exp()
        # The inverse of: lean by the slant, zoom, then turn. Rows of the image grow downwards.
        horizontal = torch.stack([cos + lean * sin, (lean * cos - sin) * ratio], dim=1)
        vertical = torch.stack([sin / ratio, cos], dim=1)
        linear = torch.stack([horizontal, vertical], dim=1) * size[:, None, None]
        moves = numbers[:, 3:, None] * (2 * config.shift)
        # The picture moves last, so its inverse comes first: x -> linear (x - move).
        return torch.cat([linear, -linear @ moves], dim=2)

    return draw
