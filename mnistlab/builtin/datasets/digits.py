"""The handwritten digits inside scikit-learn: 1,797 images that need neither network nor files.

They are the test part of E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits" (UCI, 1998): 8x8 counts of
ink from 0 to 16. Here they become 28x28 as MNIST's digits did, a box of 20x20 in the middle, so that whatever is made
for MNIST, shifts and rotations included, works on them unchanged.
"""

# ruff: noqa: PLC0415 (scikit-learn and scipy take a second to import)

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mnistlab.api import DataPlace, Dataset, DatasetInfo, ImageShape, LabelledImages, Split
from mnistlab.builtin.datasets.pinned import NoSettings

SIDE, BOX = 28, 20
TEST_COUNT = 500


@cache
def _halves() -> dict[Split, LabelledImages]:
    """Return both splits: a stratified drawing with a fixed seed holds out 500 images for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw: Any = load_digits()
    labels = np.asarray(raw.target, dtype=np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=TEST_COUNT, stratify=labels, random_state=0)
    return {"train": _pick(raw.images, labels, np.sort(train)), "test": _pick(raw.images, labels, np.sort(test))}


def _pick(
    images: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], indices: npt.NDArray[np.int64]
) -> LabelledImages:
    """Return the 8x8 `images` at `indices`, magnified bilinearly (pixel centres kept in proportion) to uint8."""
    from scipy.ndimage import zoom

    factor, margin = BOX / images.shape[1], (SIDE - BOX) // 2
    large: Any = zoom(images[indices], (1, factor, factor), order=1, mode="nearest", grid_mode=True)
    pixels = np.clip(np.rint(large * (255 / 16)), 0, 255).astype(np.uint8)
    framed = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin)))
    return LabelledImages(images=framed[:, None], labels=labels[indices])


def _prepare(config: NoSettings, place: DataPlace) -> DatasetInfo:  # noqa: ARG001 (nothing to set or to look for)
    halves = _halves()
    arrays = {f"{split}-{kind}": getattr(half, kind) for split, half in halves.items() for kind in ("images", "labels")}
    return DatasetInfo(
        shape=ImageShape(1, SIDE, SIDE, 10),
        class_names=tuple(str(digit) for digit in range(10)),
        train_count=len(halves["train"].labels),
        test_count=len(halves["test"].labels),
        source="scikit-learn, load_digits()",
        sha256={name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()},
    )


def _load(config: NoSettings, place: DataPlace, split: Split) -> LabelledImages:  # noqa: ARG001 (same)
    half = _halves()[split]
    return LabelledImages(images=half.images.copy(), labels=half.labels.copy())


DIGITS = Dataset(
    name="digits",
    config=NoSettings,
    prepare=_prepare,
    load=_load,
    summary="The 1,797 handwritten digits inside scikit-learn, scaled to 28x28: needs no network.",
)
