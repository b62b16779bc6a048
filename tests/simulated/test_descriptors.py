"""What a long search holds on to."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

import psutil

from tests.simulated.driving import Case, Drives

TRIALS = 200


def test_a_driver_has_no_more_files_open_after_two_hundred_trials_than_after_the_first(tmp_path: Path) -> None:
    drives = Drives(tmp_path, Case("random", "none", trials=TRIALS, epochs=2))
    driver = psutil.Process(drives.start())
    seen = list[tuple[int, int]]()  # events so far, open files
    with suppress(psutil.Error, OSError):
        while driver.status() != psutil.STATUS_ZOMBIE:
            seen.append((drives.told(), len(os.listdir(f"/proc/{driver.pid}/fd"))))
            assert driver.children() == []
            time.sleep(0.02)
    driven = drives.wait(driver.pid)
    assert driven.code == 0, driven.said
    first = [files for told, files in seen if TRIALS / 10 < told < TRIALS]
    last = [files for told, files in seen if told > 3 * TRIALS]
    assert min(len(first), len(last)) > 5
    # A temporary file may be open just now; one for each trial would be a hundred and more.
    assert median(last) <= median(first) + 2
