"""The split of the training images into a part to train on and a part to validate on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from mnistlab.errors import DataError

Indices = npt.NDArray[np.int64]
How = Literal["stratified", "writer"]


@dataclass(frozen=True, kw_only=True)
class Division:
    """Ascending positions int64 of the images to train on and of those to validate on; no image is in both.

    `left_out` counts the images that are in neither: it is asked to train on a part only.
    """

    train: Indices
    validation: Indices
    left_out: int = 0

    def digest(self) -> str:
        """Return the sha256 of the validation positions as little-endian 64-bit numbers, for the run's record.

        Where images were left out, the positions of those to train on come after them.
        """
        said = np.concatenate([self.validation, self.train]) if self.left_out else self.validation
        return hashlib.sha256(said.astype("<i8").tobytes()).hexdigest()


def split_indices(
    labels: Indices, groups: Indices | None, *, validation: int | float, seed: int, how: How = "stratified"
) -> Division:
    """Split the images whose labels (N,) and, where known, writers (N,) are given.

    `validation` is a number of images, or a share of them if it is below 1. "stratified" keeps each class's share
    (as scikit-learn's `train_test_split`). "writer" keeps all images of a writer on one side, as MNIST's own test set
    does; its count stays so little below `validation` that no further writer would fit.

    Raises:
        DataError: if either part would lack a class, or if "writer" is asked for and the writers are not known.
    """
    count = _wished(len(labels), validation)
    _check_room(labels, count)
    generator = np.random.Generator(np.random.PCG64(seed))
    chosen = _by_class(labels, count, generator) if how == "stratified" else _by_writer(groups, count, generator)
    inside = np.zeros(len(labels), dtype=np.bool_)
    inside[chosen] = True
    division = Division(train=np.flatnonzero(~inside), validation=np.flatnonzero(inside))
    _check_classes(labels, division, how)
    return division


def part_of(division: Division, labels: Indices, *, train: int | float, seed: int) -> Division:
    """Return a division of images with labels (N,) that trains on a part only, in which each class keeps its share.

    `train` is a number of images, or a share of those that the division trains on if it is below 1.

    Raises:
        DataError: if the part would lack a class, or if there are not so many.
    """
    total, there = len(division.train), labels[division.train]
    count, classes = _wished(total, train), len(np.unique(labels))
    if not (classes <= count <= total - classes or count == total):
        rule = f"{classes} to {total - classes} images can be trained on, or all {total:,} that do not validate"
        raise DataError(f"data.train: {rule}, but {count:,} were asked for")
    if count == total:
        return division
    chosen = _by_class(there, count, np.random.Generator(np.random.PCG64(seed)))
    return replace(division, train=np.sort(division.train[chosen]), left_out=total - count)


def _wished(total: int, validation: int | float) -> int:
    """Return the number of validation images that a count or a share asks for."""
    return round(total * validation) if 0 < validation < 1 else int(validation)


def _check_room(labels: Indices, count: int) -> None:
    classes = len(np.unique(labels))
    if not classes <= count <= len(labels) - classes:
        rule = f"{classes} to {len(labels) - classes} images can be held out of {len(labels):,} in {classes} classes"
        raise DataError(f"data.validation: {rule} (each part needs every class), but {count:,} were asked for")


def _check_classes(labels: Indices, division: Division, how: How) -> None:
    everything = set(np.unique(labels).tolist())
    for name, part in (("training", division.train), ("validation", division.validation)):
        missing = sorted(everything - set(np.unique(labels[part]).tolist()))
        if missing:
            rule = f"the {how} split must leave every class in both parts"
            raise DataError(f"data.validation: {rule}, but the {name} part lacks {missing}; hold out another number")


def _by_class(labels: Indices, count: int, generator: np.random.Generator) -> Indices:
    """Draw `count` images so that each class keeps its share: those that scikit-learn's `train_test_split` draws.

    Its import takes a second at the start of every search, and what it draws may change with its version.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    if sizes.min() < 2:
        rare = int(classes[np.argmin(sizes)])
        raise DataError(f"data.split: a stratified split needs two images of every class, but class {rare} has one")
    draws = np.random.RandomState(int(generator.integers(2**32)))  # as scikit-learn draws, with seeds of 32 bits
    places = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    first = _by_size(sizes, len(labels) - count, draws)
    last = first + _by_size(sizes - first, count, draws)
    parts = zip(places, first, last, strict=True)
    return np.concatenate([one[draws.permutation(len(one))[begin:end]] for one, begin, end in parts])


def _by_size(sizes: Indices, count: int, draws: np.random.RandomState) -> Indices:
    """Return how many of `count` images each class gives: by its size, rounded down, then the largest rests first."""
    exact = sizes / sizes.sum() * count
    given = np.floor(exact)
    rests, missing = exact - given, int(count - given.sum())
    for rest in np.unique(rests)[::-1] if missing else ():
        equal = np.flatnonzero(rests == rest)
        more = draws.choice(equal, size=min(len(equal), missing), replace=False)
        given[more] += 1
        missing -= len(more)
        if not missing:
            break
    return given.astype(np.int64)


def _by_writer(groups: Indices | None, count: int, generator: np.random.Generator) -> Indices:
    """Take writers in random order, passing over those who no longer fit."""
    if groups is None:
        raise DataError(
            'data.split: "writer" needs the QMNIST label file, which tells who wrote each digit; put '
            "qmnist-train-labels.tsv.gz beside the MNIST files or in a qmnist/ folder next to or inside it"
        )
    writers, sizes = np.unique(groups, return_counts=True)
    taken: list[int] = []
    for i in generator.permutation(len(writers)):
        if sizes[i] <= count:
            taken.append(int(writers[i]))
            count -= int(sizes[i])
    return np.flatnonzero(np.isin(groups, taken))
