"""From a run to a model by itself: rebuilt from the weights that the run kept, and asked before it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from mnistlab.api import DataPlace
from mnistlab.data.device import as_unit, mean_and_std, upload
from mnistlab.errors import PluginError
from mnistlab.experiment import versions
from mnistlab.experiment.dataset import Data
from mnistlab.experiment.recorded import open_data
from mnistlab.plugins.registry import Registry
from mnistlab.store import read_weights
from mnistlab.store.results import ReplicateResult
from mnistlab.trained import framing
from mnistlab.trained.portable import (
    SCHEMA,
    About,
    Agreement,
    CannotExportError,
    Logits,
    Pixels,
    Portable,
    Together,
    ask_of,
    build,
)
from mnistlab.trained.selection import Chosen
from mnistlab.util.text import plan_label


@dataclass(frozen=True)
class Leaving:
    """A model or an ensemble, ready to be written, with the run's validation images and what it says of them."""

    module: Portable | Together
    about: About
    pixels: Pixels
    labels: npt.NDArray[np.int64]
    logits: Logits


def from_run(chosen: Chosen, place: DataPlace, registry: Registry) -> Leaving:
    """Return the model of a replicate, or the ensemble of several.

    Raises:
        DataError: if the data is missing or not the run's: normalisation and the check need it.
        PluginError: if a plugin is missing or of another version.
        RunDirectoryError: if the weights are missing or damaged.
    """
    if differing := versions.other_versions(chosen.record, chosen.plan, registry):
        raise PluginError("\n".join(differing))
    first, *others = chosen.models
    data = open_data(chosen.record, place, registry, first)
    own = {one.split: open_data(chosen.record, place, registry, one) for one in others if one.split != first.split}
    models = [_built(chosen, one, own.get(one.split, data), registry) for one in chosen.models]
    module = Together(models).eval() if chosen.members else models[0]
    images, labels = upload(data.images, "cpu", data.division.validation)
    pixels = as_unit(images).contiguous().numpy()
    logits = ask_of(module)(pixels)
    about = About.model_validate(
        {
            "schema": SCHEMA,
            "shape": [data.info.shape.channels, data.info.shape.height, data.info.shape.width],
            "classes": list(data.info.class_names),
            "framing": framing.measure(data.images.images[data.division.train]).model_dump(),
            "mean": models[0].mean.flatten().tolist(),
            "std": models[0].std.flatten().tolist(),
            **_origin(chosen),
            "validation": {"images": len(labels), "correct": int((logits.argmax(1) == labels.numpy()).sum())},
        }
    )
    return Leaving(module, about, pixels, labels.numpy(), logits)


def _built(chosen: Chosen, one: ReplicateResult, data: Data, registry: Registry) -> Portable:
    """Return the model of a replicate, which normalises by the images that it was trained on."""
    mean, std = mean_and_std(upload(data.images, "cpu", data.division.train)[0])
    return build(chosen.plan, read_weights(chosen.record.path, one), data.info.shape, mean, std, registry)


def _origin(chosen: Chosen) -> Mapping[str, Any]:
    run, test = chosen.record.run, chosen.test
    said = ("name", "requested", "fallback", "plugin", "version", "sha256", "split", "split_sha256", "train")
    return {
        "label": plan_label(chosen.plan),
        "plan": chosen.plan,
        "members": len(chosen.models),
        "source": {"run": run.get("run", ""), "trial": chosen.trial.trial, **_trainings(chosen)},
        "dataset": {**{key: run["dataset"].get(key) for key in said}, **_own_split(chosen.models)},
        "test": {"images": test.images, "correct": test.correct} if test else None,
        "versions": {name: version(name) for name in ("mnistlab", "torch")},
    }


def _trainings(chosen: Chosen) -> Mapping[str, Any]:
    """Return of which trainings the weights are: one value each or, of an ensemble, a list with one of each member."""
    ones = [
        {
            "replicate": one.replicate,
            "seed": one.seed,
            "weights_sha256": one.weights_sha256,
            "val_accuracy": one.metrics.get("val_accuracy"),
        }
        for one in chosen.models
    ]
    return {key: [one[key] for one in ones] for key in ones[0]} if chosen.members else ones[0]


def _own_split(models: Sequence[ReplicateResult]) -> Mapping[str, Any]:
    """Return what replicates that have drawn their own splits say otherwise than their run: of several, no split."""
    if (own := models[0].split) is None:
        return {}
    return {"split_sha256": own.sha256 if len(models) == 1 else None, "train": own.train}


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
