"""The conformance kit: what makes a plugin a correct one, as test classes to inherit.

A plugin author writes three lines, in a file that pytest collects::

    import mnistlab_tiny
    from mnistlab.testing import PluginContract

    class TestContract(PluginContract):
        plugin = mnistlab_tiny

Every record that the plugin offers is then a test id of its own. The built-ins pass the same classes. The idea of
publishing the contract as classes is that of Optuna's `optuna.testing`. The `lab` fixture (see
`mnistlab.testing.fixtures`) is there for whoever has this package installed.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

try:
    import pytest
except ModuleNotFoundError as error:  # pragma: no cover - the test suite runs under pytest
    raise ModuleNotFoundError("mnistlab.testing needs pytest: pip install 'mnistlab[testing]'") from error

if TYPE_CHECKING:
    from mnistlab.testing.base import Contract
    from mnistlab.testing.claims import (
        ChannelsLastContract,
        CompilesContract,
        StaysOnDeviceContract,
        VmapContract,
    )
    from mnistlab.testing.datasets import DatasetContract
    from mnistlab.testing.models import ModelContract
    from mnistlab.testing.optimizers import OptimizerContract
    from mnistlab.testing.plugin import PluginContract
    from mnistlab.testing.transforms import TransformContract

# MKL rounds by how tensors lie in memory, on recent Intel CPUs in the last bit: then a state that is packed and read
# back goes on differently, through no fault of its plugin. MKL reads this before its first call.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# Before the modules themselves: a failing check then shows its values.
pytest.register_assert_rewrite("mnistlab.testing")

__all__ = [
    "ChannelsLastContract",
    "CompilesContract",
    "Contract",
    "DatasetContract",
    "ModelContract",
    "OptimizerContract",
    "PluginContract",
    "StaysOnDeviceContract",
    "TransformContract",
    "VmapContract",
]

# pytest imports this package at every start, for the `lab` fixture: torch waits until a test file asks for a contract.
_MODULES = {
    "ChannelsLastContract": "claims",
    "CompilesContract": "claims",
    "Contract": "base",
    "DatasetContract": "datasets",
    "ModelContract": "models",
    "OptimizerContract": "optimizers",
    "PluginContract": "plugin",
    "StaysOnDeviceContract": "claims",
    "TransformContract": "transforms",
    "VmapContract": "claims",
}


def __getattr__(name: str) -> object:
    """Import a contract when it is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
