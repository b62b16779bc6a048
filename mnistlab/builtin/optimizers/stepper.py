"""The stepper of all built-in optimizers: torch optimizers that follow one schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mnistlab.builtin.optimizers.matrices import from_matrix, to_matrix


@dataclass(frozen=True)
class Part:
    """A torch optimizer, and the module's parameters whose gradients it uses, in the optimizer's order.

    The optimizer may hold a matrix view of a parameter in its place.
    """

    optimizer: torch.optim.Optimizer
    parameters: tuple[Tensor, ...]

    @classmethod
    def whole(cls, optimizer: torch.optim.Optimizer) -> Part:
        """Return the part in which `optimizer` holds the parameters themselves."""
        return cls(optimizer, tuple(_held(optimizer)))

    def state(self) -> list[dict[str, Any]]:
        """Return a copy of each parameter's state, its tensors in the shape of the parameter."""
        states: list[dict[str, Any]] = []
        for parameter, held in zip(self.parameters, _held(self.optimizer), strict=True):
            state = self.optimizer.state.get(held, {})
            states.append({key: _outward(value, held, parameter) for key, value in state.items()})
        return states

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Take up what `state` returned; the optimizer's hyperparameters stay."""
        inward: dict[int, dict[str, Any]] = {}
        triples = zip(self.parameters, _held(self.optimizer), states, strict=True)
        for index, (parameter, held, state) in enumerate(triples):
            if state:
                inward[index] = {key: _inward(value, held, parameter) for key, value in state.items()}
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": inward, "param_groups": groups})


class ScheduledStepper:
    """The `mnistlab.api.Stepper` of the built-ins. `schedule` maps a step (from 0) to a factor on every rate."""

    def __init__(self, parts: Sequence[Part], schedule: Callable[[int], float]) -> None:
        self._parts = tuple(parts)
        self._schedule = schedule
        self._position = 0
        self._schedulers = [LambdaLR(part.optimizer, schedule) for part in self._parts]

    @property
    def learning_rates(self) -> list[float]:
        """Return the rate that the next step uses, for each parameter group."""
        return [float(rate) for scheduler in self._schedulers for rate in scheduler.get_last_lr()]

    def step(self) -> None:
        """Update the parameters from their gradients and advance the schedule by one step."""
        for part, scheduler in zip(self._parts, self._schedulers, strict=True):
            part.optimizer.step()
            scheduler.step()
        self._position += 1

    def zero_grad(self) -> None:
        """Forget the gradients: None takes no time to fill and lets backward write instead of add."""
        for part in self._parts:
            for parameter in part.parameters:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the per-parameter state and the position in the schedule: no hyperparameters."""
        return {"position": self._position, "parts": [part.state() for part in self._parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state that `state_dict` returned.

        Raises:
            ValueError: if it belongs to another number of optimizers or parameters.
        """
        for part, states in zip(self._parts, state["parts"], strict=True):
            part.load(states)
        self._position = int(state["position"])
        # A LambdaLR takes its first step when it is made, so it starts one position before.
        self._schedulers = [LambdaLR(part.optimizer, self._schedule, self._position - 1) for part in self._parts]


def _held(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [tensor for group in optimizer.param_groups for tensor in group["params"]]


def _outward(value: Any, held: Tensor, parameter: Tensor) -> Any:
    """Return a copy of a value of `held`'s state that no longer depends on which view `held` is."""
    if not isinstance(value, Tensor):
        return value
    viewed = value.shape == held.shape != parameter.shape
    return (from_matrix(value, parameter) if viewed else value).clone()


def _inward(value: Any, held: Tensor, parameter: Tensor) -> Any:
    """Return a copy of a value of `parameter`'s state for `held`."""
    if not isinstance(value, Tensor):
        return value
    viewed = value.shape == parameter.shape != held.shape
    return (to_matrix(value, parameter) if viewed else value).clone()
