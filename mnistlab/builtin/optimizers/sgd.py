"""Stochastic gradient descent with Nesterov's momentum."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import nn

from mnistlab.api import Float, Stepper
from mnistlab.builtin.optimizers.groups import can_fuse, decay_groups, trainable
from mnistlab.builtin.optimizers.schedules import Scheduled, schedule_of
from mnistlab.builtin.optimizers.stepper import Part, ScheduledStepper


class Sgd(Scheduled):
    """Nesterov's momentum, coupled weight decay."""

    lr: Annotated[float, Float(0.003, 1.0, log=True)] = 0.1
    """Highest learning rate."""
    momentum: Annotated[float, Float(0.5, 0.98)] = 0.9
    weight_decay: Annotated[float, Float(1e-6, 1e-2, log=True)] = 5e-4
    """Added to the gradient of weights (not of biases and norms), times the weight."""


def build_sgd(config: Sgd, module: nn.Module, total_steps: int) -> Stepper:
    """Return the stepper for `module`, with a schedule over `total_steps`."""
    parameters = trainable(module)
    optimizer = torch.optim.SGD(
        decay_groups(parameters, config.weight_decay),
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        fused=can_fuse(parameters),
    )
    return ScheduledStepper([Part.whole(optimizer)], schedule_of(config, total_steps))
