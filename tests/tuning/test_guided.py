"""Plans near the defaults: never outside the space, and only as long as they do well."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def guided(seed: int, defaults: dict[str, Any] = DEFAULTS, known: Sequence[dict[str, Any]] = ()) -> Guided:
    inner = optuna.samplers.RandomSampler(seed)
    return Guided(inner, SPACE, defaults, seed, lambda one: has_ended(one, rungs=False), known)


def searched(sampler: Guided, good: Any, trials: int = 60) -> tuple[optuna.Study, list[bool]]:
    """Return a study, and which of its trials were drawn near the defaults; `good(params)` is what it maximises."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, near = optuna.create_study(direction="maximize", sampler=sampler), list[bool]()
    for _ in range(trials):
        trial = study.ask(SPACE)
        near.append(trial.number in sampler._near)
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


# --- known plans --------------------------------------------------------------------------------------------------

KNOWN = [{**DEFAULTS, "width": width} for width in (64, 80, 100, 125, 150, 180)]


def looked_at(good: Any, trials: int = 24, seed: int = 0, sampler: Guided | None = None) -> list[int]:
    """Return which trials had a known plan; the first one always has."""
    sampler = sampler or guided(seed, known=KNOWN)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial(KNOWN[0])
    for _ in range(trials):
        trial = study.ask(SPACE)
        value = good(trial.params)
        trial.report(value, 1)
        study.tell(trial, value)
    return [one.number for one in study.trials if one.params in KNOWN]


def test_known_plans_come_first_while_they_beat_the_others_each_once():
    found = looked_at(lambda params: float(params in KNOWN))
    assert found == [0, 2, 3, 4, 5, 7]  # the others are the sampler's own: something to compare them with


def test_known_plans_that_do_badly_are_left():
    assert looked_at(lambda params: -float(params in KNOWN)) == [0]


def test_known_plans_that_are_like_the_others_take_turns_with_them():
    assert looked_at(lambda _: 0.0)[:4] == [0, 2, 4, 6]


def test_known_plans_that_catch_up_are_taken_up_again():
    begins = iter([0.5, 1.0])  # the first known plan, and one of the sampler's own
    found = looked_at(lambda params: next(begins, 0.5 * (params in KNOWN)))
    assert found[:2] == [0, 3]
    assert len(found) == len(KNOWN)


def test_a_known_plan_that_an_earlier_driver_did_not_try_is_still_due():
    """A driver that goes on is told what was tried in the place of what it proposes."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=guided(0, known=KNOWN))
    study.enqueue_trial(KNOWN[0])
    told = study.ask(SPACE)
    study.tell(told, 1.0)
    study.tell(study.ask(SPACE), 0.0)
    replaced = study.ask(SPACE)
    assert replaced.params == KNOWN[1]
    replaced.set_user_attr("replaced", "0002")
    study.tell(replaced, state=optuna.trial.TrialState.FAIL)
    assert study.ask(SPACE).params == KNOWN[1]
