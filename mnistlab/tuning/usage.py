"""What the machine is doing: processor, memory, disk and GPUs, as far as the system tells."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pynvml

from mnistlab.events import Resources


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
