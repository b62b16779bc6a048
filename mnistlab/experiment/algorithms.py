"""What the search algorithms need before they can learn: rules that need no Optuna, and what a user should know."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mnistlab.api import Choice
from mnistlab.experiment.space import Space, size
from mnistlab.experiment.spec import Algorithm, ExperimentSpec, SearchSpec
from mnistlab.store.schedulers import traits_of
from mnistlab.util.text import counted

# These learn from trials that ended.
LEARNING: frozenset[Algorithm] = frozenset({"auto", "tpe", "gp", "cmaes", "nsga2"})
FEWEST = 4  # trials that an algorithm needs to learn from

_PROPOSES: Mapping[Algorithm, str] = {
    "auto": "TPE beside plans near the defaults",
    "tpe": "TPE",
    "gp": "a Gaussian process",
    "cmaes": "CMA-ES",
    "nsga2": "NSGA-II",
    "random": "plans at random",
    "qmc": "a Sobol sequence",
    "grid": "the points of the grid in turn",
}


def chosen(search: SearchSpec) -> Algorithm:
    """Return which algorithm a search has: what `auto` stands for, else the one that is named.

    `auto` itself looks at known plans while they do well, and mixes TPE with plans near the defaults. It needs one
    metric to say which of these does better, and the settings of a population change while it is trained.
    """
    if search.algorithm != "auto":
        return search.algorithm
    if traits_of(search.scheduler).changes_settings:
        return "random"
    return "tpe" if len(search.metric) > 1 else "auto"


@dataclass(frozen=True)
class Known:
    """What a search knows before it begins: plans that it looks at first, of which some are of earlier runs.

    `results` are those of earlier runs from which its algorithm learns.
    """

    plans: int = 1
    earlier: int = 0
    results: int = 0


def proposals(asked: Algorithm, search: SearchSpec, space: Space, known: Known, at_once: int) -> str:
    """Return in words who proposes the plans of a search, and why where `auto` was `asked` for.

    For example `auto: up to 3 known plans while they do well, then TPE beside plans near the defaults (24 trials, 14
    settings, 2 at once)`.
    """
    settings = len(list(space.parameters()))
    about = f"{counted(search.trials, 'trial')}, {counted(settings, 'setting')}, {at_once} at once"
    plans = min(known.plans, search.trials)
    first = f"{plans} known plans first" if plans > 1 else "the plan of all defaults first"
    if plans > 1 and search.algorithm == "auto":
        first = f"up to {plans} known plans while they do well"
    first += f", {known.earlier} of them of earlier runs" if known.earlier else ""
    then = f", then {_then(asked, search, space, known, at_once)}" if search.trials > plans else ""
    return f"{asked}: {first}{then} ({about})"


def _then(asked: Algorithm, search: SearchSpec, space: Space, known: Known, at_once: int) -> str:
    """Return what comes after the known plans, with the reason where it is not what the algorithm is known for."""
    points = size(space)
    if points is not None and points <= search.trials:
        return f"every other plan, because the space has no more than {points:,}"
    who = _PROPOSES[search.algorithm]
    if asked != search.algorithm:
        changing = traits_of(search.scheduler).changes_settings
        why = "a population changes its settings while it is trained" if changing else ""
        return f"{who}, because {why or f'there are {len(search.metric)} metrics'}"
    if known.results:
        return f"{who}, from {counted(known.results, 'result')} of earlier runs on"
    if learns(search) and (search.trials <= FEWEST or at_once + batch(search.trials, 10) > search.trials):
        drawn = "plans at random or near the defaults" if search.algorithm == "auto" else "plans at random"
        return f"{drawn}, because too few trials end before the last one is proposed"
    return who


def learns_from_earlier(search: SearchSpec) -> bool:
    """Return whether a search learns from the results of earlier runs, beside looking at their plans.

    With several metrics there is no share of a run that a plan beats.
    """
    return search.algorithm in {"auto", "tpe"} and learns(search) and len(search.metric) == 1


def learns(search: SearchSpec) -> bool:
    """Return whether later proposals of a search depend on how earlier trials ended."""
    return search.algorithm in LEARNING and not traits_of(search.scheduler).changes_settings


def batch(trials: int, most: int) -> int:
    """Return how many trials an algorithm draws before it learns from them: a quarter of all, at most `most`.

    It is the random start of `tpe` and `gp`, and the population of `nsga2` and `cmaes`. Optuna's own numbers (10, 10,
    50, and what suits the dimensions) would be most of a small search.
    """
    return max(FEWEST, min(most, trials // 4))


def population(dimensions: int) -> int:
    """Return the usual population of CMA-ES (Hansen 2016, "The CMA Evolution Strategy: A Tutorial", table 1)."""
    return 4 + int(3 * math.log(max(1, dimensions)))


def trials_at_once(search: SearchSpec) -> int | None:
    """Return how many trials may run at once so that the algorithm can learn from some of them; None for any number.

    A proposal knows nothing of the trials that run beside it. With as many workers as trials, nothing is ever learnt.
    """
    return max(2, search.trials // 4) if learns(search) else None


def held_back(search: SearchSpec, fit: int, at_once: int) -> str:
    """Return in words how the number of trials at once and the algorithm's learning limit each other, or "".

    `fit` trials would fit on the machine, `at_once` will run.
    """
    limit = trials_at_once(search)
    if limit is None or search.trials <= FEWEST:
        return ""
    if at_once < fit and at_once == limit:
        return (
            f"{at_once} trials at once instead of {fit}: {search.algorithm} learns from trials that ended; "
            "set resources.max_parallel to run more"
        )
    if at_once + batch(search.trials, 10) > search.trials:
        return (
            f"{at_once} of {search.trials} trials at once: {search.algorithm} proposes every plan before enough trials "
            f"ended to learn from; set resources.max_parallel = {search.trials // 4}"
        )
    return ""


def warnings(spec: ExperimentSpec, space: Space) -> Iterator[str]:
    """Yield in words what keeps the algorithm of an experiment from doing what its name says."""
    search = spec.search
    if not learns(search):
        return
    if search.trials <= FEWEST:
        drawn = "at random or near the defaults" if search.algorithm == "auto" else "at random"
        yield (
            f"search.trials = {search.trials:,}: {search.algorithm} learns from at least {FEWEST} trials, so this "
            f"search proposes its plans {drawn}; set more trials, or algorithm = 'random'"
        )
    if search.algorithm == "cmaes":
        yield from _not_numbers(space)


def _not_numbers(space: Space) -> Iterator[str]:
    """Yield what CMA-ES makes of the settings that are choices, also where the options are numbers."""
    searched = list(space.parameters())
    choices = [parameter.path for parameter in searched if isinstance(parameter.domain, Choice)]
    if not choices:
        return
    if len(choices) == len(searched):
        yield (
            "search.algorithm = 'cmaes' learns ranges of numbers, and this space has none: every plan is proposed at "
            "random; use 'tpe', or write ranges instead of lists"
        )
        return
    yield (
        f"search.algorithm = 'cmaes' learns ranges of numbers and draws all else at random: {', '.join(choices)}; "
        "'tpe' learns all of them"
    )
