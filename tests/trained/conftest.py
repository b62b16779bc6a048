"""A small finished run for all tests of what comes after one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.trained.runs import finished_run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on scikit-learn's digits; nobody may change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNISTLAB_DISABLE", "mnistlab-timm,mnistlab-kornia,mnistlab-pyro,mnistlab-torchvision")
        return finished_run(tmp_path_factory.mktemp("small"))


@pytest.fixture
def own_run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the small run that a test may damage."""
    return Path(shutil.copytree(small_run, tmp_path / "runs" / small_run.name))
