"""The contract of a whole plugin: of everything that it offers."""

from __future__ import annotations

from typing import Any

from mnistlab.plugins.registry import Kind
from mnistlab.testing.datasets import DatasetContract
from mnistlab.testing.models import ModelContract
from mnistlab.testing.optimizers import OptimizerContract
from mnistlab.testing.transforms import TransformContract

KINDS: dict[Kind, type] = {
    "model": ModelContract,
    "optimizer": OptimizerContract,
    "transform": TransformContract,
    "dataset": DatasetContract,
}


class PluginContract(ModelContract, OptimizerContract, TransformContract, DatasetContract):
    """All contracts at once; kinds that the plugin does not offer leave no tests behind."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Take away the tests of kinds that are not offered, so that no run is full of skipped ones."""
        super().__init_subclass__(**arguments)
        if not hasattr(cls, "plugin"):
            return
        offered = {offer.kind for offer in cls().offers()}
        for kind, contract in KINDS.items():
            for name in vars(contract):
                if kind not in offered and name.startswith(f"test_{kind}_"):
                    setattr(cls, name, None)
