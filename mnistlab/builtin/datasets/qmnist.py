"""Who wrote which MNIST digit: the label file of QMNIST, whose rows are in MNIST's order.

C. Yadav, L. Bottou, "Cold case: the lost MNIST digits", arXiv:1905.10498. A row holds, among others, the digit, the
NIST partition (hsf: 0 employees, 4 students) and the writer's number.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnistlab.errors import DataError

NAME = "qmnist-train-labels.tsv"
MAX_BYTES = 1 << 26  # the real one decompresses to two million bytes
_LABEL, _WRITER = 0, 2


@dataclass(frozen=True, kw_only=True)
class Writers:
    """The writer of each training digit, int64 (60000,), and the sha256 of the decompressed label file."""

    ids: npt.NDArray[np.int64]
    sha256: str


def find(folders: Iterable[Path]) -> Path | None:
    """Return the label file in one of `folders`, or in a folder `qmnist` inside or beside it, or None."""
    places = (place for folder in folders for place in (folder, folder / "qmnist", folder.absolute().parent / "qmnist"))
    paths = (place / f"{NAME}{suffix}" for place in places for suffix in (".gz", ""))
    return next((path for path in paths if path.is_file()), None)


def read(path: Path, labels: npt.NDArray[np.int64]) -> Writers:
    """Read the writers, and make sure that the file's digits equal MNIST's `labels` (N,) at every position.

    Raises:
        DataError: if the file is damaged, or is not about these images.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_BYTES)
        columns = np.loadtxt(io.BytesIO(content), dtype=np.int64, usecols=(_LABEL, _WRITER), ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: tab-separated columns (label, hsf, writer, ...) were expected: {error}") from error
    _check(path, columns[:, 0], labels)
    return Writers(ids=np.ascontiguousarray(columns[:, 1]), sha256=hashlib.sha256(content).hexdigest())


def _check(path: Path, found: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> None:
    if len(found) != len(labels):
        raise DataError(f"{path}: {len(labels):,} rows were expected (one a training image), but found {len(found):,}")
    if not np.array_equal(found, labels):
        row = int(np.argmax(found != labels))
        raise DataError(f"{path}: label {labels[row]} was expected in row {row}, as in MNIST, but found {found[row]}")
