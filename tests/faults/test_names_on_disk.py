"""A file is there after a power failure only if its folder's list of names was flushed after it was made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mnistlab.store import durable
from tests.faults.sample import whole_run

LOGS = {"log.txt"}  # what a trial printed is not promised


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> dict[Path, set[str]]:
    """The names in each folder when it was last flushed."""
    really, names = durable.fsync_folder, dict[Path, set[str]]()

    def flush(folder: Path) -> None:
        really(folder)
        names[folder.resolve()] = set(os.listdir(folder))

    monkeypatch.setattr(durable, "fsync_folder", flush)
    return names


def lost(folder: Path, on_disk: dict[Path, set[str]]) -> list[str]:
    """Return what a power failure would take out of a folder, by the names alone."""
    found: list[str] = []
    for path in sorted(folder.rglob("*")):
        held = on_disk.get(path.parent.resolve(), set())
        if path.name not in held and path.name not in LOGS:
            found.append(str(path.relative_to(folder)))
    return found


@pytest.mark.parametrize("earlier", [False, True])
def test_every_name_of_a_run_is_on_the_disk(tmp_path: Path, on_disk: dict[Path, set[str]], earlier: bool) -> None:
    if earlier:
        (tmp_path / "runs").mkdir()
        durable.fsync_folder(tmp_path)
    run = whole_run(tmp_path / "runs")
    assert len([*run.rglob("*")]) > 15
    assert lost(tmp_path, on_disk) == []
