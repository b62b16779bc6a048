"""What the transforms share: random numbers, constants, doing nothing, and resampling."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def unchanged(images: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001  (a TransformFn takes both)
    """Return `images`: what a transform of strength 0 does. It draws nothing."""
    return images


def uniform(images: Tensor, generator: torch.Generator, *sizes: int) -> Tensor:
    """Return numbers from -1 to 1 of shape (N, *sizes), with the dtype and device of `images`."""
    numbers = torch.rand(len(images), *sizes, generator=generator, device=images.device, dtype=images.dtype)
    return numbers.mul_(2).sub_(1)


def kept_beside(*constants: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return the function images -> `constants` with the dtype of the images and on their device.

    They are copied there once: a copy at each batch would make a GPU wait for the host.
    """

    @lru_cache(maxsize=1)
    def copied(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
        return tuple(constant.to(device, dtype) for constant in constants)

    return lambda images: copied(images.device, images.dtype)


def resample(images: Tensor, grid: Tensor) -> Tensor:
    """Return `images` (N, C, H, W) read bilinearly at `grid` (N, H, W, 2), (x, y) from -1 to 1; black outside."""
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
