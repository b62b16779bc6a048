"""torchvision in mnistlab: one model record for all of its architectures, one transform record for each v2 class."""

from typing import Any

from mnistlab.api import Model, Transform, hookimpl
from mnistlab_torchvision.models import Torchvision, build
from mnistlab_torchvision.transforms import records


@hookimpl
def mnistlab_models() -> list[Model[Torchvision]]:
    """Offer every classification model of torchvision, chosen by `architecture`."""
    return [Model(name="torchvision", config=Torchvision, build=build, summary="Any torchvision classification model.")]


@hookimpl
def mnistlab_transforms() -> list[Transform[Any]]:
    """Offer every transform of `torchvision.transforms.v2` that keeps the form of an image."""
    return records()
