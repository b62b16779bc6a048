"""Its config can be changed after it was read."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict

from mnistlab.api import Config, Int, Model, hookimpl


class Net(Config):
    model_config = ConfigDict(frozen=False)
    width: Annotated[int, Int(1, 8)] = 4


def build(config, shape):
    raise NotImplementedError


@hookimpl
def mnistlab_models():
    return [Model(name="net", config=Net, build=build, summary="A net for tests.")]
