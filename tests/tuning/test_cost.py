"""What a prediction takes, measured on models whose multiply-accumulates can be counted by hand."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mnistlab.api import ImageShape
from mnistlab.data.device import DeviceData, mean_and_std
from mnistlab.plugins.registry import Registry
from mnistlab.store.results import Cost
from mnistlab.training import loop
from mnistlab.training.cost import cost_of, count_macs, device_name
from mnistlab.tuning.worker import replicate, trial
from tests.training.test_loop import part


@pytest.fixture
def begun(registry: Registry) -> loop.Training:
    """A training of a built-in model, whose module the tests exchange."""
    plan = {"model": part(registry, "model", "mlp"), "optimizer": part(registry, "optimizer", "sgd"), "transforms": []}
    settings = {"epochs": 1, "batch_size": 4, "label_smoothing": 0.0, "precision": "fp32"}
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8))
    labels = torch.arange(40) % 10
    mean, std = mean_and_std(images)
    data = DeviceData(
        shape=ImageShape(1, 8, 8, 10),
        train_images=images,
        train_labels=labels,
        validation_images=images,
        validation_labels=labels,
        mean=mean,
        std=std,
    )
    return loop.begin({**plan, "training": settings}, 1, data, registry)


def test_convolutions_and_matrix_products_are_counted_for_one_image(begun: loop.Training) -> None:
    height, width = begun.data.validation_images.shape[-2:]
    inside = (height - 2) * (width - 2)
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * inside, 10))
    cost = cost_of(replace(begun, module=module))
    assert cost.macs == 8 * 9 * inside + 8 * inside * 10
    assert cost.latency_1 > 0
    assert cost.latency_256 > 0
    assert cost.device == device_name(torch.device("cpu"))
    assert "thread" in cost.device


def test_what_multiplies_nothing_has_no_count(begun: loop.Training) -> None:
    class Means(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=(1, 2, 3))[:, None].repeat(1, 10)

    assert cost_of(replace(begun, module=Means())).macs is None


def test_a_model_that_can_not_be_measured_is_no_failure(begun: loop.Training, capsys) -> None:
    class OneAtATime(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("not in this shape")

    assert replicate._measured(replace(begun, module=OneAtATime())) is None
    assert trial._counted(replace(begun, module=OneAtATime())) is None
    assert "not in this shape" in capsys.readouterr().err


def test_measuring_leaves_the_random_streams_alone(begun: loop.Training) -> None:
    before = torch.get_rng_state()
    assert isinstance(cost_of(begun), Cost)
    assert torch.equal(before, torch.get_rng_state())


def test_counting_leaves_the_streams_of_python_and_numpy_alone(begun: loop.Training) -> None:
    class Drawing(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :10] + random.random() + float(np.random.random())

    before = random.getstate(), np.random.get_state()[1].tolist()
    assert count_macs(replace(begun, module=Drawing()), begun.data.validation_images[:1]) is None
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
