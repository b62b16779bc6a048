"""Its config refuses its own defaults."""

from __future__ import annotations

from typing import Annotated

from pydantic import model_validator

from mnistlab.api import Config, Int, Model, hookimpl


class Net(Config):
    width: Annotated[int, Int(1, 8)] = 4

    @model_validator(mode="after")
    def _odd(self):
        if self.width % 2 == 0:
            raise ValueError("width must be odd")
        return self


def build(config, shape):
    raise NotImplementedError


@hookimpl
def mnistlab_models():
    return [Model(name="odd-net", config=Net, build=build, summary="A net for tests.")]
