"""99 % on the MNIST test set after one epoch: the recipe of tuomaso's train_mnist_fast, several seeds, no selection.

Every seed is counted: the figure is the mean. The clock covers building the model, training and the evaluation of the
test set; not the loading of the data. All 60,000 training images are used, and nothing is chosen by the result.

Usage: MNISTLAB_DATA=FOLDER python benchmarks/one_epoch.py [SEEDS] [THREADS]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from typing import Any

import numpy as np
from machine import spread, table
from plans import part
from training_loop import NET

from mnistlab.data import Division, default_place, open_test, open_train, prepare_dataset
from mnistlab.data.device import to_device, upload
from mnistlab.leaderboard.statistics import wilson
from mnistlab.plugins.registry import installed
from mnistlab.training import loop
from mnistlab.util.seal import opened
from mnistlab.util.seeds import trial_seed


def recipe(batch_size: int = 256, **optimizer: Any) -> dict[str, Any]:
    """Return the plan: Adam (0.7, 0.9) at 0.01, one cycle, batch 256, no augmentation."""
    settings = {"lr": 0.01, "beta1": 0.7, "beta2": 0.9, "schedule": "one-cycle", "warmup": 0.3}
    return {
        "model": part("model", "cnn", **NET),
        "optimizer": part("optimizer", "adam", **(settings | optimizer)),
        "transforms": [],
        "training": {"epochs": 1, "batch_size": batch_size, "precision": "auto", "label_smoothing": 0.0},
    }


def main(seeds: int = 10, threads: int = 0) -> None:
    """Print the table."""
    device = loop.set_up_process(threads or len(os.sched_getaffinity(0)))
    record, place = installed().find("dataset", "mnist").record, default_place()
    info = prepare_dataset(record, record.config(), place)
    everything = np.arange(info.train_count)
    train = open_train(record, record.config(), place)
    # The loop validates after its epoch; a thousand of the training images keep it busy and decide nothing.
    data = to_device(train, Division(train=everything, validation=everything[:1000]), info.shape, device)
    with opened():
        test = open_test(record, record.config(), place)
    images, labels = upload(test, device)
    accuracies, seconds = list[float](), list[float]()
    for number in range(seeds):
        start = time.perf_counter()
        done = loop.train(recipe(), trial_seed(0, number), data, installed())
        correct = loop.evaluate(done, images, labels).correct
        accuracies.append(100 * float(correct.double().mean()))
        seconds.append(time.perf_counter() - start)
    mean, sd = statistics.mean(accuracies), statistics.stdev(accuracies)
    interval = wilson(mean / 100 * len(images), len(images))
    rows = [
        ("mean test accuracy, %", ">= 99.0", f"{mean:.3f} (sd {sd:.3f}, n={seeds})"),
        ("Wilson 95 % interval of the mean, %", "", f"{100 * interval.low:.2f}-{100 * interval.high:.2f}"),
        ("least and greatest, %", "", f"{min(accuracies):.2f}-{max(accuracies):.2f}"),
        ("seconds a run", "<= 10", spread(seconds, 1)),
    ]
    print(table("One epoch", ("figure", "wanted", "found"), rows))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
