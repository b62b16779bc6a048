"""What searches cost on tables of real trainings, beside the usual stacks; each search is over in about a second.

The tables are `benchmarks/tables/*.jsonl.xz` (see `tables/make.py`). A search proposes plans of a table only, and a
training is looked up; driver, searcher, scheduler and recorder are mnistlab's own, its clock the table's seconds. The
true error of a plan is the mean of its seeds at the full budget; a search sees one of them. Costs are epochs of all
trainings. A portfolio comes from the other tables.

Usage: python benchmarks/search.py [SEEDS] [WORKERS,...] [TASK ...]
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from machine import describe
from tables import stacks
from tables.clock import Searched, incumbents
from tables.portfolio import With, chosen
from tables.product import search
from tables.table import Table, read

from mnistlab import experiment
from mnistlab.api import Scalar
from mnistlab.discovery import Selection
from mnistlab.earlier import Earlier, looked_at
from mnistlab.portfolio import most_looks
from mnistlab.registry import Registry, select
from mnistlab.results import RunRecord, TrialResult
from mnistlab.tuning.ladder import rungs_of
from mnistlab.tuning.like import earlier_of

TABLES = Path(__file__).parent / "tables"
RANDOM = 24  # trials of a random search, and so the cost that the others are measured by
KEPT = 5  # of the plans with a first look
PORTFOLIO = 9  # plans
OTHER_SEED = 1000  # more, of a search that another one starts from
NEAR = 0.001  # of the table's best error


@dataclass(frozen=True)
class Found:
    """What counts of a search: its incumbents (cost, seconds, true error), and whether its best plan was completed."""

    incumbents: tuple[tuple[float, float, float], ...]
    total: float
    stopped: bool


@cache
def registry() -> Registry:
    """Return the plugins that come with mnistlab."""
    return select(Selection(only_built_in=True))


@cache
def table(task: str) -> Table:
    """Return a table."""
    return read(TABLES / f"{task}.jsonl.xz", experiment.load(TABLES / "space.toml", (), registry()).space)


def tasks() -> list[str]:
    """Return the tables that there are."""
    return sorted(path.name.removesuffix(".jsonl.xz") for path in TABLES.glob("*.jsonl.xz"))


def ours(*settings: str, known: bool = True, like: bool = False) -> Callable[[str, int, int], Searched]:
    """Return mnistlab's search with these settings; not `known`: without a portfolio.

    With `like` it starts from a search on each of the other tasks, which had no portfolio: that is made of this task.
    """

    def run(task: str, seed: int, workers: int) -> Searched:
        others = [other for other in tasks() if other != task]
        plans = chosen([table(other) for other in others], PORTFOLIO) if known and others else ()
        earlier = tuple(_earlier(other, seed) for other in others) if like else ()
        return _searched(task, seed, workers, settings, plans, earlier)[0]

    return run


def _searched(
    task: str,
    seed: int,
    workers: int,
    settings: Sequence[str],
    plans: Sequence[Mapping[str, Scalar]] = (),
    earlier: tuple[Earlier, ...] = (),
) -> tuple[Searched, list[TrialResult]]:
    offering: Any = With(registry(), plans)
    wanted = experiment.load(TABLES / "space.toml", (f"seed={seed}", *settings), offering)
    looks = looked_at(wanted.space, earlier, most_looks(wanted.spec.search) - 1)
    return search(table(task), wanted, offering, workers, looks)


@cache
def _earlier(task: str, seed: int) -> Earlier:
    """Return what a finished search on a task lends to another one."""
    _, ended = _searched(task, seed + OTHER_SEED, 2, ("search.trials=64",))
    wanted = experiment.load(TABLES / "space.toml", ("search.trials=64",), registry())
    rungs = [rung.budget for rung in rungs_of(wanted.spec, wanted.space, table(task).images)]
    about = {"dataset": {"name": task, "train": table(task).images}, "rungs": rungs}
    record = RunRecord(path=task, run={**about, "experiment": {"training": {}}}, trials=tuple(ended))
    return earlier_of(record, table(task).space, "val_accuracy")[0]


SEARCHES: dict[str, Callable[[str, int, int], Searched]] = {
    "random search": lambda task, seed, workers: stacks.random_search(table(task), seed, workers, RANDOM),
    "Optuna: TPE, median pruner": lambda task, seed, workers: stacks.tpe_median(table(task), seed, workers, 2 * RANDOM),
    "Ray Tune: ASHA, OptunaSearch": lambda task, seed, workers: stacks.asha(table(task), seed, workers, 3 * RANDOM),
    "one epoch, then the best 5": lambda task, seed, workers: stacks.first_look(
        table(task), seed, workers, RANDOM, KEPT
    ),
    "mnistlab": ours("search.trials=64", "search.algorithm=auto"),
    "mnistlab, no portfolio": ours("search.trials=64", "search.algorithm=auto", known=False),
    "mnistlab, like": ours("search.trials=64", "search.algorithm=auto", like=True),
    "mnistlab, no portfolio, like": ours("search.trials=64", "search.algorithm=auto", known=False, like=True),
    "mnistlab, tpe": ours("search.trials=64", "search.algorithm=tpe"),
    "mnistlab, tpe and asha": ours("search.trials=64", "search.algorithm=tpe", "search.scheduler=asha"),
}


def found_by(job: tuple[str, str, int, int]) -> Found:
    """Search once: by name, in a task, with a seed and so many workers."""
    name, task, seed, workers = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = SEARCHES[name](task, seed, workers)
    complete = {one.row for one in found.ended if one.complete}
    best = min(found.proposed, key=lambda row: table(task).rows[row].error)
    total = found.ended[-1].epochs if found.ended else 0.0
    return Found(tuple(incumbents(table(task), found)), total, best not in complete)


def cost_to(found: Found, error: float) -> float:
    """Return the epochs until a search would choose a plan as good as that; infinity if it never does."""
    return next((cost for cost, _, true in found.incumbents if true <= error + 1e-9), math.inf)


def _median(values: Sequence[float]) -> str:
    quartiles = np.quantile(values, [0.25, 0.5, 0.75], method="higher")
    low, middle, high = ("never" if math.isinf(value) else f"{value:.0f}" for value in quartiles)
    return f"{middle} ({low} to {high})"


def _row(name: str, searches: Sequence[Found], targets: Sequence[float], best: float) -> str:
    reached = [cost_to(found, target) for found, target in zip(searches, targets, strict=True)]
    near = [cost_to(found, best + NEAR) for found in searches]
    last = [found.incumbents[-1][2] if found.incumbents else 1.0 for found in searches]
    cells = [
        name,
        _median(reached),
        f"{_median(near)}; {100 * np.mean(np.isfinite(near)):.0f} %",
        f"{100 * (np.mean(last) - best):.2f}",
        f"{100 * np.mean([found.stopped for found in searches]):.0f} %",
        f"{np.mean([found.total for found in searches]):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "search",
    "epochs to what random search ends with",
    "epochs to within 0.1 points of the best; how many come there",
    "points behind the best at the end",
    "best of its plans stopped",
    "epochs in all",
)


def compared(task: str, workers: int, seeds: int, pool: ProcessPoolExecutor) -> None:
    """Print the table of a task and a number of workers."""
    rows, best = table(task).rows, table(task).best
    print(f"\n{task}: {len(rows)} plans, {workers} workers, {seeds} seeds, best error {100 * best:.2f} %\n")
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    targets: list[float] = []
    for name in SEARCHES:
        searches = list(pool.map(found_by, [(name, task, seed, workers) for seed in range(seeds)], chunksize=2))
        targets = targets or [found.incumbents[-1][2] for found in searches]  # of the first, random search
        print(_row(name, searches, targets, best), flush=True)


def main() -> None:
    """Print a table for each task and number of workers."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    workers = [int(word) for word in (sys.argv[2] if len(sys.argv) > 2 else "2,8,32").split(",")]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for task in sys.argv[3:] or tasks():
            for count in workers:
                compared(task, count, seeds, pool)
    print(f"\n{describe()}")


if __name__ == "__main__":
    main()
