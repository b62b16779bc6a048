"""Plans near the defaults: never outside the space, and only as long as they do well."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from mnistlab.tuning.guided import Guided
from mnistlab.tuning.samplers import has_ended

SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1.0, log=True),
    "width": IntDistribution(16, 512, log=True),
    "depth": IntDistribution(1, 9, step=2),
    "share": FloatDistribution(0.0, 1.0, step=0.25),
    "word": CategoricalDistribution(("a", "b", "c")),
}
DEFAULTS: dict[str, Any] = {"lr": 0.01, "width": 64, "depth": 3, "share": 0.5, "word": "b"}


def guided(seed: int, defaults: dict[str, Any] = DEFAULTS) -> Guided:
    inner = optuna.samplers.RandomSampler(seed)
    return Guided(inner, SPACE, defaults, seed, lambda one: has_ended(one, rungs=False))


def searched(sampler: Guided, good: Any, trials: int = 60) -> tuple[optuna.Study, list[bool]]:
    """Return a study, and which of its trials were drawn near the defaults; `good(params)` is what it maximises."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, near = optuna.create_study(direction="maximize", sampler=sampler), list[bool]()
    for _ in range(trials):
        trial = study.ask(SPACE)
        near.append(trial.number in sampler._mine)
        trial.report(good(trial.params), 1)
        study.tell(trial, good(trial.params))
    return study, near


@given(st.integers(0, 2**31))
def test_every_value_is_one_of_the_space(seed):
    study, _ = searched(guided(seed), lambda _: 0.0, trials=12)
    for trial in study.trials:
        assert all(SPACE[name]._contains(SPACE[name].to_internal_repr(value)) for name, value in trial.params.items())
        assert set(trial.params) == set(SPACE)


@pytest.mark.parametrize("seed", range(3))
def test_good_defaults_are_followed_and_bad_ones_left(seed):
    def close(params: dict[str, Any]) -> float:
        return -abs(math.log(params["width"] / 64)) - abs(math.log(params["lr"] / 0.01)) - (params["word"] != "b")

    _, followed = searched(guided(seed), close)
    _, left = searched(guided(seed), lambda params: -close(params))
    assert sum(followed[20:]) > 24  # of 40
    assert sum(left[20:]) < 16


def test_near_is_near():
    study, near = searched(guided(0), lambda _: 0.0, trials=200)
    widths = [one.params["width"] for one, is_near in zip(study.trials, near, strict=True) if is_near]
    words = [one.params["word"] for one, is_near in zip(study.trials, near, strict=True) if is_near]
    assert 50 < len(widths) < 150
    assert sum(32 <= width <= 128 for width in widths) > 0.6 * len(widths)
    assert words.count("b") > 0.6 * len(words)


def test_a_choice_between_branches_has_no_default_to_be_near_to():
    only = {key: value for key, value in DEFAULTS.items() if key != "word"}
    study, near = searched(guided(0, only), lambda _: 0.0, trials=200)
    words = [one.params["word"] for one, is_near in zip(study.trials, near, strict=True) if is_near]
    assert min(words.count(word) for word in "abc") > len(words) / 6
