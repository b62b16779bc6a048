"""MNIST, with the writer of each training digit where the QMNIST label file is at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mnistlab.api import DataPlace, Dataset, DatasetInfo, LabelledImages, Split
from mnistlab.builtin.datasets import qmnist
from mnistlab.builtin.datasets.pinned import NoSettings, describe
from mnistlab.data.files import FourFiles, four_parts
from mnistlab.data.locate import find_or_fetch, load_split

FILES = FourFiles(
    dataset="mnist",
    torchvision="MNIST",
    classes=10,
    parts=four_parts(
        [
            (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            (
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            (
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            (
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ]
    ),
    # PyTorch's copy, and that of the Common Visual Data Foundation; the authors' own site no longer serves the files
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
)


def _prepare(config: NoSettings, place: DataPlace) -> DatasetInfo:  # noqa: ARG001 (there is nothing to set)
    found = find_or_fetch(FILES, place)
    info = describe(found, [str(digit) for digit in range(10)])
    writers = _writers(next(iter(found.paths.values())).parent, place, found.train)
    return info if writers is None else replace(info, sha256={**info.sha256, qmnist.NAME: writers.sha256})


def _load(config: NoSettings, place: DataPlace, split: Split) -> LabelledImages:  # noqa: ARG001 (same)
    images, folder = load_split(FILES, place, split)
    writers = _writers(folder, place, images) if split == "train" else None
    return images if writers is None else replace(images, groups=writers.ids)


def _writers(folder: Path, place: DataPlace, train: LabelledImages) -> qmnist.Writers | None:
    path = qmnist.find([folder, *([] if place.data_dir is None else [place.data_dir])])
    return None if path is None else qmnist.read(path, train.labels)


MNIST = Dataset(
    name="mnist",
    config=NoSettings,
    prepare=_prepare,
    load=_load,
    summary="MNIST: 60,000 + 10,000 handwritten digits, 28x28; with writers if the QMNIST labels are at hand.",
)
