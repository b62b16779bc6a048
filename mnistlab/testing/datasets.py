"""The contract of datasets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from mnistlab.api import Config, DataPlace, Dataset, DatasetInfo, LabelledImages, Split
from mnistlab.errors import DataUnavailableError
from mnistlab.plugins.registry import Offer
from mnistlab.testing.base import Contract
from mnistlab.testing.traces import at, offline, undisturbed

DIGEST = re.compile(r"[0-9a-f]{64}")
SPLITS: tuple[Split, ...] = ("train", "test")


class DatasetContract(Contract):
    """What every dataset must keep. One that needs the network is skipped; give `data_dir` to try it all the same."""

    data_dir: Path | None = None
    """A folder that holds the dataset's files."""

    def prepared(self, dataset: Offer, folder: Path) -> tuple[Dataset[Config], Config, DataPlace, DatasetInfo]:
        """Return the record, its config, a place without a network, and what `prepare` says."""
        record, config = cast("Dataset[Config]", dataset.record), self.point(dataset)
        place = DataPlace(data_dir=self.data_dir, cache=folder / "cache", offline=True)
        with offline(f"{dataset.name}: prepare, told to be offline,"), at(f"{dataset.name} at {config!r}"):
            try:
                info = record.prepare(config, place)
            except DataUnavailableError as error:
                info = error
        if isinstance(info, DataUnavailableError):
            pytest.skip(f"{dataset.name} is not at hand: {info}")
        check_info(info, dataset.name)
        return record, config, place, info

    def test_dataset_is_what_it_says(self, dataset: Offer, tmp_path: Path) -> None:
        """Both splits have the form and the counts that `prepare` announced, and come without a network."""
        record, config, place, info = self.prepared(dataset, tmp_path)
        for split, count in zip(SPLITS, (info.train_count, info.test_count), strict=True):
            with offline(f"{dataset.name}: load"), at(f"{dataset.name} at {config!r}"):
                found = record.load(config, place, split)
            check_images(found, count, info, f"{dataset.name}, {split}")

    def test_dataset_is_the_same_each_time(self, dataset: Offer, tmp_path: Path) -> None:
        """Preparing and loading twice gives the same, and disturbs no global generator."""
        record, config, place, info = self.prepared(dataset, tmp_path)
        with undisturbed(f"loading {dataset.name}"):
            assert record.prepare(config, place) == info, f"{dataset.name}: preparing it twice gives two answers"
            for split in SPLITS:
                one, two = record.load(config, place, split), record.load(config, place, split)
                same = np.array_equal(one.images, two.images) and np.array_equal(one.labels, two.labels)
                assert same, f"{dataset.name}, {split}: loading it twice gives two answers"

    def test_dataset_holds_its_test_images_apart(self, dataset: Offer, tmp_path: Path) -> None:
        """No test image is a training image."""
        record, config, place, _ = self.prepared(dataset, tmp_path)
        train, test = (record.load(config, place, split).images for split in SPLITS)
        shared = {image.tobytes() for image in train} & {image.tobytes() for image in test}
        assert not shared, f"{dataset.name}: {len(shared)} test images are training images too"


def check_info(info: object, name: str) -> None:
    """Fail unless `prepare` has told everything that the search writes down."""
    assert isinstance(info, DatasetInfo), f"{name}: prepare must return DatasetInfo, not {type(info).__name__}"
    classes, names = info.shape.classes, len(info.class_names)
    assert classes == names, f"{name}: {classes} classes need as many names, but there are {names}"
    assert info.source, f"{name}: its source must be named"
    assert info.sha256, f"{name}: the sha256 of its parts must be given"
    odd = [part for part, digest in info.sha256.items() if not DIGEST.fullmatch(digest)]
    assert not odd, f"{name}: a sha256 has 64 hexadecimal digits; not so that of {', '.join(odd)}"
    for split, count in zip(SPLITS, (info.train_count, info.test_count), strict=True):
        assert count > 0, f"{name}: it must have {split} images, but announces {count}"


def check_images(found: LabelledImages, count: int, info: DatasetInfo, where: str) -> None:
    """Fail unless images and labels have the announced form."""
    assert isinstance(found, LabelledImages), f"{where}: load must return LabelledImages, not {type(found).__name__}"  # pyright: ignore[reportUnnecessaryIsInstance] - a stranger's code
    form = (count, info.shape.channels, info.shape.height, info.shape.width)
    assert found.images.shape == form, f"{where}: images must be of shape {form}, but are {found.images.shape}"
    assert found.images.dtype == np.uint8, f"{where}: images must be uint8, but are {found.images.dtype}"
    assert found.labels.shape == (count,), f"{where}: labels must be of shape {(count,)}, but are {found.labels.shape}"
    assert found.labels.dtype == np.int64, f"{where}: labels must be int64, but are {found.labels.dtype}"
    low, high = int(found.labels.min()), int(found.labels.max())
    last = info.shape.classes - 1
    assert low >= 0, f"{where}: labels must be 0 to {last}, but one is {low}"
    assert high <= last, f"{where}: labels must be 0 to {last}, but one is {high}"
    if found.groups is not None:
        known = (found.groups.shape, found.groups.dtype)
        assert known == ((count,), np.int64), f"{where}: groups must be int64 {(count,)}, but are {known[1]} {known[0]}"
