"""Whether there is disk enough to begin something new: a trial that fills the last of it takes all others with it."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from mnistlab.errors import MachineError

LOW_BYTES = 1 << 30
LOW_SHARE = 0.05  # of a disk on which that much is a lot


class DiskLowError(MachineError):
    """Nothing more can be begun, for want of disk; what had begun has ended, and is kept."""


def shortage(folder: Path) -> str:
    """Return in words that the disk of `folder` is nearly full, or "" while it is not (or can't be asked)."""
    with suppress(OSError):
        disk = shutil.disk_usage(folder)
        if disk.free < min(LOW_BYTES, LOW_SHARE * disk.total):
            return f"only {disk.free / 2**20:.0f} MiB are free on the disk of {folder}"
    return ""
