"""Ray's own folder: closed to others, gone with its search, and with the next one where the driver was killed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mnistlab.errors import ResourceError
from mnistlab.tuning.ray import tempdir
from mnistlab.tuning.ray.tempdir import private_folder

pytestmark = pytest.mark.simulated

DRIVER = """
import sys, time
from mnistlab.tuning.ray.tempdir import private_folder
with private_folder() as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, with a path short enough."""
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)


@pytest.fixture
def driver(base: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process with such a folder, and the folder."""
    process = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.communicate()


def test_it_is_closed_to_others_and_goes_with_the_search(base: Path) -> None:
    with private_folder() as folder:
        assert folder.parent == base
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "r" / "logs").mkdir(parents=True)
    assert list(base.iterdir()) == []


def test_that_of_a_driver_that_lives_is_left_alone(driver: tuple[subprocess.Popen[str], Path]) -> None:
    _, other = driver
    with private_folder():
        assert other.is_dir()


def test_that_of_a_driver_that_was_killed_goes_with_the_next_search(
    driver: tuple[subprocess.Popen[str], Path],
) -> None:
    process, other = driver
    process.kill()
    process.wait()
    assert other.is_dir()
    with private_folder() as folder:
        assert folder.is_dir()
        assert not other.exists()


def test_as_long_as_anything_of_its_ray_lives_it_is_left_alone(driver: tuple[subprocess.Popen[str], Path]) -> None:
    process, other = driver
    part = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", str(other / "raylet")])
    try:
        process.kill()
        process.wait()
        with private_folder():
            assert other.is_dir()
    finally:
        part.kill()
        part.wait()
    with private_folder():
        assert not other.exists()


@pytest.mark.parametrize("kind", ["without a lock", "a link", "a linked lock"])
def test_what_is_not_such_a_folder_is_left_alone(base: Path, tmp_path: Path, kind: str) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "kept").write_text("kept")
    (own / tempdir.LOCK).touch()
    found = base / "mnistlab-abcdefgh"
    if kind == "a link":
        found.symlink_to(own)
    else:
        found.mkdir()
        (found / "kept").write_text("kept")
    if kind == "a linked lock":
        (found / tempdir.LOCK).symlink_to(own / tempdir.LOCK)
    with private_folder():
        pass
    assert (found / "kept").read_text() == "kept"
    assert (own / "kept").read_text() == "kept"


def test_without_a_place_that_is_short_enough_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ResourceError, match="at most 22 characters, but TMPDIR is"), private_folder():
        pass


def test_a_folder_that_another_search_removes_before_it_is_locked_is_made_anew(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, swept = tempdir.fcntl.flock, list[Path]()

    def sweep_first(descriptor: int, how: int) -> None:
        if not swept:
            swept.extend(base.iterdir())
            tempdir._sweep(base)
        lock(descriptor, how)

    monkeypatch.setattr(tempdir.fcntl, "flock", sweep_first)
    with private_folder() as folder:
        assert len(swept) == 1
        assert not swept[0].exists()
        assert folder.is_dir()
