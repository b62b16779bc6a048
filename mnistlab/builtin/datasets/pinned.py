"""What the published datasets of four IDX files have in common: 28x28 pixels, pinned hashes, mirrors."""

from __future__ import annotations

from collections.abc import Sequence

from mnistlab.api import Config, DataPlace, Dataset, DatasetInfo, ImageShape, LabelledImages, Split
from mnistlab.data.files import FourFiles
from mnistlab.data.locate import Found, find_or_fetch, load_split


class NoSettings(Config):
    """Nothing to set."""


def pinned_dataset(files: FourFiles, class_names: Sequence[str], summary: str) -> Dataset[NoSettings]:
    """Return the record of a published dataset."""

    def prepare(config: NoSettings, place: DataPlace) -> DatasetInfo:  # noqa: ARG001 (there is nothing to set)
        return describe(find_or_fetch(files, place), class_names)

    def load(config: NoSettings, place: DataPlace, split: Split) -> LabelledImages:  # noqa: ARG001 (same)
        return load_split(files, place, split)[0]

    return Dataset(name=files.dataset, config=NoSettings, prepare=prepare, load=load, summary=summary)


def describe(found: Found, class_names: Sequence[str]) -> DatasetInfo:
    """Return what is known of four files that were found whole."""
    _, channels, height, width = found.train.images.shape
    return DatasetInfo(
        shape=ImageShape(channels, height, width, len(class_names)),
        class_names=tuple(class_names),
        train_count=len(found.train.labels),
        test_count=len(found.test.labels),
        source=found.source,
        sha256=found.sha256,
    )
