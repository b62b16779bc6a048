"""A plan of defaults and a handful of images, for tests that train in their own process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mnistlab.api import ImageShape
from mnistlab.data.device import DeviceData, mean_and_std
from mnistlab.experiment.space import TrainingConfig
from mnistlab.plugins.registry import Kind, Registry

SHAPE = ImageShape(1, 28, 28, 10)


def small(count: int = 32, validation: int = 8) -> DeviceData:
    """Return random images of 28 x 28 pixels, the first of which are also those for validation."""
    images = torch.randint(256, (count, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % SHAPE.classes
    mean, std = mean_and_std(images)
    return DeviceData(
        shape=SHAPE,
        train_images=images,
        train_labels=labels,
        validation_images=images[:validation],
        validation_labels=labels[:validation],
        mean=mean,
        std=std,
    )


def part_of(registry: Registry, kind: Kind, name: str, **settings: Any) -> dict[str, Any]:
    """Return a part of a plan: a record's defaults, but for `settings`."""
    offer = registry.find(kind, name)
    config = offer.record.config(**settings).model_dump(mode="json")
    source = {"plugin": offer.qualified, "distribution": offer.distribution, "version": offer.version}
    return {"name": offer.name, **source, "config": config}


def plan_of(
    registry: Registry,
    model: str | Mapping[str, Any],
    *transforms: str | Mapping[str, Any],
    optimizer: str = "adamw",
    **settings: Any,
) -> dict[str, Any]:
    """Return a plan of one epoch with batches of 32; `settings` are those of `[training]`, a mapping a part itself."""
    config = {**TrainingConfig().model_dump(), "epochs": 1, "batch_size": 32, "precision": "fp32", **settings}
    return {
        "model": part_of(registry, "model", model) if isinstance(model, str) else dict(model),
        "optimizer": part_of(registry, "optimizer", optimizer),
        "transforms": [part_of(registry, "transform", t) if isinstance(t, str) else dict(t) for t in transforms],
        "training": config,
    }
