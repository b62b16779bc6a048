"""The optimizers: torch's own, with parameter groups, a schedule of the learning rate, and good defaults."""

from __future__ import annotations

from typing import Any

from mnistlab.api import Optimizer, hookimpl
from mnistlab.builtin.optimizers.adam import Adam, AdamW, build_adam, build_adamw
from mnistlab.builtin.optimizers.muon import Muon, build_muon
from mnistlab.builtin.optimizers.sgd import Sgd, build_sgd


@hookimpl
def mnistlab_optimizers() -> list[Optimizer[Any]]:
    """Return the built-in optimizers."""
    return [
        Optimizer(name="sgd", config=Sgd, build=build_sgd, summary="Gradient descent with Nesterov's momentum."),
        Optimizer(name="adam", config=Adam, build=build_adam, summary="Adam (Kingma & Ba 2015)."),
        Optimizer(name="adamw", config=AdamW, build=build_adamw, summary="Adam with decoupled weight decay."),
        Optimizer(name="muon", config=Muon, build=build_muon, summary="Orthogonalised momentum; AdamW for the rest."),
    ]
