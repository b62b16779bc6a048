"""A small finished run, and a model that knows MNIST, for all tests of what comes after a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mnistlab.api import ImageShape, LabelledImages
from mnistlab.data import Division, read_idx
from mnistlab.data.device import to_device
from mnistlab.plugins.discovery import selection
from mnistlab.plugins.registry import Registry, select
from mnistlab.trained import formats, framing
from mnistlab.trained.portable import About, build
from mnistlab.training import loop, weights
from tests.trained.runs import finished_run


@pytest.fixture(autouse=True)
def as_other_tests_have_it() -> Iterator[None]:
    """Training sets this process up; other tests, hypothesis above all, want denormal numbers."""
    threads = torch.get_num_threads()
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on scikit-learn's digits; nobody may change it."""
    return finished_run(tmp_path_factory.mktemp("small"))


@pytest.fixture
def own_run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the small run that a test may damage."""
    return Path(shutil.copytree(small_run, tmp_path / "runs" / small_run.name))


def plan_of(registry: Registry, **settings: object) -> dict[str, object]:
    """A plan of mnistlab's own cnn."""

    def part(kind: str, name: str, config: dict[str, object]) -> dict[str, object]:
        offer = registry.find(kind, f"mnistlab:{name}")  # type: ignore[arg-type]
        whole = offer.record.config(**config).model_dump(mode="json")
        about = {"name": name, "plugin": offer.qualified, "distribution": "mnistlab", "version": offer.version}
        return {**about, "config": whole}

    return {
        "model": part("model", "cnn", {"depth": 2, "channels": 16, **settings}),
        "optimizer": part("optimizer", "adamw", {}),
        "transforms": [],
        "training": {"epochs": 3, "batch_size": 64, "precision": "fp32", "label_smoothing": 0.0},
    }


@pytest.fixture(scope="session")
def own_plugins() -> Registry:
    """mnistlab's own plugins alone: the others take seconds to import."""
    return select(selection(only_built_in=True))


@pytest.fixture(scope="session")
def mnist_model(mnist_folder: Path, own_plugins: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model trained on 6,000 images of MNIST for three epochs."""
    images = read_idx(mnist_folder / "train-images-idx3-ubyte.gz", (3,)).values[:6500, None]
    labels = read_idx(mnist_folder / "train-labels-idx1-ubyte.gz", (1,)).values[:6500].astype(np.int64)
    division, shape = Division(train=np.arange(6000), validation=np.arange(6000, 6500)), ImageShape(1, 28, 28, 10)
    data = to_device(LabelledImages(images=images, labels=labels), division, shape, "cpu")
    plan = plan_of(own_plugins)
    one = loop.train(plan, 0, data, own_plugins)
    assert one.history[-1]["val_accuracy"] > 0.95
    packed = weights.pack_weights(one.module)
    about = About.model_validate(
        {
            "schema": "mnistlab.model/1",
            "shape": [1, 28, 28],
            "classes": list("0123456789"),
            "label": "cnn",
            "framing": framing.measure(images),
            "plan": plan,
            "source": {},
            "dataset": {},
            "validation": {},
            "mean": data.mean.flatten().tolist(),
            "std": data.std.flatten().tolist(),
            "test": None,
            "versions": {},
        }
    )
    module = build(plan, packed, shape, data.mean, data.std, own_plugins)
    path = tmp_path_factory.mktemp("mnist") / "mnist.safetensors"
    path.write_bytes(formats.write(module, about, path.suffix))
    return path
