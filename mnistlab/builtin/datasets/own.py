"""The user's own images: a folder of four IDX files with MNIST's names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from mnistlab.api import Config, DataPlace, Dataset, DatasetInfo, ImageShape, LabelledImages, Split
from mnistlab.data.files import FourFiles, four_parts, read_all, read_split
from mnistlab.data.locate import whole_folder
from mnistlab.errors import DataError


def _absolute(folder: str) -> str:
    return folder if not folder or folder.startswith("~") else str(Path(folder).absolute())


FILES = FourFiles(dataset="idx", parts=four_parts())


class IdxConfig(Config):
    """Where the files lie: `folder`, or else the folder given by --data-dir or MNISTLAB_DATA.

    A relative one is seen from where the command was typed, and kept as an absolute one: workers are elsewhere, and so
    may be whoever goes on with the run. `~` is each machine's own.
    """

    folder: Annotated[str, AfterValidator(_absolute)] = ""


def _prepare(config: IdxConfig, place: DataPlace) -> DatasetInfo:
    folder, paths = _find(config, place)
    train, test, sha256 = read_all(FILES, paths)
    _, channels, height, width = train.images.shape
    classes = 1 + int(max(train.labels.max(), test.labels.max()))
    return DatasetInfo(
        shape=ImageShape(channels, height, width, classes),
        class_names=tuple(str(label) for label in range(classes)),
        train_count=len(train.labels),
        test_count=len(test.labels),
        source=str(folder),
        sha256=sha256,
    )


def _load(config: IdxConfig, place: DataPlace, split: Split) -> LabelledImages:
    return read_split(FILES, _find(config, place)[1], split)


def _find(config: IdxConfig, place: DataPlace) -> tuple[Path, Mapping[str, Path]]:
    folder = Path(config.folder).expanduser() if config.folder else place.data_dir
    if folder is None:
        raise DataError("dataset 'idx': a folder is needed: set `folder`, or give --data-dir or MNISTLAB_DATA")
    if not folder.is_dir():
        raise DataError(f"{folder}: a folder with four IDX files was expected, but there is no such folder")
    paths = whole_folder(FILES, folder)
    if paths is None:
        names = ", ".join(part.name for part in FILES.parts)
        raise DataError(f"dataset 'idx' in {folder}: none of {names} is there (with or without .gz)")
    return folder, paths


IDX = Dataset(
    name="idx",
    config=IdxConfig,
    prepare=_prepare,
    load=_load,
    summary="Your own images: a folder of four IDX files with MNIST's names, plain or .gz.",
)
