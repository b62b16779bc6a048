"""Make a table of real trainings, on which searches can be compared in seconds.

The first plans are the defaults of each model with each optimizer; the others are drawn at random from `space.toml`.
A plan that costs more than LIMIT is drawn again: a table is to be made in hours. Each plan is trained from scratch with
two seeds, for each budget in BUDGETS: the schedule of a training ends with its budget, and every epoch of it is kept. A
budget below 1 is a part of an epoch. Trainings run on one thread each.

What has been trained is kept in `build/tables/`, so that a run that was stopped goes on, and what the table has is not
trained again, as long as neither plans nor budgets have changed; the table itself is written when all is there. All
tables have the same plans.

Usage: MNISTLAB_DATA=FOLDER python benchmarks/tables/make.py TASK [PLANS] [PROCESSES]
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import lzma
import math
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from machine import describe

from mnistlab.api import Config, Dataset
from mnistlab.data import default_place, open_train, prepare_dataset, split_indices
from mnistlab.data.device import DeviceData, to_device
from mnistlab.experiment import loader
from mnistlab.experiment.space import Branch, Plan, Space, suggest
from mnistlab.plugins.discovery import Selection
from mnistlab.plugins.registry import Registry, select
from mnistlab.testing.points import sample
from mnistlab.training import loop as training
from mnistlab.training.causes import DivergedError

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "tables"
BUDGETS = (0.25, 0.5, 1, 2, 4, 8)  # epochs
SEEDS = (0, 1)
LIMIT = 50e6  # floating-point operations of a training step for each of its images, on MNIST
COUNTED = (2, 4)  # images of the steps in which operations are counted
FORM = "mnistlab.table/1"


@dataclass(frozen=True)
class Task:
    """A dataset, the images to train on (None: all but those for validation), and those to validate on."""

    dataset: str
    training: int | None
    validation: int


TASKS = {
    "mnist-2000": Task("mnist", 2000, 4000),
    "digits": Task("digits", None, 500),
    "mnist": Task("mnist", None, 10_000),
}


@cache
def registry() -> Registry:
    """Return the plugins that come with mnistlab."""
    return select(Selection(only_built_in=True))


@cache
def space() -> Space:
    """Return the space of the tables."""
    return loader.load(HERE / "space.toml", (), registry()).space


def plans(count: int) -> list[Plan]:
    """Return the plans of a table: the defaults of each model with each optimizer first, then random ones."""
    found = [defaults(*pair) for pair in itertools.product(space().models, space().optimizers)][:count]
    number = 0
    while len(found) < count:
        if affordable(number):
            found.append(drawn(number))
        number += 1
    return found


def defaults(model: Branch, optimizer: Branch) -> Plan:
    """Return the plan of all defaults of a model and an optimizer."""
    return suggest(replace(space(), models=(model,), optimizers=(optimizer,)), lambda parameter: parameter.default)


def drawn(number: int) -> Plan:
    """Return a random plan."""
    draw = random.Random(f"plan {number}")  # of small numbers, the first draws are alike
    return suggest(space(), lambda parameter: sample(parameter.domain, draw))


def affordable(number: int) -> bool:
    """Return whether a random plan is in the tables; what it costs is looked up, where it has been counted before."""
    path = BUILD / "operations.json"
    counted: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    key = digest(drawn(number))
    if key not in counted:
        counted[key] = operations(drawn(number))
        path.write_text(json.dumps(counted))
    return counted[key] <= LIMIT


def operations(whole: Plan) -> float:
    """Return the floating-point operations of a training step, for each of its images."""
    training.set_up_process(1)
    counts: list[int] = []
    for count in COUNTED:  # the optimizer's share does not grow with the batch
        with FlopCounterMode(display=False) as counter:
            train_first(whole, count)
        counts.append(counter.get_total_flops())
    each = (counts[1] - counts[0]) / (COUNTED[1] - COUNTED[0])
    return each + (counts[0] - COUNTED[0] * each) / whole["training"]["batch_size"]


def train_first(whole: Plan, count: int) -> None:
    """Train a step with so many images; a loss that is not finite does not matter here."""
    data = first(_small(), torch.arange(count))
    with contextlib.suppress(DivergedError):
        training.train({**whole, "training": {**whole["training"], "epochs": 1}}, 0, data, registry())


@cache
def _small() -> DeviceData:
    """Return a few images of MNIST; one to validate on, which costs operations, but the same for each count."""
    data = data_of(Task("mnist", 100, 100))
    return replace(data, validation_images=data.validation_images[:1], validation_labels=data.validation_labels[:1])


def data_of(task: Task) -> DeviceData:
    """Return the images of a task; the test set stays sealed."""
    record, place = cast("Dataset[Config]", registry().find("dataset", task.dataset).record), default_place()
    config = record.config()
    info = prepare_dataset(record, config, place)
    images = open_train(record, config, place)
    data = to_device(images, split_indices(images.labels, None, validation=task.validation, seed=0), info.shape, "cpu")
    return data if task.training is None else first(data, split_of(data, task.training))


def split_of(data: DeviceData, count: int) -> torch.Tensor:
    """Return where so many of the training images lie, each class with its share."""
    labels = data.train_labels.numpy()
    return torch.from_numpy(split_indices(labels, None, validation=count, seed=0).validation)


def first(data: DeviceData, chosen: torch.Tensor) -> DeviceData:
    """Return the data with some of its training images only; what is normalised by stays as it is."""
    images = data.train_images[chosen].contiguous(memory_format=torch.channels_last)
    return replace(data, train_images=images, train_labels=data.train_labels[chosen])


def trained(whole: Plan, seed: int, budget: float, data: DeviceData) -> dict[str, Any]:
    """Return a training: of each epoch the images that are judged right, the mean loss in nats, and seconds.

    Seconds are those of the processor, for training and validation: other work on the machine does not count. A part of
    an epoch is one over as many images as that, drawn by the seed.
    """
    whole = {**whole, "training": {**whole["training"], "epochs": math.ceil(budget)}}
    if budget < 1:
        order = torch.randperm(len(data.train_images), generator=torch.Generator().manual_seed(seed))
        data = first(data, order[: math.ceil(budget * len(order))])
    epochs, began = list[list[float]](), time.process_time()

    def report(_: int, found: training.EpochMetrics) -> None:
        nonlocal began
        right = round(found["val_accuracy"] * len(data.validation_images))
        epochs.append([right, round(found["val_loss"], 4), round(time.process_time() - began, 3)])
        began = time.process_time()

    row: dict[str, Any] = {"budget": budget, "epochs": epochs}
    try:
        done = training.train(whole, seed, data, registry(), report)
    except DivergedError:
        return {**row, "failed": "nan"}
    except ValueError as error:  # a combination that its plugin refuses
        return {**row, "failed": f"refused: {error}"}
    return {**row, "parameters": training.count_parameters(done.module)}


@cache
def _data(task: Task) -> DeviceData:
    """Return the images of a task in this process, which it sets up; what the first training imports is no plan's."""
    os.nice(19)
    training.set_up_process(1)
    data = data_of(task)
    trained(plans(1)[0], 0, BUDGETS[0], data)
    return data


