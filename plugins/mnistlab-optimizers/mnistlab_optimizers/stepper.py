"""One stepper for any `torch.optim.Optimizer`: it keeps the schedule, and splits state from hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Annotated, Any

import torch

from mnistlab.api import Choice, Config, Float

Schedule = Callable[[int], float]
Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


class Scheduled(Config):
    """Settings of every optimizer with a schedule: what follows a linear warm-up over a share of all steps."""

    schedule: Annotated[str, Choice("cosine", "linear", "constant")] = "cosine"
    warmup: Annotated[float, Float(0.0, 0.3)] = 0.05


def schedule_of(config: Scheduled, total_steps: int) -> Schedule:
    """Return the factor on the learning rate at a step (from 0)."""
    warm = round(config.warmup * total_steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        rest = (step - warm) / max(1, total_steps - warm)
        decays = {"constant": 1.0, "linear": 1 - rest, "cosine": (1 + math.cos(math.pi * rest)) / 2}
        return max(0.0, decays[config.schedule])

    return factor


class TorchStepper:
    """The `mnistlab.api.Stepper` of an optimizer whose groups have the hyperparameters that `own` names.

    Everything else in a group (a step count, a sum of weights) is state: several libraries keep it there.
    """

    def __init__(self, module: torch.nn.Module, make: Make, own: Collection[str], schedule: Schedule) -> None:
        self.optimizer = make([p for p in module.parameters() if p.requires_grad])
        self._own, self._schedule, self._position = {*own, "lr", "params"}, schedule, 0
        self._rates = [float(group["lr"]) for group in self.optimizer.param_groups]

    def step(self) -> None:
        """Update the parameters from their gradients and advance the schedule by one step."""
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self._schedule(self._position)
        self.optimizer.step()
        self._position += 1

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of parameters and groups and the position in the schedule: no hyperparameters."""
        whole = self.optimizer.state_dict()
        groups = [{k: v for k, v in group.items() if k not in self._own} for group in whole["param_groups"]]
        return {"position": self._position, "state": whole["state"], "groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        groups = self.optimizer.state_dict()["param_groups"]
        merged = [group | kept for group, kept in zip(groups, state["groups"], strict=True)]
        self.optimizer.load_state_dict({"state": state["state"], "param_groups": merged})
        self._position = int(state["position"])
