"""Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019).

The second moment's average is shorter than the papers' 0.999: a training of some hundred steps is over before that
has warmed up.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import nn

from mnistlab.api import Float, Stepper
from mnistlab.builtin.optimizers.groups import can_fuse, decay_groups, trainable
from mnistlab.builtin.optimizers.schedules import Scheduled, schedule_of
from mnistlab.builtin.optimizers.stepper import Part, ScheduledStepper


class Adam(Scheduled):
    """Adam without weight decay."""

    lr: Annotated[float, Float(1e-4, 3e-2, log=True)] = 3e-3
    """Highest learning rate."""
    beta1: Annotated[float, Float(0.5, 0.95)] = 0.9
    """Decay of the gradient's average."""
    beta2: Annotated[float, Float(0.9, 0.999)] = 0.99
    """Decay of the squared gradient's average."""


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    weight_decay: Annotated[float, Float(1e-4, 1.0, log=True)] = 1e-2
    """Share of each weight (not of biases and norms) taken off per step, times the learning rate."""


def build_adam(config: Adam, module: nn.Module, total_steps: int) -> Stepper:
    """Return the stepper for `module`, with a schedule over `total_steps`."""
    parameters = trainable(module)
    optimizer = torch.optim.Adam(
        parameters, lr=config.lr, betas=(config.beta1, config.beta2), fused=can_fuse(parameters)
    )
    return ScheduledStepper([Part.whole(optimizer)], schedule_of(config, total_steps))


def build_adamw(config: AdamW, module: nn.Module, total_steps: int) -> Stepper:
    """Return the stepper for `module`, with a schedule over `total_steps`."""
    parameters = trainable(module)
    optimizer = torch.optim.AdamW(
        decay_groups(parameters, config.weight_decay),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=can_fuse(parameters),
    )
    return ScheduledStepper([Part.whole(optimizer)], schedule_of(config, total_steps))
