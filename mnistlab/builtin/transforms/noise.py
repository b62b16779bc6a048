"""Gaussian noise on each pixel."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from mnistlab.api import Config, Float, ImageShape, TransformFn
from mnistlab.builtin.transforms.drawing import unchanged


class Noise(Config):
    """Each pixel gets its own noise; the result is cut to [0, 1]."""

    sigma: Annotated[float, Float(0.0, 0.5)] = 0.1
    """Standard deviation, where black is 0 and white is 1."""


def build_noise(config: Noise, shape: ImageShape) -> TransformFn:  # noqa: ARG001  (it works for any shape)
    """Return the transform of images (N, C, H, W)."""
    if config.sigma == 0:
        return unchanged

    def noise(images: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        return drawn.mul_(config.sigma).add_(images).clamp_(0, 1)

    return noise
