"""The four files of an MNIST-like dataset: what they are called, and whether they are what they should be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from mnistlab.api import LabelledImages, Split
from mnistlab.data.idx import IMAGES, LABELS, IdxArray, read_idx
from mnistlab.errors import DataError

T = TypeVar("T")

_OTHER = "damaged, or a file of another dataset"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the four files, and what is known of it beforehand.

    `sha256` is the digest of its decompressed bytes, `archive` that of the `.gz` file as pooch writes it
    (`sha256:...` or `md5:...`). Either may be empty. Where only the archive is known, only the archive is accepted.
    """

    name: str
    images: bool
    sha256: str = ""
    archive: str = ""


@dataclass(frozen=True, kw_only=True)
class FourFiles:
    """A dataset of four IDX files: where it is found, and what it must be.

    `parts` holds train images, train labels, test images and test labels, in this order. `torchvision` is the folder
    in which torchvision keeps the dataset; `classes` is None where the labels themselves decide.
    """

    dataset: str
    parts: tuple[Part, Part, Part, Part]
    classes: int | None = None
    mirrors: tuple[str, ...] = ()
    torchvision: str = ""

    def of(self, split: Split) -> tuple[Part, Part]:
        """Return the images part and the labels part of `split`."""
        return self.parts[:2] if split == "train" else self.parts[2:]


Digests = dict[str, str]


def four_parts(hashes: Iterable[tuple[str, str]] = ()) -> tuple[Part, Part, Part, Part]:
    """Return the usual four names, with (decompressed sha256, archive hash) for each where `hashes` are given."""
    pins = list(hashes) or [("", "")] * 4
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    first, second, third, fourth = (
        Part(name=name, images="images" in name, sha256=sha256, archive=archive)
        for name, (sha256, archive) in zip(names, pins, strict=True)
    )
    return first, second, third, fourth


def find_part(part: Part, folder: Path) -> Path | None:
    """Return the file of `part` in `folder`: the archive if there is one, else the decompressed file, else None.

    Images that have a channel dimension may be called `...-idx4-ubyte`.
    """
    names = [part.name, part.name.replace("idx3", "idx4")]
    paths = (folder / f"{name}{suffix}" for name in names for suffix in (".gz", ""))
    return next((path for path in paths if path.is_file()), None)


def read_all(files: FourFiles, paths: Mapping[str, Path]) -> tuple[LabelledImages, LabelledImages, Digests]:
    """Read and check all four files: (train, test, sha256 of each part's decompressed bytes).

    `paths` maps the parts' names to their files.

    Raises:
        DataError: with every fault of every file, one a line.
    """
    heading = _heading(files, paths)
    arrays = gather(heading, [partial(_read_part, part, paths[part.name]) for part in files.parts])
    digests = {part.name: array.sha256 for part, array in zip(files.parts, arrays, strict=True)}
    train, test = gather(
        heading, [partial(_pair, files, paths, "train", arrays[:2]), partial(_pair, files, paths, "test", arrays[2:])]
    )
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = f"{train.images.shape[1:]} for training and {test.images.shape[1:]} for testing"
        raise DataError(f"{heading}: images of one (channels, height, width) were expected, but found {shapes}")
    return train, test, digests


def read_split(files: FourFiles, paths: Mapping[str, Path], split: Split) -> LabelledImages:
    """Read and check the two files of one split; the other two are not opened.

    Raises:
        DataError: with every fault of both files, one a line.
    """
    heading = _heading(files, paths)
    arrays = gather(heading, [partial(_read_part, part, paths[part.name]) for part in files.of(split)])
    return gather(heading, [partial(_pair, files, paths, split, arrays)])[0]


def gather(heading: str, steps: Iterable[Callable[[], T]]) -> list[T]:
    """Take every step and return what they return; raise one DataError with the faults of all that failed."""
    results: list[T] = []
    faults: list[str] = []
    for step in steps:
        try:
            results.append(step())
        except DataError as error:
            faults.append(f"  {error}")
    if faults:
        raise DataError("\n".join([f"{heading}:", *faults]))
    return results


def _heading(files: FourFiles, paths: Mapping[str, Path]) -> str:
    return f"dataset '{files.dataset}' in {next(iter(paths.values())).parent}"


def _read_part(part: Part, path: Path) -> IdxArray:
    if part.archive and not part.sha256:
        _check_archive(part, path)
    array = read_idx(path, IMAGES if part.images else LABELS)
    if part.sha256 and array.sha256 != part.sha256:
        raise DataError(f"{path}: {_OTHER}: sha256 {part.sha256} was expected, but found {array.sha256}")
    return array


def _check_archive(part: Part, path: Path) -> None:
    """Hold the compressed file against its published hash: there is none for what it decompresses to."""
    if path.suffix != ".gz":
        raise DataError(
            f"{path}: only the archive {part.name}.gz can be verified (no hash of its decompressed form is published); "
            "give the .gz file, or read this folder as dataset 'idx'"
        )
    algorithm, _, expected = part.archive.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != expected:
        read_idx(path, IMAGES if part.images else LABELS)  # says more than a digest does, if the file is damaged
        raise DataError(f"{path}: {_OTHER}: {algorithm} {expected} was expected, but found {found}")


def _pair(files: FourFiles, paths: Mapping[str, Path], split: Split, arrays: list[IdxArray]) -> LabelledImages:
    """Put images and labels together: as many of the one as of the other, and no label out of range."""
    images, labels = (array.values for array in arrays)
    place = paths[files.of(split)[1].name]
    if len(images) != len(labels):
        raise DataError(f"{place}: {len(images):,} labels were expected (one an image), but found {len(labels):,}")
    if files.classes is not None and labels.max() >= files.classes:
        first = int(np.argmax(labels >= files.classes))
        rule = f"labels 0 to {files.classes - 1} were expected"
        raise DataError(f"{place}: {rule}, but found {labels[first]} at position {first}")
    shaped = images[:, None] if images.ndim == 3 else images
    return LabelledImages(images=shaped, labels=labels.astype(np.int64))
