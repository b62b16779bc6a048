"""Plans and data for the benchmarks that train without a search."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from mnistlab.data import default_place, open_train, prepare_dataset, split_indices
from mnistlab.data.device import DeviceData, to_device
from mnistlab.experiment.space import TrainingConfig
from mnistlab.plugins.registry import Kind, installed
from mnistlab.training import loop


def part(kind: Kind, name: str, **settings: Any) -> dict[str, Any]:
    """Return a part of a plan: a built-in with its defaults, but for `settings`."""
    offer = installed().find(kind, f"mnistlab:{name}")
    config = offer.record.config(**settings).model_dump()
    source = {"plugin": offer.qualified, "distribution": offer.distribution, "version": offer.version}
    return {"name": name, **source, "config": config}


def mnist(device: str = "cpu", validation: int = 10_000) -> DeviceData:
    """Return MNIST's training set, split by seed 0; MNISTLAB_DATA says where it lies."""
    record = installed().find("dataset", "mnist").record
    config, place = record.config(), default_place()
    info = prepare_dataset(record, config, place)
    images = open_train(record, config, place)
    division = split_indices(images.labels, None, validation=validation, seed=0)
    return to_device(images, division, info.shape, torch.device(device))


def some(data: DeviceData, images: int, validation: int = 500) -> DeviceData:
    """Return the first images of both parts."""
    return replace(
        data,
        train_images=data.train_images[:images],
        train_labels=data.train_labels[:images],
        validation_images=data.validation_images[:validation],
        validation_labels=data.validation_labels[:validation],
    )


def epoch(model: str, precision: str, batch_size: int, data: DeviceData) -> loop.EpochMetrics:
    """Return the metrics of a model's first epoch, without transforms."""
    plan = {
        "model": part("model", model),
        "optimizer": part("optimizer", "adamw"),
        "transforms": [],
        "training": {**TrainingConfig().model_dump(), "epochs": 1, "batch_size": batch_size, "precision": precision},
    }
    return loop.run_epoch(loop.begin(plan, 0, data, installed()))
