"""These tests write into memory where there is a folder for that: a disk takes its time to flush."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.sample import MEMORY


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mnistlab-", dir=MEMORY))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
