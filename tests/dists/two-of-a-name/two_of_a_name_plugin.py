"""It offers two records of one name."""

from __future__ import annotations

from typing import Annotated

from mnistlab.api import Config, Int, Model, hookimpl


class Net(Config):
    width: Annotated[int, Int(1, 8)] = 4


def build(config, shape):
    raise NotImplementedError


twin = Model(name="twin", config=Net, build=build, summary="A net for tests.")


@hookimpl
def mnistlab_models():
    return [twin, twin]
