"""The tutorial plugin: a model in fifteen lines."""

from typing import Annotated

from torch import nn

from mnistlab.api import Config, ImageShape, Int, Model, hookimpl


class Hello(Config):
    """Type, domain and default of each setting stand on one line."""

    width: Annotated[int, Int(16, 512, log=True)] = 128


def build(config: Hello, shape: ImageShape) -> nn.Module:
    """Return a module that maps (N, C, H, W) to logits (N, classes)."""
    hidden, out = nn.Linear(shape.pixels, config.width), nn.Linear(config.width, shape.classes)
    return nn.Sequential(nn.Flatten(), hidden, nn.GELU(), out)


@hookimpl
def mnistlab_models() -> list[Model[Hello]]:
    """Offer the model to experiments as [model.hello]."""
    return [Model(name="hello", config=Hello, build=build, summary="One hidden layer.")]
