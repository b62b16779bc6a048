"""The built-ins pass the contract that every plugin passes; and importing all plugins of the repository is harmless."""

from __future__ import annotations

import os
import types
from pathlib import Path

import pytest

from mnistlab.api import ImageShape
from mnistlab.builtin import datasets, models, optimizers, transforms
from mnistlab.plugins.discovery import BUILT_IN, discover
from mnistlab.testing import ChannelsLastContract, Contract, PluginContract, StaysOnDeviceContract
from tests.conftest import PACKAGES

pytestmark = pytest.mark.simulated

EACH = """
import importlib
MODULES = [importlib.import_module(name) for name in {names}]
def each(hook):
    return lambda: [record for module in MODULES for record in getattr(module, hook, tuple)() or ()]
hooks = dir(importlib.import_module("mnistlab.plugins.hookspecs"))
globals().update({{hook: each(hook) for hook in hooks if "mnistlab_" in hook}})
"""


@pytest.mark.e2e
def test_importing_any_of_them_has_no_side_effects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [found.module for found in discover() if found.distribution in {BUILT_IN, *PACKAGES}]
    assert len(names) >= 4 + len(PACKAGES)
    (tmp_path / "each_plugin.py").write_text(EACH.format(names=names))
    monkeypatch.syspath_prepend(tmp_path)
    contract = type("Each", (Contract,), {"plugin": types.ModuleType("each_plugin")})()
    contract.test_importing_it_has_no_side_effects()


class Ours(PluginContract):
    """A part of mnistlab, which is imported above."""

    test_importing_it_has_no_side_effects = None


class TestModels(Ours, ChannelsLastContract):
    plugin = models
    samples = 2
    shapes = (ImageShape(1, 28, 28, 10), ImageShape(3, 8, 8, 7))
    fixed = {"mlp": {"width": 64}, "cnn": {"channels": 8}, "resnet": {"width": 8}, "vit": {"head_width": 8}}


class TestOptimizers(Ours):
    plugin = optimizers


class TestTransforms(Ours, StaysOnDeviceContract):
    plugin = transforms


class TestDatasets(Ours):
    plugin = datasets
    names = ("digits", "mnist")
    data_dir = Path(os.environ["MNISTLAB_TEST_DATA"]) / "mnist" if "MNISTLAB_TEST_DATA" in os.environ else None
