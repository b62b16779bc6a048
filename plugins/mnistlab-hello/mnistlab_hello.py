from typing import Annotated

from torch import nn

from mnistlab.api import Config, ImageShape, Int, Model, hookimpl


class Hello(Config):
    width: Annotated[int, Int(16, 512, log=True)] = 128


def build(config: Hello, shape: ImageShape) -> nn.Module:
    hidden, out = nn.Linear(shape.pixels, config.width), nn.Linear(config.width, shape.classes)
    return nn.Sequential(nn.Flatten(), hidden, nn.GELU(), out)


@hookimpl
def mnistlab_models() -> list[Model[Hello]]:
    return [Model(name="hello", config=Hello, build=build, summary="One hidden layer.")]
