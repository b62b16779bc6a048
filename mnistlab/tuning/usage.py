"""What the machine is doing, as far as the system tells, and whether its disk has room to begin something new."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pynvml

from mnistlab.errors import MachineError
from mnistlab.events import Resources

LOW_BYTES = 1 << 30
LOW_SHARE = 0.05  # of a disk on which that much is a lot


class Usage:
    """Looks at the driver's machine; what can't be known is left out, never guessed."""

    def __init__(self, folder: Path) -> None:
        """Watch the disk that holds `folder`, too."""
        self._folder = folder
        psutil.cpu_percent()  # the first answer has no time to speak of; the next one is about the time since
        self._gpus = _gpus()

    def now(self) -> Resources:
        """Return what is in use; the processor's share is that of the time since the last call."""
        memory = psutil.virtual_memory()
        disk = None
        with suppress(OSError):
            disk = psutil.disk_usage(str(self._folder)).free
        return Resources(
            cpu=psutil.cpu_percent() / 100,
            memory_used=memory.total - memory.available,
            memory_total=memory.total,
            disk_free=disk,
            gpus=tuple(_gpu(index, handle) for index, handle in enumerate(self._gpus)),
        )


def _gpus() -> list[Any]:
    """Return NVML's handles, or none where there is no NVIDIA driver."""
    try:
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _gpu(index: int, handle: Any) -> Mapping[str, Any]:
    """Return what NVML says of one device; some devices and containers answer only some of the questions."""
    found: dict[str, Any] = {"index": index}
    with suppress(pynvml.NVMLError):
        found["name"] = str(pynvml.nvmlDeviceGetName(handle))
    with suppress(pynvml.NVMLError):
        found["use"] = int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
    with suppress(pynvml.NVMLError):
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        found |= {"memory_used": int(memory.used), "memory_total": int(memory.total)}
    return found


# --- a disk that is nearly full -----------------------------------------------------------------------------------


class DiskLowError(MachineError):
    """Nothing more can be begun, for want of disk; what had begun has ended, and is kept.

    A trial that fills the last of it would take all others with it.
    """


def shortage(folder: Path) -> str:
    """Return in words that the disk of `folder` is nearly full, or "" while it is not (or can't be asked)."""
    with suppress(OSError):
        disk = shutil.disk_usage(folder)
        if disk.free < min(LOW_BYTES, LOW_SHARE * disk.total):
            return f"only {disk.free / 2**20:.0f} MiB are free on the disk of {folder}"
    return ""
