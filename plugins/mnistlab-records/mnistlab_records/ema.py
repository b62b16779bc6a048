"""Adam with an exponential decay of the rate, evaluated with an exponential moving average of the weights.

The recipe of An et al. 2020 (arXiv:2008.10400): the average's decay is min(0.999, (1 + t) / (10 + t)) after step t,
over parameters only, so that batch normalisation keeps the statistics of the weights in training.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from mnistlab.api import Config, Float


class AdamExponential(Config):
    """`final_factor` is what the rate falls to over the whole training: gamma ** epochs for a factor gamma an epoch."""

    lr: Annotated[float, Float(1e-4, 1e-2, log=True)] = 1e-3
    final_factor: Annotated[float, Float(0.001, 1.0, log=True)] = 0.05
    ema: Annotated[float, Float(0.0, 0.9999)] = 0.999


class AveragedAdam:
    """The `mnistlab.api.AveragingStepper`: `_others` are the weights that are not in the module at the moment."""

    def __init__(self, config: AdamExponential, module: nn.Module, total_steps: int) -> None:
        self._config, self._total, self._position = config, max(1, total_steps), 0
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._adam = torch.optim.Adam(self._parameters, lr=config.lr)
        self._others = [p.detach().clone() for p in self._parameters]
        self._evaluating = False

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters, the rate and the average."""
        self._adam.param_groups[0]["lr"] = self._config.lr * self._config.final_factor ** (self._position / self._total)
        self._adam.step()
        self._position += 1
        decay = min(self._config.ema, (1 + self._position) / (10 + self._position))
        for mean, parameter in zip(self._others, self._parameters, strict=True):
            mean.lerp_(parameter, 1 - decay)

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
            kept = parameter.detach().clone()
            parameter.copy_(other)
            other.copy_(kept)
        self._evaluating = evaluating

    def state_dict(self) -> dict[str, Any]:
        """Return the moments, the other weights, which of the two the module has, and the position: no settings."""
        others: list[Tensor] = [other.clone() for other in self._others]
        moments = self._adam.state_dict()["state"]
        return {"position": self._position, "evaluating": self._evaluating, "others": others, "moments": moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        groups = self._adam.state_dict()["param_groups"]
        self._adam.load_state_dict({"state": state["moments"], "param_groups": groups})
        for other, kept in zip(self._others, state["others"], strict=True):
            other.copy_(kept)
        self._position, self._evaluating = int(state["position"]), bool(state["evaluating"])


def build(config: AdamExponential, module: nn.Module, total_steps: int) -> AveragedAdam:
    """Return the stepper for a training of `total_steps` steps."""
    return AveragedAdam(config, module, total_steps)
