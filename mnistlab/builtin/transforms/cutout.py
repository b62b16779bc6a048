"""Cutout (DeVries & Taylor 2017): the net must not rely on one part of the digit."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from mnistlab.api import Config, ImageShape, Int, TransformFn
from mnistlab.builtin.transforms.drawing import unchanged


class Cutout(Config):
    """Each image loses one square, whose middle lies anywhere: at the border part of it falls outside."""

    size: Annotated[int, Int(0, 16)] = 8
    """Side of the square in pixels."""


def build_cutout(config: Cutout, shape: ImageShape) -> TransformFn:
    """Return the transform of images (N, C, H, W)."""
    size = config.size
    if size == 0:
        return unchanged

    def cutout(images: Tensor, generator: torch.Generator) -> Tensor:
        def band(side: int) -> Tensor:
            """Return for each image (N, side) which rows, or columns, the square covers."""
            middle = torch.randint(side, (len(images), 1), generator=generator, device=images.device)
            offset = torch.arange(side, device=images.device) - (middle - size // 2)
            return (offset >= 0) & (offset < size)

        rows, columns = band(shape.height), band(shape.width)
        return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)

    return cutout
