"""Which early measurement says most of the end: a whole short training, or a branch off a long one.

A trunk is trained at a constant rate. At each rung a branch leaves it, in which the rate falls to zero; the trunk goes
on. Both are compared, for the random plans of a table, with a full training on another seed, which the table holds.

Usage: MNISTLAB_DATA=FOLDER python benchmarks/tables/branches.py [PLANS] [TASK]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from machine import describe
from scipy.stats import spearmanr

from mnistlab.data.device import DeviceData
from mnistlab.experiment.space import Plan
from mnistlab.training import loop
from mnistlab.training.causes import DivergedError
from mnistlab.training.loop import Training
from tables import make
from tables.table import FULL, Row, Table, read

FALLS = (0.25, 0.5)  # epochs of a branch, for each epoch of the trunk
RUNGS = (1, 2, 4)  # epochs of the trunk
RISES = 0.25  # epochs in which the rate rises, once


@dataclass(frozen=True)
class Measured:
    """What an early measurement costs, in epochs, and what it shows of each plan: a share of right answers."""

    name: str
    cost: float
    values: Sequence[float]


@cache
def data_of(task: str) -> DeviceData:
    """Return the images of a task in this process, which it sets up."""
    loop.set_up_process(1)
    return make.data_of(make.TASKS[task])


def branched(job: tuple[str, Plan]) -> Mapping[tuple[int, float], float]:
    """Return what each branch of a plan comes to, by rung and length; nothing from where it diverges on."""
    task, plan = job
    schedule = {"schedule": "constant", "warmup": RISES / FULL}
    config = {**plan["optimizer"]["config"], **schedule}
    trunk = loop.begin(
        {**plan, "optimizer": {**plan["optimizer"], "config": config}}, 0, data_of(task), make.registry()
    )
    found: dict[tuple[int, float], float] = {}
    try:
        for rung in range(1, max(RUNGS) + 1):
            loop.run_epoch(trunk)
            for falls in FALLS if rung in RUNGS else ():
                kept = loop.state(trunk)
                found[rung, falls] = annealed(trunk, kept, falls * rung)
                loop.restore(trunk, kept)
    except DivergedError:
        pass
    return found


def annealed(trunk: Training, kept: Mapping[str, Any], epochs: float) -> float:
    """Return the validation accuracy after so many epochs in which the rate falls to zero."""
    branch = loop.begin(trunk.plan, trunk.seed, trunk.data, trunk.registry)
    loop.restore(branch, kept)
    branch.budget = min(1.0, epochs)
    turns = max(1, round(epochs))
    stepper: Any = branch.stepper
    begin, steps = stepper._position, turns * branch.batches
    stepper._schedule = lambda step: max(0.0, 1 - (step - begin) / steps)
    stepper.load_state_dict(stepper.state_dict())
    for _ in range(turns):
        last = loop.run_epoch(branch)
    return last["val_accuracy"]


def whole(rows: Sequence[Row], budget: float) -> Measured:
    """Return what whole trainings of that budget show."""
    values = [_end(row, budget, 0) for row in rows]
    return Measured(f"a whole training of {budget:g}", budget, values)


def begun(rows: Sequence[Row], epoch: int) -> Measured:
    """Return what the beginnings of full trainings show."""
    found = [row.trainings[FULL, 0].epochs for row in rows]
    values = [epochs[epoch - 1][0] if len(epochs) >= epoch else 0.0 for epochs in found]
    return Measured(f"the first {epoch} of {FULL:g}", epoch, values)


def branch(found: Sequence[Mapping[tuple[int, float], float]], rung: int, falls: float) -> Measured:
    """Return what branches show."""
    name = f"{rung} at a constant rate, then {falls * rung:g} in which it falls"
    return Measured(name, rung * (1 + falls), [one.get((rung, falls), 0.0) for one in found])


def _end(row: Row, budget: float, seed: int) -> float:
    one = row.trainings[budget, seed]
    return 0.0 if one.failed or not one.epochs else one.epochs[-1][0]


def main() -> None:
    """Print how each measurement agrees with the end."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    task = sys.argv[2] if len(sys.argv) > 2 else "mnist-2000"
    table: Table = read(Path(__file__).parent / f"{task}.jsonl.xz", make.space())
    rows = table.rows[-count:]  # the first ones are no random plans
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        branches = list(pool.map(branched, [(task, row.plan) for row in rows]))
    truth = np.array([_end(row, FULL, 1) for row in rows])
    every = [begun(rows, epoch) for epoch in RUNGS]
    every += [whole(rows, budget) for budget in (0.5, *map(float, RUNGS), FULL)]
    every += [branch(branches, rung, falls) for falls in FALLS for rung in RUNGS]
    better = truth >= np.median(truth)
    print(f"{task}: {len(rows)} plans; Spearman's correlation with a full training on another seed\n")
    print("| epochs | cost | all plans | the better half |\n| --- | --- | --- | --- |")
    for one in every:
        values = np.array(one.values)
        cells = [float(spearmanr(values[some], truth[some])[0]) for some in (slice(None), better)]
        print(f"| {one.name} | {one.cost:g} | {cells[0]:.2f} | {cells[1]:.2f} |")
    print(f"\n{describe()}")


if __name__ == "__main__":
    main()
