"""The data transforms. Each works on a whole batch on its device and draws other values for each image."""

from __future__ import annotations

from typing import Any

from mnistlab.api import Transform, hookimpl
from mnistlab.builtin.transforms.cutout import Cutout, build_cutout
from mnistlab.builtin.transforms.elastic import Elastic, build_elastic
from mnistlab.builtin.transforms.geometry import Affine, Rotate, Scale, build_affine, build_rotate, build_scale
from mnistlab.builtin.transforms.noise import Noise, build_noise
from mnistlab.builtin.transforms.shift import Shift, build_shift


@hookimpl
def mnistlab_transforms() -> list[Transform[Any]]:
    """Return the built-in transforms."""
    return [
        Transform(name="shift", config=Shift, build=build_shift, summary="Move by whole pixels; the cheapest."),
        Transform(name="rotate", config=Rotate, build=build_rotate, summary="Turn about the centre."),
        Transform(name="scale", config=Scale, build=build_scale, summary="Zoom in or out about the centre."),
        Transform(name="affine", config=Affine, build=build_affine, summary="Turn, move, zoom and shear in one go."),
        Transform(name="elastic", config=Elastic, build=build_elastic, summary="Smooth warps (Simard 2003)."),
        Transform(name="cutout", config=Cutout, build=build_cutout, summary="Blank a square (DeVries & Taylor 2017)."),
        Transform(name="noise", config=Noise, build=build_noise, summary="Add Gaussian noise to each pixel."),
    ]
