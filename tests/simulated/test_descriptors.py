"""What a long search holds on to."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

import psutil
import pytest

from tests.simulated.driving import Case, Drives

pytestmark = pytest.mark.simulated


@pytest.mark.parametrize("trials", [40, pytest.param(200, marks=pytest.mark.chaos)])
def test_a_driver_has_no_more_files_open_after_many_trials_than_after_the_first(tmp_path: Path, trials: int) -> None:
    drives = Drives(tmp_path, Case("random", "none", trials=trials, epochs=2))
    driver = psutil.Process(drives.start())
    seen = list[tuple[int, int]]()  # events so far, open files
    with suppress(psutil.Error, OSError):
        while driver.status() != psutil.STATUS_ZOMBIE:
            seen.append((drives.told(), len(os.listdir(f"/proc/{driver.pid}/fd"))))
            assert driver.children() == []
            time.sleep(0.02)
    driven = drives.wait(driver.pid)
    assert driven.code == 0, driven.said
    first = [files for told, files in seen if trials / 10 < told < trials]
    last = [files for told, files in seen if told > 3 * trials]
    assert min(len(first), len(last)) > 5
    # A temporary file may be open just now; one for each trial would be dozens.
    assert median(last) <= median(first) + 2
