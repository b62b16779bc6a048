"""What several families share: activations, and the check that an image is large enough."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from mnistlab.api import ImageShape
from mnistlab.errors import Fault, SpecError

SMALLEST_SIDE = 8
"""Height and width in pixels from which on every family can be built, with every plan of its domain."""

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),  # no layer before it keeps its output for the way back
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def activation(name: str) -> nn.Module:
    """Return a new activation module: relu, gelu, silu or tanh."""
    return _ACTIVATIONS[name]()


def check_shape(model: str, shape: ImageShape) -> None:
    """Make sure that `shape` can be classified by the family called `model`.

    Raises:
        SpecError: if a side is below 8 pixels, or there is no channel, or fewer than two classes.
    """
    least = {"height": SMALLEST_SIDE, "width": SMALLEST_SIDE, "channels": 1, "classes": 2}
    faults = [
        Fault(f"model.{model}", f"needs images with {name} >= {low}", getattr(shape, name), f"the nearest is {low}")
        for name, low in least.items()
        if getattr(shape, name) < low
    ]
    if faults:
        raise SpecError("the dataset's image shape", faults)
