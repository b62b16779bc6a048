"""What every benchmark says of the machine that it ran on, and how it prints its table."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def describe() -> str:
    """Return processor, cores, device and versions in a line."""
    import os

    import torch

    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    flags = [name for name, has in (("AMX", torch.cpu._is_amx_tile_supported()),) if has]
    gpu = f", {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else ""
    versions = ", ".join(f"{name} {version(name)}" for name in ("mnistlab", "torch", "ray", "optuna"))
    cores = len(os.sched_getaffinity(0))
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    return f"{day}; {cores} cores of {model} {' '.join(flags)}{gpu}; Python {platform.python_version()}, {versions}"


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table under a heading, with the machine below."""
    cells = [[str(cell) for cell in row] for row in rows]
    lines = [f"## {title}", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([*lines, "", describe(), ""])


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return `median (least-greatest, n)`."""
    return (
        f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f}, n={len(values)})"
    )
