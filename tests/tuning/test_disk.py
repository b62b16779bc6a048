"""A disk that is nearly full: nothing new is begun, what runs ends, and the run can be gone on with."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest

from mnistlab import events
from mnistlab.errors import ExitCode
from mnistlab.fsck import check
from mnistlab.store import read_events
from mnistlab.tuning import disk
from mnistlab.tuning.disk import DiskLowError, shortage
from tests.tuning.conftest import RunTiny
from tests.tuning.test_search import moods

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("total", "free", "low"),
    [
        (1 << 40, (1 << 30) - 1, True),
        (1 << 40, 1 << 30, False),
        (1000, 49, True),  # of a small disk, a share
        (1000, 50, False),
    ],
)
def test_when_a_disk_is_nearly_full(monkeypatch: pytest.MonkeyPatch, total: int, free: int, low: bool) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: Usage(total, total - free, free))
    assert bool(shortage(Path())) is low


def test_a_disk_that_can_not_be_asked_is_not_nearly_full(tmp_path: Path) -> None:
    assert shortage(tmp_path / "missing") == ""


@pytest.mark.ray
def test_no_trial_is_begun_on_a_disk_that_is_nearly_full(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def usage(_: object) -> Usage:
        told = "".join(path.read_text() for path in (tmp_path / "runs").glob("*/events.jsonl"))
        return Usage(1 << 40, 0, 1 << 20 if '"trial_started"' in told else 1 << 39)  # full while the first one runs

    monkeypatch.setattr(disk.shutil, "disk_usage", usage)
    with pytest.raises(DiskLowError, match=r"only 1 MiB are free on the disk of .*, and nothing is running") as raised:
        run_tiny(moods("good", "stuck", scheduler="none"))
    assert raised.value.exit_code == ExitCode.RESOURCES_VANISHED
    (run,) = (tmp_path / "runs").iterdir()
    told = [stamped.event for stamped in read_events(run)]
    assert sum(isinstance(event, events.TrialStarted) for event in told) == 1
    assert sum(isinstance(event, events.TrialFinished) for event in told) == 1  # what had begun has ended
    said = [event.message for event in told if isinstance(event, events.Warned)]
    assert len([text for text in said if "no trial is started until there is more" in text]) == 1
    assert check(run).sound
