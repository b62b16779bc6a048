"""Images for searches of the installed command: each of their processes reads files far sooner than scikit-learn."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mnistlab.api import DataPlace
from mnistlab.builtin.datasets.digits import DIGITS
from mnistlab.testing.fixtures import Lab
from tests.cli.starting import EXPERIMENT, MOODY, end, home_for_ray, settings, start, wait_for
from tests.conftest import idx_bytes, started_in
from tests.tuning.conftest import DISTS

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


@pytest.fixture
def home(ended: Path, digits: Path, tmp_path: Path) -> Path:
    """A folder with images and an experiment."""
    (tmp_path / "images").symlink_to(digits)
    (tmp_path / "tiny.toml").write_text(EXPERIMENT)
    return tmp_path


@pytest.fixture(scope="session")
def ended(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that has ended well, for tests to look at; `finished` is a copy that they may change.

    It is made in this process: what a search imports is there then, and no process that is forked later waits for it.
    """
    folder = tmp_path_factory.mktemp("ended")
    (folder / "images").symlink_to(digits)
    (folder / "tiny.toml").write_text(EXPERIMENT)
    with started_in(folder, settings(folder)):
        less = ("--set", "training.epochs=2", "--trials", "2")
        ran = Lab(folder).run("search", "tiny.toml", "--executor", "local", "--ui", "plain", *less)
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture(scope="session")
def asked_to_stop(ended: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a run that Ctrl-C has ended while its first trial ran, and what that said on standard output."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "images").symlink_to(digits)
    (folder / "tiny.toml").write_text(EXPERIMENT)
    search = start(folder, "search", "tiny.toml", "--set", "training.epochs=15")
    wait_for(folder, "trial_epoch", 3)
    search.send_signal(signal.SIGINT)
    code, out, err = end(search)
    assert code == 130, err
    return folder, out


@pytest.fixture(scope="session")
def all_failed(ended: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of which each of three trials has failed."""
    folder = tmp_path_factory.mktemp("failed")
    (folder / "images").symlink_to(digits)
    (folder / "tiny.toml").write_text(MOODY)
    code, out, err = end(start(folder, "search", "tiny.toml", PYTHONPATH=str(DISTS)))
    assert code == 1, err
    assert "this plan can't be built" in out + err
    assert "Traceback" not in out + err
    return folder


@pytest.fixture
def finished(ended: Path, tmp_path: Path) -> Path:
    """A folder with a run that has ended well: two trials, and two replicates of the better one."""
    return Path(shutil.copytree(ended, tmp_path / "finished", symlinks=True))


@pytest.fixture
def interrupted(asked_to_stop: tuple[Path, str], tmp_path: Path) -> Path:
    """A folder with a run that was interrupted in its first trial."""
    return Path(shutil.copytree(asked_to_stop[0], tmp_path / "interrupted", symlinks=True))


@pytest.fixture
def failed(all_failed: Path, tmp_path: Path) -> Path:
    """A folder with a run of three trials that have failed, by a plugin in `tests/tuning/dists`."""
    return Path(shutil.copytree(all_failed, tmp_path / "failed", symlinks=True))


@pytest.fixture
def ray_home(digits: Path) -> Iterator[Path]:
    """As `home`, with a path short enough for Ray's sockets."""
    with home_for_ray(digits) as folder:
        yield folder
