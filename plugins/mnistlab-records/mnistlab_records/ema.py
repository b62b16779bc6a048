"""Adam whose rate decays exponentially, evaluated with an exponential moving average of the weights.

The recipe of An et al. 2020 (arXiv:2008.10400): after step t (from 1) the average keeps min(0.999, (1 + t) / (10 + t))
of itself. Only trainable parameters are averaged: batch norm's running statistics stay those of the weights in
training, as in the published code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from mnistlab.api import Config, Float


class AdamExponential(Config):
    """Adam with its default moments, an exponential decay of the rate, and averaged weights at evaluation.

    A recipe that multiplies the rate by gamma after each of its E epochs is `final_factor` = gamma ** E with
    `stairs` = E. Written so, because an optimizer is told the steps of the whole training and no number of epochs,
    the recipe keeps its shape on any other budget.
    """

    lr: Annotated[float, Float(1e-4, 1e-2, log=True)] = 1e-3
    """Learning rate of the first step."""
    final_factor: Annotated[float, Float(0.001, 1.0, log=True)] = 0.05
    """What the rate is multiplied by over the whole training."""
    stairs: Annotated[int, Field(ge=0)] = 0
    """In how many equal parts of the training, each at a constant rate, it falls; 0: a little at every step."""
    ema: Annotated[float, Float(0.0, 0.9999)] = 0.999
    """Highest share of itself that the average of the weights keeps per step; 0: no averaging."""


def decay(config: AdamExponential, total_steps: int) -> Callable[[int], float]:
    """Return the function step (0 for the first) -> factor on the rate; beyond `total_steps` it stays as it is."""
    total = max(1, total_steps)

    def factor(step: int) -> float:
        passed = min(step, total)
        # In whole numbers, so that no rounding puts the step of a stair off by one.
        share = passed * config.stairs // total / config.stairs if config.stairs else passed / total
        return math.pow(config.final_factor, share)

    return factor


def kept_share(step: int, most: float) -> float:
    """Return how much of itself the average keeps after step `step` (1 for the first): little at first."""
    return min(most, (1 + step) / (10 + step))


def copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parameter's state whose tensors are its own."""
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}


class AveragedAdam:
    """The `mnistlab.api.AveragingStepper`: `_others` are the weights that are not in the module at the moment.

    Those are the averages while training, and the weights in training while evaluating.
    """

    def __init__(self, config: AdamExponential, module: nn.Module, total_steps: int) -> None:
        self._lr, self._most = config.lr, config.ema
        self._factor, self._position = decay(config, total_steps), 0
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._adam = torch.optim.Adam(self._parameters, lr=config.lr)
        self._others = [p.detach().clone() for p in self._parameters]
        self._evaluating = False

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters and the average, and advance the schedule by one step."""
        for group in self._adam.param_groups:
            group["lr"] = self._lr * self._factor(self._position)
        self._adam.step()
        self._position += 1
        new = 1 - kept_share(self._position, self._most)
        for mean, parameter in zip(self._others, self._parameters, strict=True):
            mean.lerp_(parameter, new)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._adam.zero_grad(set_to_none=True)

    def train(self) -> None:
        """Put the weights of training into the module."""
        self._switch(evaluating=False)

    def eval(self) -> None:
        """Put the averages into the module."""
        self._switch(evaluating=True)

    @torch.no_grad()
    def _switch(self, *, evaluating: bool) -> None:
        if evaluating == self._evaluating:
            return
        for parameter, other in zip(self._parameters, self._others, strict=True):
            shown = parameter.clone()
            parameter.copy_(other)
            other.copy_(shown)
        self._evaluating = evaluating

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the moments and the other weights, the position, and which weights the module has."""
        return {
            "position": self._position,
            "evaluating": self._evaluating,
            "others": [other.clone() for other in self._others],
            "moments": {index: copied(state) for index, state in self._adam.state_dict()["state"].items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned; rate, decay and averaging stay those of this stepper's config.

        Raises:
            ValueError: if it belongs to another number of parameters.
        """
        for other, kept in zip(self._others, state["others"], strict=True):
            other.copy_(kept)
        moments = {index: copied(values) for index, values in state["moments"].items()}
        self._adam.load_state_dict({"state": moments, "param_groups": self._adam.state_dict()["param_groups"]})
        self._position, self._evaluating = int(state["position"]), bool(state["evaluating"])


def build(config: AdamExponential, module: nn.Module, total_steps: int) -> AveragedAdam:
    """Return the stepper of `module`'s trainable parameters for a training of `total_steps` steps."""
    return AveragedAdam(config, module, total_steps)
