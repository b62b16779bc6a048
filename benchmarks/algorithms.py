"""What each search algorithm learns under the default scheduler: how many proposals its model makes, and how good.

The search is the program's own; the training is simulated: smooth in the plan's numbers, with learning curves that
cross (`tests/simulated/memory.py`). Each search runs twice: as it is, and with Optuna's sampler as it comes, which sees
only the trials that the scheduler let finish, and only the settings that all of these have.

    python benchmarks/algorithms.py [SEEDS] [TRIALS] [ALGORITHM ...]
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

from machine import spread, table

from mnistlab.experiment.algorithms import trials_at_once
from mnistlab.experiment.spec import SearchSpec
from mnistlab.tuning import samplers
from tests.simulated.memory import SPACES, Searched, searched

ALGORITHMS = ("random", "qmc", "tpe", "cmaes", "nsga2", "gp")
HEAD = (
    "space",
    "algorithm",
    "by the model, Optuna's sampler",
    "by the model, here",
    "mean value of the later half, Optuna's sampler",
    "mean value of the later half, here",
)


def searches(space: str, algorithm: str, trials: int, seeds: int, *, stock: bool) -> list[Searched]:
    """Return a search for each seed, with as many workers as `resources.max_parallel` would allow by default."""
    search = SearchSpec.model_validate({"trials": trials, "algorithm": algorithm})
    at_once = trials_at_once(search) or trials // 4
    settings = f'trials = {trials}\nalgorithm = "{algorithm}"\n'
    found: list[Searched] = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder, _as_it_comes() if stock else nullcontext():
            found.append(searched(Path(folder), SPACES[space], settings, seed=seed, parallel=at_once))
    return found


def _as_it_comes() -> AbstractContextManager[Any]:
    """Leave out what stands between Optuna's samplers and the study."""
    return patch.multiple(samplers, EveryTrial=lambda inner, _: inner, WholeSpace=lambda inner, _: inner)


def row(space: str, algorithm: str, trials: int, seeds: int) -> tuple[str, ...]:
    """Return a row of the table."""
    before, now = (searches(space, algorithm, trials, seeds, stock=stock) for stock in (True, False))
    counts = (spread([one.modelled for one in found], 0) for found in (before, now))
    values = (spread([one.late for one in found]) for found in (before, now))
    return (space, algorithm, *counts, *values)


def main() -> None:
    """Print the table."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    trials = int(sys.argv[2]) if len(sys.argv) > 2 else 32
    algorithms = sys.argv[3:] or ALGORITHMS
    rows = [
        row(space, algorithm, trials, seeds)
        for space in ("numbers", "lists", "two models")
        for algorithm in algorithms
        if not (space == "lists" and algorithm == "cmaes")
    ]
    print(table(f"What is learnt in {trials} trials under asha", HEAD, rows))


if __name__ == "__main__":
    main()
