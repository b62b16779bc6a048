"""These tests write into memory where there is a folder for that: a disk takes its time to flush."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.faults.sample import MEMORY, whole_run

FAULTS = "faults"  # the profile of Hypothesis


def pytest_configure(config: pytest.Config) -> None:
    """Let Hypothesis draw few examples, or many where the long forms of tests are asked for."""
    settings.register_profile(
        FAULTS,
        max_examples=1000 if re.search(r"(?<!not )\bchaos\b", config.option.markexpr) else 30,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


@pytest.fixture(params=["short", pytest.param("long", marks=pytest.mark.chaos)])
def form(request: pytest.FixtureRequest) -> str:
    """Both forms of a test of drawn examples: how many there are says the profile."""
    return request.param


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mnistlab-", dir=MEMORY))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return whole_run(tmp_path / "runs")
