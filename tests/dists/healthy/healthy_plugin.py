"""A plugin as it should be."""

from __future__ import annotations

from typing import Annotated

from mnistlab.api import Config, Int, Model, hookimpl


class Net(Config):
    width: Annotated[int, Int(1, 8)] = 4


def build(config, shape):
    raise NotImplementedError


@hookimpl
def mnistlab_models():
    return [Model(name="tiny-net", config=Net, build=build, summary="A net for tests.")]
