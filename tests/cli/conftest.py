"""Images for searches of the installed command: each of their processes reads files far sooner than scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mnistlab.api import DataPlace
from mnistlab.builtin.datasets.digits import DIGITS
from tests.conftest import idx_bytes

FILES = {"train": "train", "test": "t10k"}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset `digits` as a folder of four IDX files."""
    folder = tmp_path_factory.mktemp("digits")
    place = DataPlace(data_dir=None, cache=folder)
    for split in ("train", "test"):
        half = DIGITS.load(DIGITS.config(), place, split)
        (folder / f"{FILES[split]}-images-idx3-ubyte").write_bytes(idx_bytes(half.images[:, 0]))
        (folder / f"{FILES[split]}-labels-idx1-ubyte").write_bytes(idx_bytes(half.labels.astype(np.uint8)))
    return folder
