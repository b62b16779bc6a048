"""Schedule-free optimizers (Defazio et al. 2024, arXiv:2405.15682), by their authors' package `schedulefree`.

They evaluate an average of the weights that they train; `AveragingStepper` tells the training to switch. Batch
normalisation keeps the statistics of the weights in training, which the authors advise to compute anew for the average;
here they are used as they are.
"""

from __future__ import annotations

from typing import Annotated, Any

import schedulefree
import torch

from mnistlab.api import Config, Float, Optimizer
from mnistlab_optimizers.stepper import TorchStepper


class FreeAdamW(Config):
    """Schedule-free AdamW: a warm-up and then one rate."""

    lr: Annotated[float, Float(3e-4, 3e-2, log=True)] = 3e-3
    beta1: Annotated[float, Float(0.8, 0.98)] = 0.9
    beta2: Annotated[float, Float(0.95, 0.9999)] = 0.999
    weight_decay: Annotated[float, Float(0.0, 0.1)] = 0.0
    warmup: Annotated[float, Float(0.0, 0.3)] = 0.05


class FreeRAdam(Config):
    """Schedule-free RAdam: no warm-up, because the rectification is one."""

    lr: Annotated[float, Float(3e-4, 3e-2, log=True)] = 3e-3
    beta1: Annotated[float, Float(0.8, 0.98)] = 0.9
    beta2: Annotated[float, Float(0.95, 0.9999)] = 0.999
    weight_decay: Annotated[float, Float(0.0, 0.1)] = 0.0


class FreeSgd(Config):
    """Schedule-free SGD."""

    lr: Annotated[float, Float(0.05, 5.0, log=True)] = 0.5
    momentum: Annotated[float, Float(0.8, 0.98)] = 0.9
    weight_decay: Annotated[float, Float(0.0, 0.01)] = 0.0
    warmup: Annotated[float, Float(0.0, 0.3)] = 0.05


class FreeStepper(TorchStepper):
    """The `mnistlab.api.AveragingStepper` of the three."""

    def train(self) -> None:
        """Put the weights of training into the module."""
        self.optimizer.train()  # type: ignore[attr-defined]

    def eval(self) -> None:
        """Put their average into the module."""
        self.optimizer.eval()  # type: ignore[attr-defined]


def records() -> list[Optimizer[Any]]:
    """Return the three records."""
    return [
        Optimizer(name="schedulefree-adamw", config=FreeAdamW, build=adamw, summary="Schedule-free AdamW."),
        Optimizer(name="schedulefree-radam", config=FreeRAdam, build=radam, summary="Schedule-free RAdam."),
        Optimizer(name="schedulefree-sgd", config=FreeSgd, build=sgd, summary="Schedule-free SGD."),
    ]


def adamw(config: FreeAdamW, module: torch.nn.Module, total_steps: int) -> FreeStepper:
    """Return schedule-free AdamW with its warm-up in steps."""
    return _made(
        schedulefree.AdamWScheduleFree,
        module,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        warmup_steps=round(config.warmup * total_steps),
    )


def radam(config: FreeRAdam, module: torch.nn.Module, _total_steps: int) -> FreeStepper:
    """Return schedule-free RAdam."""
    betas, decay = (config.beta1, config.beta2), config.weight_decay
    return _made(schedulefree.RAdamScheduleFree, module, lr=config.lr, betas=betas, weight_decay=decay)


def sgd(config: FreeSgd, module: torch.nn.Module, total_steps: int) -> FreeStepper:
    """Return schedule-free SGD with its warm-up in steps."""
    return _made(
        schedulefree.SGDScheduleFree,
        module,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        warmup_steps=round(config.warmup * total_steps),
    )


def _made(cls: Any, module: torch.nn.Module, **settings: Any) -> FreeStepper:
    """Return the stepper, ready to train. It keeps one rate: the library warms up by itself."""
    stepper = FreeStepper(module, lambda parameters: cls(parameters, **settings), settings.keys(), lambda _: 1.0)
    stepper.train()
    return stepper
