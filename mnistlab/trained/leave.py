"""From a run to a model by itself: rebuilt from the weights that the run kept, and asked before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from mnistlab.api import DataPlace
from mnistlab.data.device import as_unit, mean_and_std, upload
from mnistlab.errors import PluginError
from mnistlab.kept import open_data, read_weights
from mnistlab.labels import plan_label
from mnistlab.registry import Registry
from mnistlab.results import ReplicateResult
from mnistlab.trained import framing, opened
from mnistlab.trained.chosen import Chosen
from mnistlab.trained.portable import (
    SCHEMA,
    About,
    Agreement,
    CannotExportError,
    Logits,
    Pixels,
    Portable,
    ask_of,
    build,
)


@dataclass(frozen=True)
class Leaving:
    """A model of a run, ready to be written, with the run's validation images and what it says of them."""

    module: Portable
    about: About
    pixels: Pixels
    labels: npt.NDArray[np.int64]
    logits: Logits


def from_run(chosen: Chosen, place: DataPlace, registry: Registry) -> Leaving:
    """Return the model of a replicate.

    Raises:
        DataError: if the data is missing or not the run's: normalisation and the check need it.
        PluginError: if a plugin is missing or of another version.
        RunDirectoryError: if the weights are missing or damaged.
    """
    assert chosen.replicate is not None
    if differing := opened.other_versions(chosen.record, chosen.plan, registry):
        raise PluginError("\n".join(differing))
    data = open_data(chosen.record, place, registry, chosen.replicate)
    mean, std = mean_and_std(upload(data.images, "cpu", data.division.train)[0])
    module = build(chosen.plan, read_weights(chosen.record, chosen.replicate), data.info.shape, mean, std, registry)
    images, labels = upload(data.images, "cpu", data.division.validation)
    pixels = as_unit(images).contiguous().numpy()
    logits = ask_of(module)(pixels)
    about = About.model_validate(
        {
            "schema": SCHEMA,
            "shape": [data.info.shape.channels, data.info.shape.height, data.info.shape.width],
            "classes": list(data.info.class_names),
            "framing": framing.measure(data.images.images[data.division.train]).model_dump(),
            "mean": mean.flatten().tolist(),
            "std": std.flatten().tolist(),
            **_origin(chosen, chosen.replicate),
            "validation": {"images": len(labels), "correct": int((logits.argmax(1) == labels.numpy()).sum())},
        }
    )
    return Leaving(module, about, pixels, labels.numpy(), logits)


def _origin(chosen: Chosen, replicate: ReplicateResult) -> Mapping[str, Any]:
    run = chosen.record.run
    said = ("name", "requested", "fallback", "plugin", "version", "sha256", "split", "split_sha256", "train")
    return {
        "label": plan_label(chosen.plan),
        "plan": chosen.plan,
        "source": {
            "run": run.get("run", ""),
            "trial": chosen.trial.trial,
            "replicate": replicate.replicate,
            "seed": replicate.seed,
            "weights_sha256": replicate.weights_sha256,
            "val_accuracy": replicate.metrics.get("val_accuracy"),
        },
        "dataset": {**{key: run["dataset"].get(key) for key in said}, **_own_split(replicate)},
        "test": {"images": replicate.test.images, "correct": replicate.test.correct} if replicate.test else None,
        "versions": {name: version(name) for name in ("mnistlab", "torch")},
    }


def _own_split(replicate: ReplicateResult) -> Mapping[str, Any]:
    """Return what a replicate that has drawn its own split says otherwise than its run."""
    own = replicate.split
    return {"split_sha256": own.sha256, "train": own.train} if own else {}


def refuse_other(found: Agreement) -> None:
    """Refuse an exported model that is not the one that was trained.

    Raises:
        CannotExportError: saying how far they are apart.
    """
    if not found.good:
        raise CannotExportError(
            f"the exported model is not the one that was trained: probabilities differ by up to "
            f"{found.probabilities_apart:.2g} on {found.images:,} validation images; its predictions may draw at random"
        )
