"""A model that does as it is told: learns, refuses, breaks, dies. For tests of what the search makes of it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import torch
from torch import nn

from mnistlab.api import Choice, Config, Float, ImageShape, Model, hookimpl


class Moody(Config):
    mood: Annotated[str, Choice("good", "stuck", "nan", "raise", "step", "exit", "die", "noisy", "slow", "memory")] = (
        "good"
    )
    gain: Annotated[float, Float(0.5, 2.0)] = 1.0


class Net(nn.Module):
    def __init__(self, config: Moody, shape: ImageShape) -> None:
        super().__init__()
        self.mood, self.gain = config.mood, config.gain
        self.head = nn.Linear(shape.pixels, shape.classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.gain * self.head(images.flatten(1))
        if self.mood == "stuck":
            constant = torch.zeros_like(logits)
            constant[:, 1] = -1.0
            return logits * 0 + constant
        if self.mood == "nan":
            return logits * float("nan")
        if self.mood == "step":
            raise RuntimeError("this plan breaks while it trains")
        if self.mood == "memory":
            raise torch.OutOfMemoryError("device out of memory, says the test")
        if self.mood == "noisy":
            print("\x1b[31mprinted by the model\x1b[0m")
            os.write(2, b"written to descriptor 2\n")
        if self.mood == "slow":
            time.sleep(0.05)
        return logits


def build(config: Moody, shape: ImageShape) -> nn.Module:
    if config.mood == "raise":
        raise ValueError("this plan can't be built")
    if config.mood == "exit":
        sys.exit(7)
    if config.mood == "die":
        os._exit(7)
    return Net(config, shape)


@hookimpl
def mnistlab_models():
    return [Model(name="moody", config=Moody, build=build, summary="Does as it is told.")]


@hookimpl
def mnistlab_trial_finished(trial):
    watched = os.environ.get("MOODY_WATCH")
    if watched:
        with Path(watched).open("a") as file:
            file.write(f"{trial.trial} {trial.state}\n")
    if trial.state == "failed":
        raise RuntimeError("the observer dislikes failures")
