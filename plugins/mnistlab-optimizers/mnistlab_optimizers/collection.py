"""The optimizers of pytorch-optimizer (Kim 2021) that a plain `step()` drives, each under its name in the library."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, cast

import torch
from pydantic import ConfigDict, create_model
from pytorch_optimizer import get_supported_optimizers, load_optimizer

from mnistlab.api import Config, Domain, Float, Optimizer
from mnistlab_optimizers.stepper import Make, Scheduled, TorchStepper, schedule_of

EXCLUDED: dict[str, str] = {
    **dict.fromkeys(("adam", "adamw", "muon", "sgd"), "mnistlab offers it itself"),
    **dict.fromkeys(("a2grad", "alig", "sara"), "has no learning rate of its own"),
    **dict.fromkeys(("adalomo", "adammini", "bsam", "lomo", "magma", "ranger21"), "wants more than parameters"),
    **dict.fromkeys(("adahessian", "lbfgs", "sophiah"), "wants the loss again, or second derivatives"),
    **dict.fromkeys(("adago", "adamuon", "distributedmuon", "muonclip", "normuon"), "wants marked parameter groups"),
    **dict.fromkeys(("adashift", "conda", "kron", "rose", "scalableshampoo"), "has a state that only pickles"),
    **dict.fromkeys(("lorarite", "stablespam"), "does not go on as it was from its own state"),
    **dict.fromkeys(("ftrl", "nero"), "moves away from the minimum of a quadratic at its own defaults"),
    "spectralsphere": "works on matrices only",
    "demo": "needs several processes",
    **dict.fromkeys(("schedulefreeadamw", "schedulefreeradam", "schedulefreesgd"), "is offered from schedulefree"),
}


def records() -> list[Optimizer[Any]]:
    """Return a record for each optimizer that is offered."""
    return [_record(name) for name in sorted({*get_supported_optimizers()} - EXCLUDED.keys())]


def _record(name: str) -> Optimizer[Any]:
    cls: Any = load_optimizer(name)
    known = inspect.signature(cls.__init__).parameters
    config = _config(cls.__name__, known)

    def build(config: Any, module: torch.nn.Module, total_steps: int) -> TorchStepper:
        settings = _settings(config, known)
        make: Make = lambda parameters: cls(parameters, **settings)  # noqa: E731 - it closes over the settings
        return TorchStepper(module, make, settings.keys(), schedule_of(config, total_steps))

    return Optimizer(name=name, config=config, build=build, summary=f"{cls.__name__} of pytorch-optimizer.")


class _Made(Scheduled):
    """Base of the configs that are made here: pydantic would look for the source text of each, for a long time."""

    model_config = ConfigDict(use_attribute_docstrings=False)


def _config(name: str, known: Mapping[str, inspect.Parameter]) -> type[Config]:
    """Return a config of the main settings that a constructor has, with its own defaults."""
    rate = float(known["lr"].default)
    fields: dict[str, tuple[Domain, float]] = {"lr": (Float(rate / 10, rate * 10, log=True), rate)}
    if "betas" in known:
        first, second = known["betas"].default[:2]
        fields["beta1"] = (Float(min(0.8, first), max(0.98, first)), first)
        fields["beta2"] = (Float(min(0.9, second), max(0.9999, second)), second)
    if "momentum" in known:
        momentum = float(known["momentum"].default)
        fields["momentum"] = (Float(min(0.1, momentum), max(0.99, momentum)), momentum)
    if "weight_decay" in known:
        decay = float(known["weight_decay"].default)
        fields["weight_decay"] = (Float(0.0, max(0.1, decay)), decay)
    annotated = {field: (Annotated[float, domain], default) for field, (domain, default) in fields.items()}
    return create_model(name, __base__=_Made, __module__=__name__, **cast("Any", annotated))


def _settings(config: Any, known: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Return the constructor's arguments for a config."""
    settings = config.model_dump(exclude={"schedule", "warmup", "beta1", "beta2"})
    if "betas" in known:
        settings["betas"] = (config.beta1, config.beta2, *known["betas"].default[2:])
    return settings
