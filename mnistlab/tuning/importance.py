"""Which settings a search turned on: Optuna's fANOVA over trials that have ended, with how sure it is of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator

from mnistlab.util.text import Scalar

RESAMPLES = 8  # bootstrap samples of the trials, each with a forest of its own
TREES = 8  # to a forest: the spread over resamples is far wider than that over trees
LOG_RATIO = 30.0  # positive numbers that spread wider than this were searched by their logarithm, as good as always

Point = Mapping[str, Scalar]


@dataclass(frozen=True)
class Importance:
    """The share of the variance that a setting explains: its mean over resamples of the trials, and their range."""

    setting: str
    mean: float
    low: float
    high: float


def importances(points: Sequence[Point], values: Sequence[float]) -> tuple[Importance, ...]:
    """Return the importance of every setting for `values`, the most important first (F. Hutter, 2014, ICML: fANOVA).

    All points must have the same settings. A setting is judged over the range that was tried. The trials are resampled
    with replacement `RESAMPLES` times, because one forest on few trials looks far surer than it is.

    Raises:
        ValueError: if points and values differ in number, or there are fewer than two different values.
    """
    if len(points) != len(values) or len(set(values)) < 2:
        raise ValueError(f"two or more different values are needed, one a point, but got {list(values)}")
    domains = {key: _domain([point[key] for point in points]) for key in sorted(points[0])}
    trials = [_trial(point, domains, value) for point, value in zip(points, values, strict=True)]
    shares = [one for resample in range(RESAMPLES) if (one := _shares(trials, resample))]
    found = [_summary(key, [share.get(key, 0.0) for share in shares]) for key in domains]
    return tuple(sorted(found, key=lambda one: (-one.mean, one.setting)))


def _domain(values: Sequence[Scalar]) -> BaseDistribution:
    """Return the range that was tried; texts and switches, and numbers mixed with them, are choices."""
    if any(isinstance(value, (bool, str)) for value in values):
        return CategoricalDistribution(sorted({str(value) for value in values}))
    numbers = [float(value) for value in values]
    low, high = min(numbers), max(numbers)
    log = low > 0 and high / low > LOG_RATIO
    if all(isinstance(value, int) for value in values):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)


def _trial(point: Point, domains: Mapping[str, BaseDistribution], value: float) -> optuna.trial.FrozenTrial:
    params = {k: str(point[k]) if isinstance(d, CategoricalDistribution) else point[k] for k, d in domains.items()}
    return optuna.trial.create_trial(params=params, distributions=dict(domains), value=value)


def _shares(trials: Sequence[optuna.trial.FrozenTrial], resample: int) -> dict[str, float]:
    """Return each setting's share over one resample, or nothing where all of its values are equal."""
    picked = np.random.default_rng(resample).integers(0, len(trials), len(trials))
    if len({trials[i].value for i in picked}) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study()
        study.add_trials([trials[i] for i in picked])
        judge = FanovaImportanceEvaluator(n_trees=TREES, seed=resample)
        return optuna.importance.get_param_importances(study, evaluator=judge)


def _summary(setting: str, shares: Sequence[float]) -> Importance:
    return Importance(setting, float(np.mean(shares)), float(np.min(shares)), float(np.max(shares)))
