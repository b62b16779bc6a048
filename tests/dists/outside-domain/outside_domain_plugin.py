"""Its default lies outside its own domain."""

from __future__ import annotations

from typing import Annotated

from mnistlab.api import Config, Int, Model, hookimpl


class Net(Config):
    width: Annotated[int, Int(1, 8)] = 99


def build(config, shape):
    raise NotImplementedError


@hookimpl
def mnistlab_models():
    return [Model(name="wide-net", config=Net, build=build, summary="A net for tests.")]
