"""Move by whole pixels, which blurs nothing and costs next to nothing."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import pad

from mnistlab.api import Config, ImageShape, Int, TransformFn
from mnistlab.builtin.transforms.drawing import unchanged


class Shift(Config):
    """Each image moves by its own number of pixels, down and to the right, each from -pixels to pixels."""

    pixels: Annotated[int, Int(0, 6)] = 2
    """Furthest move along each axis; what comes in from outside is black."""


def build_shift(config: Shift, shape: ImageShape) -> TransformFn:
    """Return the transform of images (N, C, H, W)."""
    reach = config.pixels
    if reach == 0:
        return unchanged

    def shift(images: Tensor, generator: torch.Generator) -> Tensor:
        device = images.device
        rows, columns = torch.randint(2 * reach + 1, (2, len(images)), generator=generator, device=device)
        # Every shifted image is a window of the padded one: a view (N, C, rows, columns, H, W), then one gather.
        windows = pad(images, (reach,) * 4).unfold(2, shape.height, 1).unfold(3, shape.width, 1)
        return windows[torch.arange(len(images), device=device), :, rows, columns]

    return shift
