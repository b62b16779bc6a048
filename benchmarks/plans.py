"""Plans and data for the benchmarks that train without a search."""

from __future__ import annotations

from typing import Any

import torch

from mnistlab.data import default_place, open_train, prepare_dataset, split_indices
from mnistlab.data.device import DeviceData, to_device
from mnistlab.registry import Kind, installed


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
