"""What a trial costs that does (next to) nothing, and how long it is from Enter to the first epoch.

A trial here is one epoch of a one-layer network on forty images of 8x8: the rest is the framework. Trials run one
after the other in one worker, so the time between two ends is the cost of one trial, Optuna, events and files included.

Usage: python benchmarks/trial_overhead.py [TRIALS] [STARTS]
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import spread, table

from mnistlab.store import read_events

EXPERIMENT = """
name = "nothing"
[data]
dataset = "idx"
validation = 8
[model.mlp]
depth = 1
width = {{ low = 32, high = 64 }}
[training]
epochs = 1
[search]
trials = {trials}
scheduler = "none"
[resources]
max_parallel = 1
[confirm]
top = 0
"""


def write_idx(folder: Path) -> None:
    """Write forty images of two classes as four IDX files."""
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        images, labels = rng.integers(0, 256, (40, 8, 8), dtype=np.uint8), np.arange(40, dtype=np.uint8) % 2
        head = np.array([0x803, *images.shape], ">i4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(np.array([0x801, 40], ">i4").tobytes() + labels.tobytes())


def run(folder: Path, experiment: Path, name: str, *options: str) -> tuple[list[float], float]:
    """Run a search; return the times between the ends of its trials and that from Enter to the first epoch."""
    runs, start = folder / name, time.time()
    command = [str(Path(sys.executable).parent / "mnistlab"), "search", str(experiment)]
    subprocess.run(
        [*command, "--data-dir", str(folder), "--runs", str(runs), "--ui", "quiet", *options],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    events = list(read_events(next(runs.iterdir())))
    first = next(e for e in events if e.event.type == "trial_epoch")
    ends = [e.t for e in events if e.event.type == "trial_finished"]
    return [b - a for a, b in itertools.pairwise(ends)], first.time.timestamp() - start


def main(trials: int = 100, starts: int = 5) -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_idx(folder)
        long, short = folder / "long.toml", folder / "short.toml"
        long.write_text(EXPERIMENT.format(trials=trials))
        short.write_text(EXPERIMENT.format(trials=1))
        gaps, _ = run(folder, long, "long")
        own = [run(folder, short, f"own{i}", "--no-plugins")[1] for i in range(starts)]
        every = [run(folder, short, f"every{i}")[1] for i in range(starts)]
    tail = gaps[len(gaps) // 10 :]
    rows = [
        ("steady-state cost of a trial that does nothing, s", "<= 0.15", spread(tail)),
        ("mean of the same, s", "<= 0.15", f"{sum(tail) / len(tail):.3f}"),
        ("from Enter to the end of the first epoch, s", "<= 8", spread(own, 1)),
        ("the same where the packages of plugins/ are installed, s", "", spread(every, 1)),
    ]
    print(table("Overhead of a trial and of a start", ("figure", "wanted", "median (range, n)"), rows))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
