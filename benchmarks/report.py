"""How long a report takes and how large it is, by the number of trials; each one is written by a process of its own.

The runs are made up: every trial has eight epochs and a dozen settings, three are confirmed on five seeds. Models are
not asked again, because what that takes is the model's and not the report's.

Usage: python benchmarks/report.py [ROUNDS]
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import spread, table

from mnistlab.report.vega import library
from mnistlab.store import RunWriter, create_run
from mnistlab.store.results import ReplicateResult, TestScore, TrialResult

TRIALS, EPOCHS, IMAGES = (20, 200), 8, 10_000
RUN: dict[str, Any] = {
    "experiment": {"confirm": {"seeds": 5}, "search": {"algorithm": "tpe", "scheduler": "asha"}},
    "seed": 0,
    "metric": "val_accuracy",
    "metrics": ["val_accuracy"],
    "rule": "val_accuracy at the last epoch of the full budget, higher is better",
    "dataset": {"name": "mnist", "requested": "mnist", "fallback": "", "validation": IMAGES, "test": IMAGES},
}


def plan(draw: random.Random) -> dict[str, Any]:
    kind = draw.choice(("cnn", "mlp"))
    part = {"plugin": f"mnistlab:{kind}", "distribution": "mnistlab", "version": "0.1.0"}
    shape = {"depth": draw.randint(1, 5), "width": draw.randint(16, 512), "dropout": draw.random() / 2}
    rates = {"lr": 10 ** draw.uniform(-4, -1), "weight_decay": 10 ** draw.uniform(-6, -1), "beta1": draw.random()}
    return {
        "model": {"name": kind, **part, "config": {**shape, "activation": draw.choice(("relu", "gelu", "silu"))}},
        "optimizer": {"name": "adamw", **part, "config": {**rates, "schedule": draw.choice(("cosine", "one-cycle"))}},
        "transforms": [],
        "training": {"epochs": EPOCHS, "batch_size": draw.choice((64, 128, 256))},
    }


def trial(number: int, draw: random.Random) -> TrialResult:
    epochs = EPOCHS if number % 4 == 0 else draw.choice((1, 3))
    best = 0.9 + 0.099 * draw.random()
    history = tuple(epoch(best - 0.05 / (1 + e)) for e in range(epochs))
    return TrialResult(
        trial=f"{number:04}",
        number=number,
        state="complete" if epochs == EPOCHS else "pruned",
        seed=number,
        plan=plan(draw),
        label=f"plan {number}",
        history=history,
        metrics={**history[-1], "parameters": draw.randint(10_000, 2_000_000)},
        seconds=10.0 * epochs + draw.random(),
    )


def epoch(accuracy: float) -> dict[str, float]:
    loss = 1 - accuracy
    return {
        "train_loss": loss,
        "val_loss": loss,
        "val_accuracy": accuracy,
        "images_per_second": 9e3 + accuracy,
        "seconds": 9.87654321 + accuracy,
    }


def made_up(root: Path, count: int) -> Path:
    """Return a run directory of `count` trials."""
    draw = random.Random(count)
    path = create_run(root, f"made-up-{count}", datetime.now(UTC))
    writer = RunWriter(path)
    writer.write_run({"run": path.name, **RUN})
    for number in range(count):
        writer.write_trial(trial(number, draw))
    for number in (0, 4, 8):
        for seed in range(1, 6):
            correct = 9_900 + number + seed
            score = TestScore(correct=correct, images=IMAGES, loss=0.03)
            bits = "1" * correct + "0" * (IMAGES - correct)
            values = epoch(correct / IMAGES)
            writer.write_replicate(
                ReplicateResult(
                    trial=f"{number:04}", replicate=seed, seed=seed, metrics=values, val_correct=bits, test=score
                )
            )
    writer.close()
    return path


def written(path: Path, output: Path) -> tuple[float, float]:
    """Return the seconds from the start of the command to its end, and those of processor time."""
    start, before = time.perf_counter(), used()
    command = [sys.executable, "-m", "mnistlab", "report", str(path), "--no-predictions", "-o", str(output)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, used() - before


def used() -> float:
    """Return the processor time of all children that have ended: other work on the machine matters less to it."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for count in TRIALS:
            path, output = made_up(Path(folder), count), Path(folder, f"{count}.html")
            times = [written(path, output) for _ in range(rounds)]
            size = f"{output.stat().st_size / 1e6:.2f}"
            rows.append((count, *(spread(kind, 1) for kind in zip(*times, strict=True)), size))
        title = f"Report: seconds and size (MB, of which {len(library()) / 1e6:.2f} are the chart library)"
        print(table(title, ("trials", "seconds", "of processor time", "MB"), rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
