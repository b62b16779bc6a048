"""Searches on tables, compared: what each costs to come to a target, and how near the best plan it ends."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import optuna
from machine import describe

from tables.clock import Searched, incumbents
from tables.table import Table, tasks

NEAR = 0.001  # of the table's best error
Search = Callable[[str, int, int], Searched]  # of a task, by a seed, with so many workers
HEAD = (
    "search",
    "epochs to what {first} ends with",
    "seconds to that",
    "epochs to within 0.1 points of the best; how many come there",
    "points behind the best at the end",
    "best of its plans stopped",
    "epochs in all",
)


@dataclass(frozen=True)
class Found:
    """What counts of a search: its incumbents (cost, seconds, true error), and whether its best plans were all stopped.

    These are the plans with the least true error of those that it proposed.
    """

    incumbents: tuple[tuple[float, float, float], ...]
    total: float
    stopped: bool

    def cost_to(self, error: float) -> tuple[float, float]:
        """Return the epochs and seconds until it would choose a plan as good as that; infinity if it never does."""
        there = ((cost, seconds) for cost, seconds, true in self.incumbents if true <= error + 1e-9)
        return next(there, (math.inf, math.inf))

    @property
    def last(self) -> float:
        """Return the true error of the plan that is chosen in the end, 1 where there is none."""
        return self.incumbents[-1][2] if self.incumbents else 1.0


def found_by(search: Search, table: Table, task: str, seed: int, workers: int) -> Found:
    """Search once."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = search(task, seed, workers)
    best = min(table.rows[row].error for row in found.proposed)
    complete = any(one.complete and table.rows[one.row].error <= best for one in found.ended)
    total = found.ended[-1].epochs if found.ended else 0.0
    return Found(tuple(incumbents(table, found)), total, not complete)


def measured(searches: Mapping[str, Search], table: Callable[[str], Table], arguments: Sequence[str]) -> None:
    """Print a table for each task and number of workers; the first of `searches` sets the target of the others.

    `arguments` are those of the program: the number of seeds, workers, and tasks.
    """
    seeds = int(arguments[0]) if arguments else 100
    workers = [int(word) for word in (arguments[1] if len(arguments) > 1 else "2,8,32").split(",")]
    for task in arguments[2:] or tasks():
        for count in workers:
            _compared(searches, table(task), task, count, seeds)
    print(f"\n{describe()}")


def _compared(searches: Mapping[str, Search], table: Table, task: str, workers: int, seeds: int) -> None:
    print(f"\n{task}: {len(table.rows)} plans, {workers} workers, {seeds} seeds, best error {100 * table.best:.2f} %\n")
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}".format(first=next(iter(searches))))
    targets: list[float] = []
    for name, search in searches.items():
        found = _all(search, table, task, workers, seeds)
        targets = targets or [one.last for one in found]
        print(_row(name, found, targets, table.best), flush=True)


def _all(search: Search, table: Table, task: str, workers: int, seeds: int) -> list[Found]:
    """Search with each seed, on all cores. Processes are forked: a search is a function that no message can hold."""
    _job.append((search, table, task, workers))
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("fork")) as pool:
        found = list(pool.map(_one, range(seeds), chunksize=2))
    _job.pop()
    return found


_job: list[tuple[Search, Table, str, int]] = []  # of the processes that are forked


def _one(seed: int) -> Found:
    search, table, task, workers = _job[-1]
    return found_by(search, table, task, seed, workers)


def _median(values: Sequence[float]) -> str:
    quartiles = np.quantile(values, [0.25, 0.5, 0.75], method="higher")
    low, middle, high = ("never" if math.isinf(value) else f"{value:.0f}" for value in quartiles)
    return f"{middle} ({low} to {high})"


def _row(name: str, searches: Sequence[Found], targets: Sequence[float], best: float) -> str:
    reached = [found.cost_to(target) for found, target in zip(searches, targets, strict=True)]
    near = [found.cost_to(best + NEAR)[0] for found in searches]
    cells = [
        name,
        _median([epochs for epochs, _ in reached]),
        _median([seconds for _, seconds in reached]),
        f"{_median(near)}; {100 * np.mean(np.isfinite(near)):.0f} %",
        f"{100 * (np.mean([found.last for found in searches]) - best):.2f}",
        f"{100 * np.mean([found.stopped for found in searches]):.0f} %",
        f"{np.mean([found.total for found in searches]):.0f}",
    ]
    return f"| {' | '.join(cells)} |"
