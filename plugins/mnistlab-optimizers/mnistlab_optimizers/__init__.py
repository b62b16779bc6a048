"""Optimizers of two libraries in mnistlab: schedulefree, and pytorch-optimizer with its hundred."""

from typing import Any

from mnistlab.api import Optimizer, hookimpl
from mnistlab_optimizers import collection, free


@hookimpl
def mnistlab_optimizers() -> list[Optimizer[Any]]:
    """Offer `schedulefree-adamw` and its like, and every optimizer of pytorch-optimizer that needs nothing special."""
    return [*free.records(), *collection.records()]
