"""What people wait for at the prompt: `mnistlab --help`, and the whole quick search.

Usage: python benchmarks/commands.py [HELPS] [SEARCHES]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import spread, table

ROOT = Path(__file__).resolve().parents[1]


def seconds(*arguments: str) -> float:
    """Return the wall-clock time of a command that must succeed."""
    start = time.perf_counter()
    subprocess.run([str(Path(sys.executable).parent / "mnistlab"), *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main(helps: int = 11, searches: int = 3) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as runs:
        seconds("--help")
        quick = [seconds("search", str(ROOT / "experiments/quick.toml"), "--runs", runs) for _ in range(searches)]
    rows = [
        ("mnistlab --help, s", "< 0.4", spread([seconds("--help") for _ in range(helps)], 2)),
        ("mnistlab search experiments/quick.toml, s", "< 90", spread(quick, 0)),
    ]
    print(table("Commands", ("figure", "wanted", "median (range, n)"), rows))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
