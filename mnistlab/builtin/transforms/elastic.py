"""Elastic distortion (Simard, Steinkraus, Platt 2003): each pixel is fetched from a little beside its place."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import affine_grid

from mnistlab.api import Config, Float, ImageShape, TransformFn
from mnistlab.builtin.transforms.drawing import kept_beside, resample, unchanged


class Elastic(Config):
    """Each image is warped by its own smooth random field.

    Unlike in the paper, `alpha` is measured after smoothing, so that it does not have to follow `sigma`: the paper's
    alpha 34 at sigma 4 is about 1.4 here.
    """

    alpha: Annotated[float, Float(0.0, 3.0)] = 1.0
    """Root mean square of the displacement along each axis, in pixels."""
    sigma: Annotated[float, Float(2.0, 8.0)] = 4.0
    """Smoothness: standard deviation in pixels of the Gaussian that blurs the random field."""


def build_elastic(config: Elastic, shape: ImageShape) -> TransformFn:
    """Return the transform of images (N, C, H, W)."""
    if config.alpha == 0:
        return unchanged
    # Places run from -1 to 1 along each axis: a pixel is 2 / side.
    pixel = torch.tensor([2 / shape.width, 2 / shape.height]) * config.alpha
    straight = affine_grid(torch.eye(2, 3)[None], [1, 1, shape.height, shape.width], align_corners=False)
    constants = kept_beside(straight, pixel, _blur(shape.height, config.sigma), _blur(shape.width, config.sigma).T)

    def elastic(images: Tensor, generator: torch.Generator) -> Tensor:
        N, _, H, W = images.shape
        straight, pixel, down, across = constants(images)
        noise = torch.randn(N, 2, H, W, generator=generator, device=images.device, dtype=images.dtype)
        smooth = down @ noise @ across
        return resample(images, straight + smooth.permute(0, 2, 3, 1) * pixel)

    return elastic


def _blur(side: int, sigma: float) -> Tensor:
    """Return the matrix (side, side) that blurs noise of variance 1 into smooth noise of variance 1.

    A matrix, and not a convolution, because its rows can be scaled one by one: the edges move as far as the middle.
    """
    places = torch.arange(side, dtype=torch.float64)
    rows = torch.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))
    return (rows / rows.norm(dim=1, keepdim=True)).float()
