"""The built-ins pass the contract that every plugin passes."""

from __future__ import annotations

import os
from pathlib import Path

from mnistlab.api import ImageShape
from mnistlab.builtin import datasets, models, optimizers, transforms
from mnistlab.testing import ChannelsLastContract, PluginContract, StaysOnDeviceContract


class TestModels(PluginContract, ChannelsLastContract):
    plugin = models
    samples = 2
    shapes = (ImageShape(1, 28, 28, 10), ImageShape(3, 8, 8, 7))
    fixed = {"mlp": {"width": 64}, "cnn": {"channels": 8}, "resnet": {"width": 8}, "vit": {"head_width": 8}}


class TestOptimizers(PluginContract):
    plugin = optimizers


class TestTransforms(PluginContract, StaysOnDeviceContract):
    plugin = transforms


class TestDatasets(PluginContract):
    plugin = datasets
    names = ("digits", "mnist")
    data_dir = Path(os.environ["MNISTLAB_TEST_DATA"]) / "mnist" if "MNISTLAB_TEST_DATA" in os.environ else None
