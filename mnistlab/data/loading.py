"""The doors through which images come: `open_train` for everybody, `open_test` for the confirmation alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from mnistlab.api import Config, DataPlace, Dataset, DatasetInfo, LabelledImages, Split
from mnistlab.errors import MnistlabError, PluginError
from mnistlab.util.seal import check_open

T = TypeVar("T")


def prepare_dataset(dataset: Dataset[Any], config: Config, place: DataPlace) -> DatasetInfo:
    """Find or fetch the dataset and check all of it, test files included, without handing images out.

    Raises:
        DataError: if the data is wrong.
        DataUnavailableError: if it can be neither found nor fetched.
        PluginError: if the dataset's own code fails.
    """
    return _guarded(dataset, "prepare", lambda: dataset.prepare(config, place))


def open_train(dataset: Dataset[Any], config: Config, place: DataPlace) -> LabelledImages:
    """Return the training images of a dataset that `prepare_dataset` has found.

    Raises:
        DataError: if the data is wrong, or no longer there.
        PluginError: if the dataset's own code fails or returns something else than labelled images.
    """
    return _load(dataset, config, place, "train")


def open_test(dataset: Dataset[Any], config: Config, place: DataPlace) -> LabelledImages:
    """Return the test images, where the test set is open (`mnistlab.util.seal`): in the confirmation, which records it.

    Raises:
        SealedError: anywhere else.
        DataError: if the data is wrong, or no longer there.
        PluginError: if the dataset's own code fails or returns something else than labelled images.
    """
    check_open(dataset.name)
    return _load(dataset, config, place, "test")


def images_digest(images: LabelledImages) -> str:
    """Return the sha256 of images and labels, to tell whether two machines have the same."""
    whole = hashlib.sha256(images.images.tobytes())
    whole.update(images.labels.astype("<i8").tobytes())
    return whole.hexdigest()


def _load(dataset: Dataset[Any], config: Config, place: DataPlace, split: Split) -> LabelledImages:
    images = _guarded(dataset, "load", lambda: dataset.load(config, place, split))
    fault = _fault_of(images)
    if fault:
        raise PluginError(f"dataset '{dataset.name}': load(..., {split!r}) returned {fault}")
    return images


def _guarded(dataset: Dataset[Any], what: str, step: Callable[[], T]) -> T:
    """Call into a plugin: its own faults are named as such, ours pass through."""
    try:
        return step()
    except MnistlabError:
        raise
    except Exception as error:
        raise PluginError(f"dataset '{dataset.name}': {what} failed with {type(error).__name__}: {error}") from error


def _fault_of(given: LabelledImages) -> str:
    """Return in what the images break the contract of `LabelledImages`, or ""."""
    images, labels, groups = given.images, given.labels, given.groups
    if images.ndim != 4 or images.dtype != np.uint8:
        return f"images {images.dtype} {images.shape}, but uint8 (N, C, H, W) is the rule"
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        return f"labels {labels.dtype} {labels.shape}, but int64 {images.shape[:1]} is the rule"
    if len(labels) == 0 or labels.min() < 0:
        return "no images or labels below 0, but classes are counted from 0"
    if groups is not None and (groups.dtype != np.int64 or groups.shape != labels.shape):
        return f"groups {groups.dtype} {groups.shape}, but int64 {labels.shape} is the rule"
    return ""
