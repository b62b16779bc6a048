"""Every built-in model with its defaults, two epochs of MNIST, the default optimizer and optionally the others.

The accuracy is on 10,000 validation images; the test set stays sealed. One core.

Usage: MNISTLAB_DATA=FOLDER python benchmarks/defaults.py [SEEDS] [OPTIMIZER ...]
"""

from __future__ import annotations

import statistics
import sys

from machine import table
from plans import mnist, part

from mnistlab.experiment.space import TrainingConfig
from mnistlab.plugins.registry import installed
from mnistlab.training import loop
from mnistlab.util.seeds import trial_seed

BAR = {"mlp": 97.0, "lenet": 98.0, "cnn": 99.0, "resnet": 99.0, "vit": 97.0}


def main(seeds: int = 1, *optimizers: str) -> None:
    """Print the table."""
    loop.set_up_process(1)
    data, registry = mnist(), installed()
    rows = []
    for model, bar in BAR.items():
        for optimizer in optimizers or ("adamw",):
            plan = {
                "model": part("model", model),
                "optimizer": part("optimizer", optimizer),
                "transforms": [],
                "training": {**TrainingConfig().model_dump(), "epochs": 2},
            }
            history = []
            for number in range(seeds):
                last: list[dict[str, float]] = []
                done = loop.train(plan, trial_seed(0, number), data, registry, lambda _, m, last=last: last.append(m))
                history.append(last[-1])
            accuracy = [100 * metrics["val_accuracy"] for metrics in history]
            speed = statistics.median(metrics["images_per_second"] for metrics in history)
            count = f"{loop.count_parameters(done.module):,}"
            rows.append((model, optimizer, count, f"{statistics.mean(accuracy):.2f}", f">= {bar}", f"{speed:,.0f}"))
            print(rows[-1], file=sys.stderr, flush=True)
    head = ("model", "optimizer", "parameters", f"validation accuracy, % (mean of {seeds})", "bar", "images/s")
    print(table("Defaults after two epochs", head, rows))


if __name__ == "__main__":
    main(*(int(argument) if argument.isdigit() else argument for argument in sys.argv[1:]))  # type: ignore[arg-type]
