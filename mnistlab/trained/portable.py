"""A trained model by itself: pixels between 0 and 1 in, logits out, with normalisation and names inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.special import softmax
from torch import Tensor, nn

from mnistlab.api import Config, ImageShape, Model, PredictFn
from mnistlab.data.device import standardise
from mnistlab.errors import DataError, MnistlabError, PluginError
from mnistlab.plugins.registry import Registry
from mnistlab.trained.framing import Framing
from mnistlab.training import loop, weights
from mnistlab.training.prediction import together

SCHEMA = "mnistlab.model/1"
KEY = "mnistlab"  # of a file's metadata, under which it says what it is
BATCH = 500
TOLERANCE = 1e-3  # of probabilities: other sums in another order, but no other model

Pixels = npt.NDArray[np.float32]
Logits = npt.NDArray[np.float32]
Ask = Callable[[Pixels], Logits]
"""Images float32 (N, C, H, W) in [0, 1] -> logits float32 (N, classes)."""


class About(BaseModel):
    """What an exported file says of itself; a file from elsewhere may say anything, so it is checked."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)

    schema_: str = Field(alias="schema", pattern=f"^{SCHEMA}$")
    shape: tuple[int, int, int] = Field(description="channels, height, width")
    classes: tuple[str, ...] = Field(min_length=2, max_length=10_000)
    framing: Framing
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label: str
    plan: dict[str, Any]
    members: int = Field(default=1, ge=1, le=10_000, description="models that are asked together; 1: no ensemble")
    source: dict[str, Any]  # run, trial, replicate, seed, weights_sha256; of an ensemble lists of the last three
    dataset: dict[str, Any]
    validation: dict[str, Any]
    test: dict[str, Any] | None
    versions: dict[str, str]

    @property
    def image_shape(self) -> ImageShape:
        """Return the shape of the images that it takes."""
        return ImageShape(*self.shape, len(self.classes))

    def text(self) -> str:
        """Return it as JSON."""
        return self.model_dump_json(by_alias=True)


def about_from(text: str | bytes, place: str) -> About:
    """Return what a file says of itself.

    Raises:
        DataError: if that is not what an export writes.
    """
    try:
        about = About.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "its metadata"
        raise DataError(f"{place} is no model that mnistlab exported: {where}: {first['msg']}") from None
    if not all(1 <= side <= 4096 for side in about.shape):
        raise DataError(f"{place} is no model that mnistlab exported: its images are of shape {about.shape}")
    return about


@dataclass(frozen=True)
class Exported:
    """A model read from a file: what the file says of it, and the model itself.

    `ask` takes images float32 (N, C, H, W) from 0 to 1 and returns logits float32 (N, classes).
    """

    about: About
    ask: Ask


class CannotExportError(MnistlabError):
    """A model that can't leave the program that trained it, by no fault of whoever asks for it."""

    exit_code = MnistlabError.exit_code.DATA_OR_PLUGIN


class Portable(nn.Module):
    """A trained module that normalises by itself."""

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, predict: PredictFn, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("mean", mean.detach().clone().cpu())
        self.register_buffer("std", std.detach().clone().cpu())
        self._predict = predict

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, float32 (N, classes), of float32 images (N, C, H, W) in [0, 1]."""
        return self._predict(self.module, standardise(images, self.mean, self.std)).logits.float()


class Together(nn.Module):
    """Trained modules that are asked the same: the softmax of its logits is the mean of that of theirs."""

    def __init__(self, members: Sequence[Portable]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, float32 (N, classes), of float32 images (N, C, H, W) in [0, 1]."""
        return together([member(images) for member in self.members])


def build(
    plan: Mapping[str, Any], packed: bytes, shape: ImageShape, mean: Tensor, std: Tensor, registry: Registry
) -> Portable:
    """Return the model of a plan with the weights that `pack_weights` packed, ready to be asked.

    Raises:
        PluginError: if the plugin is missing, of another version, or fails.
    """
    record, config = cast("tuple[Model[Config], Config]", loop.resolve("model", plan["model"], registry))
    try:
        module = record.build(config, shape)
        weights.load_weights(module, packed)
    except MnistlabError:
        raise
    except Exception as error:
        raise PluginError(f"model '{plan['model'].get('plugin')}' can't be built again: {error!r}") from error
    return Portable(module, record.predict or loop.point_prediction, mean, std).eval()


def ask_of(module: Callable[[Tensor], Tensor]) -> Ask:
    """Return a module as a function of arrays, asked in batches of at most `BATCH`."""

    def ask(pixels: Pixels) -> Logits:
        with torch.inference_mode():
            parts = [module(part) for part in torch.from_numpy(pixels).split(BATCH)]
            return np.asarray(torch.cat(parts).float().cpu().numpy(), dtype=np.float32)

    return ask


def probabilities(logits: Logits) -> npt.NDArray[np.float64]:
    """Return softmax of logits (N, classes)."""
    return np.asarray(softmax(logits.astype(np.float64), axis=1), dtype=np.float64)


@dataclass(frozen=True)
class Agreement:
    """How two ways to compute the same model compare on the same images."""

    images: int
    correct: int
    correct_before: int
    logits_apart: float  # the largest absolute difference
    probabilities_apart: float

    @property
    def good(self) -> bool:
        """Return whether it is the same model."""
        return self.probabilities_apart <= TOLERANCE


def agreement(before: Logits, after: Logits, labels: npt.NDArray[np.int64]) -> Agreement:
    """Return how the logits of a model compare with those of its exported form."""
    if before.shape != after.shape:
        raise CannotExportError(f"the exported model gives {after.shape}, but {before.shape} is the rule")
    return Agreement(
        images=len(labels),
        correct=int((after.argmax(1) == labels).sum()),
        correct_before=int((before.argmax(1) == labels).sum()),
        logits_apart=float(np.abs(before - after).max()),
        probabilities_apart=float(np.abs(probabilities(before) - probabilities(after)).max()),
    )
