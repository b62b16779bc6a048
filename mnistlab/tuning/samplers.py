"""The search algorithms by name: which of Optuna's samplers, with which settings."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import optuna
from optuna.samplers import BaseSampler

from mnistlab.spec import Algorithm


def _tpe(seed: int, trials: int) -> BaseSampler:
    """Multivariate, grouped by branch of the space, told of running trials (Bergstra 2011; Falkner 2018)."""
    # Optuna's 10 random trials first would be most of a small search.
    start = max(4, min(10, trials // 4))
    return optuna.samplers.TPESampler(
        multivariate=True, group=True, constant_liar=True, seed=seed, n_startup_trials=start
    )


def _nsga2(seed: int, trials: int) -> BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, trials // 4)))


_SAMPLERS: dict[Algorithm, Callable[[int, int], BaseSampler]] = {
    "tpe": _tpe,
    "random": lambda seed, _: optuna.samplers.RandomSampler(seed=seed),
    "grid": lambda seed, _: optuna.samplers.RandomSampler(seed=seed),  # the bridge hands it the points of the grid
    "qmc": lambda seed, _: optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False),
    "cmaes": lambda seed, _: optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
    "gp": lambda seed, _: optuna.samplers.GPSampler(seed=seed),
    "nsga2": _nsga2,
}


def sampler(algorithm: Algorithm, seed: int, trials: int) -> BaseSampler:
    """Return the sampler for `algorithm`, its random state set by `seed`, sized for a search of `trials` trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # That a plan is infeasible is told whatever samples: some make no use of it, and say so each time.
    warnings.filterwarnings("ignore", "Constraints have been set", module="optuna")
    # Optuna computes steps such as 1/3 in decimals, and finds the last one outside the range; `study.ask` sees to that.
    warnings.filterwarnings("ignore", "The distribution is specified by .* not divisible by `step`")
    warnings.filterwarnings(
        "ignore", "Fixed parameter .* is out of range for distribution FloatDistribution.*, step=[0-9]"
    )
    with warnings.catch_warnings():
        # multivariate, group and GP are marked experimental; using them is a decision, not an accident.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _SAMPLERS[algorithm](seed, trials)
