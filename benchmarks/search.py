"""What searches cost on tables of real trainings, beside the usual stacks; each search is over in about a second.

The tables are `benchmarks/tables/*.jsonl.xz` (see `tables/make.py`). A search proposes plans of a table only, and a
training is looked up; driver, searcher, scheduler and recorder are mnistlab's own, its clock the table's seconds. The
true error of a plan is the mean of its seeds at the full budget; a search sees one of them. Costs are epochs of all
trainings. A portfolio comes from the other tables.

Usage: python benchmarks/search.py [SEEDS] [WORKERS,...] [TASK ...]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tables import stacks
from tables.clock import Searched
from tables.measured import Search, measured
from tables.portfolio import With, chosen
from tables.product import search
from tables.table import Table, read, tasks

from mnistlab.api import Scalar
from mnistlab.experiment import loader
from mnistlab.experiment.earlier import Earlier, looked_at
from mnistlab.experiment.portfolio import most_looks
from mnistlab.plugins.discovery import Selection
from mnistlab.plugins.registry import Registry, select
from mnistlab.store.results import RunRecord, TrialResult
from mnistlab.tuning.like import earlier_of
from mnistlab.tuning.schedulers.halving import rungs_of

TABLES = Path(__file__).parent / "tables"
RANDOM = 24  # trials of a random search, and so the cost that the others are measured by
KEPT = 5  # of the plans with a first look
PORTFOLIO = 9  # plans
OTHER_SEED = 1000  # more, of a search that another one starts from


@cache
def registry() -> Registry:
    """Return the plugins that come with mnistlab."""
    return select(Selection(only_built_in=True))


@cache
def table(task: str) -> Table:
    """Return a table."""
    return read(TABLES / f"{task}.jsonl.xz", loader.load(TABLES / "space.toml", (), registry()).space)


def ours(*settings: str, known: bool = True, like: bool = False) -> Search:
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
    wanted = loader.load(TABLES / "space.toml", (f"seed={seed}", *settings), offering)
    looks = looked_at(wanted.space, earlier, most_looks(wanted.spec.search) - 1)
    return search(table(task), wanted, offering, workers, looks)


@cache
def _earlier(task: str, seed: int) -> Earlier:
    """Return what a finished search on a task lends to another one."""
    _, ended = _searched(task, seed + OTHER_SEED, 2, ("search.trials=64",))
    wanted = loader.load(TABLES / "space.toml", ("search.trials=64",), registry())
    rungs = [rung.budget for rung in rungs_of(wanted.spec, wanted.space, table(task).images)]
    about = {"dataset": {"name": task, "train": table(task).images}, "rungs": rungs}
    record = RunRecord(path=task, run={**about, "experiment": {"training": {}}}, trials=tuple(ended))
    return earlier_of(record, table(task).space, "val_accuracy")[0]


SEARCHES: dict[str, Search] = {
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


if __name__ == "__main__":
    measured(SEARCHES, table, sys.argv[1:])
