"""What defaults are worth to a search, and what misleading ones cost it: on the tables of `benchmarks/search.py`.

The defaults of all models, optimizers, transforms and of the training are replaced by the settings of plans of the
table: the best ones, middling ones, or bad ones. No plugin offers a portfolio. Without priors a search looks at no
defaults: its first plan is a random one, and TPE proposes the others.

Usage: python benchmarks/priors.py [SEEDS] [WORKERS,...] [TASK ...]
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from search import SEARCHES as USUAL
from search import TABLES, registry, table
from tables.clock import Searched
from tables.measured import Search, measured
from tables.portfolio import With
from tables.product import search
from tables.table import Row

from mnistlab.experiment import loader
from mnistlab.experiment.space import Branch, Space

QUALITIES = {"good": 0.0, "plain": 0.5, "misleading": 0.9}  # which plan of a branch, from the best (0) to the worst (1)


def with_defaults(space: Space, choose: Callable[[Sequence[Row]], Row], rows: Sequence[Row]) -> Space:
    """Return the space with other defaults: those of the plan that is chosen among the rows of each branch.

    The branches whose plans are chosen to be better come first, so that the first plan is of them.
    """

    def turned(branch: Branch, row: Row) -> Branch:
        return replace(branch, parameters=tuple(replace(one, default=row.flat[one.path]) for one in branch.parameters))

    def alternatives(kind: str, branches: Sequence[Branch]) -> tuple[Branch, ...]:
        found = {one.name: choose([row for row in rows if row.flat[kind] == one.name]) for one in branches}
        first = choose(rows).flat[kind]
        ordered = sorted(branches, key=lambda one: one.name != first)
        return tuple(turned(one, found[one.name]) for one in ordered)

    shared = choose(rows)
    return Space(
        alternatives("model", space.models),
        alternatives("optimizer", space.optimizers),
        tuple(turned(one, shared) for one in space.transforms),
        turned(space.training, shared),
    )


def at(quality: float) -> Callable[[Sequence[Row]], Row]:
    """Return what chooses the row at that share of all rows that train to an end, from the best to the worst."""

    def choose(rows: Sequence[Row]) -> Row:
        ranked = sorted((row for row in rows if row.error < 1), key=lambda row: row.error)
        return ranked[round(quality * (len(ranked) - 1))]

    return choose


def ours(algorithm: str, quality: float | None) -> Search:
    """Return mnistlab's search with defaults of that quality; None: with a plan at random."""

    def run(task: str, seed: int, workers: int) -> Searched:
        offering: Any = With(registry(), ())
        settings = (f"seed={seed}", "search.trials=64", f"search.algorithm={algorithm}")
        wanted = loader.load(TABLES / "space.toml", settings, offering)
        choose = at(random.Random(seed).random() if quality is None else quality)
        space = with_defaults(wanted.space, choose, table(task).rows)
        return search(table(task), replace(wanted, space=space), offering, workers)[0]

    return run


SEARCHES = {"random search": USUAL["random search"]}
SEARCHES |= {f"{name} defaults": ours("auto", quality) for name, quality in QUALITIES.items()}
SEARCHES["without priors"] = ours("tpe", None)

if __name__ == "__main__":
    measured(SEARCHES, table, sys.argv[1:])
