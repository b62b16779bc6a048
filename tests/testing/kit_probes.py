"""Small good plugins for the kit's own tests, which break one rule of them each."""

from __future__ import annotations

import types
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from torch import nn

from mnistlab import api
from mnistlab.api import Config, DatasetInfo, Float, ImageShape, Int, LabelledImages
from mnistlab.plugins.registry import Offer

SMALL = (ImageShape(1, 8, 8, 4),)


class Width(Config):
    width: Annotated[int, Int(4, 16)] = 8


class Lr(Config):
    lr: Annotated[float, Float(0.001, 0.1, log=True)] = 0.05


def offer(kind: str, config: type[Config] = Width, **parts: Any) -> Offer:
    record = getattr(api, kind.capitalize())(name="probe", config=config, summary="A probe.", **parts)
    return Offer(kind, record, "tests", "1")


def contract(cls: type, **settings: Any) -> Any:
    return type("Tried", (cls,), {"plugin": "tests", "shapes": SMALL, "samples": 2, **settings})()


def fails(message: str, check: Any, *arguments: Any) -> None:
    with pytest.raises(AssertionError, match=message):
        check(*arguments)


class Net(nn.Module):
    """A good model."""

    def __init__(self, config: Width, shape: ImageShape) -> None:
        super().__init__()
        self.first = nn.Linear(shape.pixels, config.width)
        self.norm = nn.BatchNorm1d(config.width)
        self.last = nn.Linear(config.width, shape.classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(images.flatten(1)))))


class HidesState(Net):
    """A model with weights that no state_dict and no torch.func sees."""

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.hidden = torch.randn(shape.classes)

    def forward(self, images):
        return super().forward(images) + self.hidden


class Sgd:
    """A good stepper."""

    def __init__(self, config: Lr, module: nn.Module, total: int) -> None:
        self.optimizer = torch.optim.SGD(self.chosen(module), lr=config.lr, momentum=0.5)

    def chosen(self, module: nn.Module) -> Any:
        return list(module.parameters())

    def step(self) -> None:
        self.optimizer.step()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.optimizer.state_dict()["state"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def drawn(split: str, count: int) -> LabelledImages:
    generator = np.random.default_rng(len(split))
    images = generator.integers(256, size=(count, 1, 4, 4), dtype=np.uint8)
    return LabelledImages(images=images, labels=np.arange(count, dtype=np.int64) % 2)


def prepare(config, place) -> DatasetInfo:
    shape = ImageShape(1, 4, 4, 2)
    return DatasetInfo(
        shape=shape, class_names=("a", "b"), train_count=6, test_count=4, source="drawn", sha256={"all": 64 * "0"}
    )


def load(config, place, split) -> LabelledImages:
    return drawn(split, {"train": 6, "test": 4}[split])


def module_of(**hooks: Any) -> types.ModuleType:
    module = types.ModuleType("a_plugin_of_tests")
    for name, answer in hooks.items():
        hook = types.FunctionType((lambda: None).__code__, {}, name) if answer is None else answer
        setattr(module, name, hook)
    return module