def work(task: Task, whole: Plan, seed: int) -> list[dict[str, Any]]:
    """Train a plan with a seed for each budget; one that fails at once is not tried any longer."""
    rows: list[dict[str, Any]] = []
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that hands out the plans
    for budget in BUDGETS:
        rows.append(trained(whole, seed, budget, _data(task)))
        if str(rows[-1].get("failed", "")).startswith("refused"):
            break
    return rows


def digest(whole: Plan) -> str:
    """Return what a plan's trainings depend on, shortened: they are kept under it."""
    return hashlib.sha256(json.dumps([whole, BUDGETS], sort_keys=True).encode()).hexdigest()[:16]


def made(path: Path, wanted: Sequence[Plan]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Return what has been trained, by plan and seed; a line that was cut off, or of another plan, does not count."""
    digests = {digest(whole): number for number, whole in enumerate(wanted)}
    found = dict[tuple[int, int], list[dict[str, Any]]]()
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            kept = json.loads(line)
        except ValueError:
            continue
        if kept["of"] in digests:
            found[digests[kept["of"]], kept["seed"]] = kept["trainings"]
    return found


def published(path: Path, wanted: Sequence[Plan]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Return what a table has, as `made` does: a table can grow where nothing else is left of its making."""
    numbers = {digest(whole): number for number, whole in enumerate(wanted)}
    found = dict[tuple[int, int], list[dict[str, Any]]]()
    if not path.exists():
        return found
    lines = lzma.decompress(path.read_bytes()).decode().splitlines()
    if tuple(json.loads(lines[0])["budgets"]) != BUDGETS:
        return found
    for row in map(json.loads, lines[1:]):
        number = numbers.get(digest(row["plan"]))
        for one in row["trainings"] if number is not None else ():
            found.setdefault((number, one.pop("seed")), []).append(one)
    return found


def train(path: Path, task: Task, jobs: Sequence[tuple[Plan, int]], processes: int) -> None:
    """Train plans with seeds, and write down each as soon as it has ended."""
    began = time.monotonic()
    pool = ProcessPoolExecutor(processes)
    try:
        with path.open("a") as file:
            waiting = {pool.submit(work, task, *job): job for job in jobs}
            for count, ended in enumerate(as_completed(waiting), 1):
                whole, seed = waiting[ended]
                row = {"of": digest(whole), "seed": seed, "trainings": ended.result()}
                file.write(f"\n{json.dumps(row)}\n")  # on a line of its own also after one that was cut off
                file.flush()
                hours = (time.monotonic() - began) / 3600
                print(f"{count} of {len(jobs)} in {hours:.2f} h, all in {hours / count * len(jobs):.1f} h", flush=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def write(path: Path, name: str, trained: Mapping[tuple[int, int], list[dict[str, Any]]], of: Sequence[Plan]) -> None:
    """Write a table: what it is made of in its first line, then a line for each plan."""
    task = TASKS[name]
    images = {"training": len(data_of(task).train_images), "validation": task.validation}
    lines: list[Any] = [
        {"form": FORM, "task": name, **images, "budgets": BUDGETS, "seeds": SEEDS, "machine": machines(path)}
    ]
    for number, whole in enumerate(of):
        rows = [{"seed": seed, **row} for seed in SEEDS for row in trained[number, seed]]
        lines.append({"plan": whole, "trainings": rows})
    text = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
    path.write_bytes(lzma.compress(text.encode(), preset=9))


def machines(path: Path) -> str:
    """Return what the table was made on so far, and this machine."""
    before = json.loads(lzma.decompress(path.read_bytes()).splitlines()[0])["machine"] if path.exists() else ""
    return " / ".join(dict.fromkeys([*filter(None, [before]), describe()]))


def main() -> None:
    """Train what is missing, and write the table."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TASKS:
        sys.exit(f"name a task: {', '.join(TASKS)}")
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    processes = int(sys.argv[3]) if len(sys.argv) > 3 else len(os.sched_getaffinity(0))
    BUILD.mkdir(parents=True, exist_ok=True)
    kept, target, wanted = BUILD / f"{name}.jsonl", HERE / f"{name}.jsonl.xz", plans(count)
    there = published(target, wanted) | made(kept, wanted)
    missing = [(wanted[n], seed) for n, seed in itertools.product(range(count), SEEDS) if (n, seed) not in there]
    train(kept, TASKS[name], missing, processes)
    write(target, name, there | made(kept, wanted), wanted)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
