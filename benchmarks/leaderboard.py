"""How long 10,000 trials of 100 runs take to be read, ranked and listed.

The runs are of one dataset, split and metric, so that all of their trials stand in one ranking. Each has 100 trials,
three of them confirmed on five seeds with 10,000 validation and 10,000 test images. They rank by accuracy, and in one
figure by loss: then the losses on each image are read and compared, too.

Usage: python benchmarks/leaderboard.py [ROUNDS] [RUNS]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import spread, table

from mnistlab import store
from mnistlab.leaderboard import group, rank_together
from mnistlab.report.tables import csv_text, section
from mnistlab.store.jsonl import encode_file
from mnistlab.store.results import Cost, ReplicateResult, TestScore, TrialResult, to_json

TRIALS, CONFIRMED, SEEDS, IMAGES, EPOCHS = 100, 3, 5, 10_000, 8


def write(path: Path, body: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_file(body))


def plan(rng: np.random.Generator) -> dict[str, Any]:
    about = {"distribution": "mnistlab", "version": "0.1.0"}
    model = {"depth": int(rng.integers(1, 4)), "channels": int(rng.integers(8, 64)), "dropout": float(rng.random())}
    optimizer = {"lr": float(10 ** rng.uniform(-4, -1)), "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.01}
    return {
        "model": {"name": "cnn", "plugin": "mnistlab:cnn", "config": model, **about},
        "optimizer": {"name": "adamw", "plugin": "mnistlab:adamw", "config": optimizer, **about},
        "transforms": [{"name": "shift", "plugin": "mnistlab:shift", "config": {"pixels": 2}, **about}],
        "training": {"epochs": EPOCHS, "batch_size": 128, "precision": "auto", "label_smoothing": 0.0},
    }


def write_run(root: Path, number: int) -> None:
    rng, path = np.random.default_rng(number), root / f"cnn-{number:03}"
    dataset = {"name": "mnist", "requested": "mnist", "fallback": "", "split_sha256": "1a", "sha256": {}}
    about = {"metric": "val_accuracy", "metrics": ["val_accuracy"], "rule": "higher is better", "dataset": dataset}
    write(path / "run.json", {"schema": store.RUN_SCHEMA, "run": path.name, **about})
    for trial in range(TRIALS):
        name, last = f"{trial:04}", {"val_loss": 0.02, "train_loss": 0.01, "images_per_second": 1e4, "seconds": 9.0}
        history = tuple({**last, "val_accuracy": float(rng.uniform(0.98, 0.996))} for _ in range(EPOCHS))
        result = TrialResult(
            trial=name,
            number=trial,
            state="complete" if trial % 3 else "pruned",
            seed=trial,
            plan=plan(rng),
            label="cnn",
            history=history,
            metrics={**history[-1], "parameters": int(rng.integers(1e4, 1e6))},
            seconds=72.0,
        )
        write(path / "trials" / name / "result.json", {"schema": store.RESULT_SCHEMA, **to_json(result)})
        for seed in range(SEEDS * (trial < CONFIRMED)):
            right = ["".join("01"[int(x)] for x in rng.random(IMAGES) < 0.995) for _ in range(2)]
            replicate = ReplicateResult(
                trial=name,
                replicate=seed,
                seed=seed,
                metrics={**history[-1], "val_accuracy": right[0].count("1") / IMAGES},
                history=history,
                val_correct=right[0],
                test=TestScore(correct=right[1].count("1"), images=IMAGES, loss=0.02),
                test_correct=right[1],
                cost=Cost(macs=15_000_000, latency_1=0.001, latency_256=0.1, device="CPU"),
            )
            folder = path / "trials" / name / "replicates" / str(seed)
            data, known = store.pack_per_image({"val_loss": rng.exponential(0.02, IMAGES)})
            write(
                folder / "result.json", {"schema": store.RESULT_SCHEMA, **to_json(replace(replicate, per_image=known))}
            )
            (folder / store.PER_IMAGE).write_bytes(data or b"")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def command(root: Path, *options: str) -> tuple[float, float]:
    """Return the seconds on the clock and on the processor of a whole command, Python's start included."""
    line = [sys.executable, "-m", "mnistlab", "leaderboard", "--runs", str(root), *options]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    taken, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(runs):
            write_run(root, number)
        records = [store.read_run(path) for path in store.find_runs(root)]
        (board,) = [rank_together(together) for together in group(records)]
        by_loss = [replace(record, run={**record.run, "metric": "val_loss"}) for record in records]
        figures = {
            "reading": [
                seconds(lambda: [store.read_run(path) for path in store.find_runs(root)]) for _ in range(rounds)
            ],
            "ranking": [seconds(lambda: rank_together(records)) for _ in range(rounds)],
            "ranking by val_loss": [seconds(lambda: rank_together(by_loss)) for _ in range(rounds)],
            "as csv": [seconds(lambda: csv_text([section(board)])) for _ in range(rounds)],
        }
        wanted = {}
        for options in (("--format", "csv"), (), ("--format", "json")):
            name = " ".join(["`mnistlab leaderboard", *options]) + "`"
            taken = [command(root, *options) for _ in range(rounds)]
            figures[name], wanted[name] = [wall for wall, _ in taken], "< 2"
            figures[f"{name} on the processor"] = [used for _, used in taken]
    rows = [(f"{name}, s", wanted.get(name, ""), spread(taken, 2)) for name, taken in figures.items()]
    print(
        table(
            f"Leaderboard of {runs * TRIALS:,} trials of {runs} runs", ("figure", "wanted", "median (range, n)"), rows
        )
    )


if __name__ == "__main__":
    main()
