"""The contract of datasets."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from mnistlab.api import Config, DataPlace, Dataset, DatasetInfo, LabelledImages, Split
from mnistlab.errors import DataUnavailableError
from mnistlab.registry import Offer
from mnistlab.testing.base import Contract, undisturbed

SPLITS: tuple[Split, ...] = ("train", "test")


class DatasetContract(Contract):
    """What every dataset must keep. One that needs the network is skipped; give `data_dir` to try it all the same."""

    data_dir: Path | None = None
    """A folder that holds the dataset's files."""

    def prepared(self, dataset: Offer, folder: Path) -> tuple[Dataset[Config], Config, DataPlace, DatasetInfo]:
        """Return the record, its config, a place without a network, and what `prepare` says."""
        record, config = cast("Dataset[Config]", dataset.record), self.point(dataset)
        place = DataPlace(data_dir=self.data_dir, cache=folder / "cache", offline=True)
        try:
            return record, config, place, record.prepare(config, place)
        except DataUnavailableError as error:
            pytest.skip(f"{dataset.name} is not at hand: {error}")

    def test_dataset_is_what_it_says(self, dataset: Offer, tmp_path: Path) -> None:
        """Both splits have the form and the counts that `prepare` announced."""
        record, config, place, info = self.prepared(dataset, tmp_path)
        assert len(info.class_names) == info.shape.classes, (
            f"{dataset.name}: {info.shape.classes} classes need as many names"
        )
        assert info.source, f"{dataset.name}: its source must be named"
        assert info.sha256, f"{dataset.name}: the sha256 of its parts must be given"
        for split, count in zip(SPLITS, (info.train_count, info.test_count), strict=True):
            check_images(record.load(config, place, split), count, info, f"{dataset.name}, {split}")

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


def check_images(found: LabelledImages, count: int, info: DatasetInfo, where: str) -> None:
    """Fail unless images and labels have the announced form."""
    form = (count, info.shape.channels, info.shape.height, info.shape.width)
    assert found.images.shape == form, f"{where}: images must be of shape {form}, but are {found.images.shape}"
    assert found.images.dtype == np.uint8, f"{where}: images must be uint8, but are {found.images.dtype}"
    assert found.labels.shape == (count,), f"{where}: labels must be of shape {(count,)}, but are {found.labels.shape}"
    assert found.labels.dtype == np.int64, f"{where}: labels must be int64, but are {found.labels.dtype}"
    low, high = int(found.labels.min()), int(found.labels.max())
    last = info.shape.classes - 1
    assert low >= 0, f"{where}: labels must be 0 to {last}, but one is {low}"
    assert high <= last, f"{where}: labels must be 0 to {last}, but one is {high}"
    assert found.groups is None or found.groups.shape == (count,), f"{where}: groups must be of shape {(count,)}"
