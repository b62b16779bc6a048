"""What the search algorithms learn from: every one that claims to learn does, whatever the scheduler and the space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from mnistlab.experiment.algorithms import batch
from mnistlab.tuning.scores import scores
from tests.simulated import worker
from tests.simulated.curves import Fate
from tests.simulated.memory import SPACES, Searched, searched

pytestmark = pytest.mark.simulated

UP, DOWN = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
TRIALS = 16
START = batch(TRIALS, 10)


# --- how many proposals come from the model -----------------------------------------------------------------------


def found(folder: Path, algorithm: str, scheduler: str, space: str, trials: int = TRIALS, **more: int) -> Searched:
    table = f'trials = {trials}\nalgorithm = "{algorithm}"\nscheduler = "{scheduler}"\ngrace_epochs = 1\n'
    return searched(folder, SPACES[space], table, **more)


def tried(one: Searched) -> list[FrozenTrial]:
    return [trial for trial in one.trials if "repeats" not in trial.user_attrs]


def learnable(trial: FrozenTrial, algorithm: str) -> set[str]:
    """The settings of a trial that its algorithm is there to choose."""
    numbers_only = algorithm == "cmaes"
    choices = {name for name, one in trial.distributions.items() if isinstance(one, CategoricalDistribution)}
    return trial.params.keys() - (choices if numbers_only else set())


@pytest.mark.parametrize(
    ("algorithm", "scheduler", "space"),
    [
        *((algorithm, "asha", space) for algorithm in ("tpe", "nsga2") for space in SPACES),
        *(("cmaes", "asha", space) for space in SPACES if space != "lists"),
        ("gp", "asha", "two models"),
        *(("cmaes", scheduler, "numbers") for scheduler in ("hyperband", "median", "none")),
        *(("nsga2", scheduler, "two models") for scheduler in ("hyperband", "none")),
        ("qmc", "asha", "two models"),
    ],
)
def test_proposals_come_from_the_model(tmp_path: Path, algorithm: str, scheduler: str, space: str) -> None:
    """All but the random start do, and they choose the settings of whichever model the plan has, too."""
    one = found(tmp_path, algorithm, scheduler, space)
    assert len(tried(one)) == TRIALS
    if scheduler == "asha":  # the study of the run stays honest
        assert sum(trial.state == TrialState.PRUNED for trial in tried(one)) > TRIALS / 2
    modelled = [trial for trial in tried(one) if one.chosen.get(trial.number)]
    assert len(modelled) >= TRIALS - START - 2
    wanted = [(learnable(trial, algorithm), one.chosen[trial.number]) for trial in modelled]
    count = sum(map(len, (settings for settings, _ in wanted)))
    share = sum(len(settings & chosen) for settings, chosen in wanted) / count
    assert share > 0.5 if algorithm == "nsga2" else share > 0.9  # the rest is mutated, or was never tried before
    if algorithm == "cmaes":
        assert one.generations >= TRIALS // START - 1


def test_without_numbers_cma_es_has_nothing_to_learn(tmp_path: Path) -> None:
    """`check` and the start of a search say so: see tests/experiment/test_algorithms.py."""
    one = found(tmp_path, "cmaes", "asha", "lists")
    assert (one.modelled, one.generations) == (0, 0)


def test_what_was_learnt_makes_better_plans_than_chance(tmp_path: Path) -> None:
    chance = found(tmp_path / "chance", "random", "asha", "two models", 32)
    for algorithm in ("tpe", "cmaes", "nsga2"):
        assert found(tmp_path / algorithm, algorithm, "asha", "two models", 32).late > chance.late + 0.01


def test_plans_that_come_to_nothing_are_avoided(tmp_path: Path) -> None:
    """Half of the range of a setting fails, and the best value of it is next to the border."""

    def fails(plan: Mapping[str, Any], _: float) -> Fate:
        return Fate("plugin", 1) if plan["optimizer"]["config"]["lr"] > 0.07 else Fate("good")

    def failed(one: Searched) -> int:
        return sum(fails(plan, 0).kind == "plugin" for plan in one.plans[16:])

    with patch.object(worker, "fate", fails):
        chance = found(tmp_path / "chance", "random", "asha", "numbers", 32)
        for algorithm in ("cmaes", "nsga2"):
            assert failed(found(tmp_path / algorithm, algorithm, "asha", "numbers", 32)) < failed(chance)


def test_a_search_with_several_metrics_learns_too(tmp_path: Path) -> None:
    table = f'trials = {TRIALS}\nalgorithm = "nsga2"\nscheduler = "none"\nmetric = ["val_accuracy", "parameters"]\n'
    one = searched(tmp_path, SPACES["two models"], table, failing=0.3)
    assert {trial.state for trial in tried(one)} > {TrialState.COMPLETE}
    assert one.modelled >= TRIALS - 2 * START


# --- scores -------------------------------------------------------------------------------------------------------


def trial(number: int, *values: float, complete: bool = False, infeasible: bool = False) -> FrozenTrial:
    """A trial with these values after its first epochs."""
    made = create_trial(
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        values=[values[-1]] if complete else None,
        intermediate_values=dict(enumerate(values, start=1)),
        constraints={"nan": 1.0} if infeasible else {},
    )
    made.number = number
    return made


def order(*trials: FrozenTrial, direction: StudyDirection = UP) -> list[int]:
    """The numbers of trials by their scores, the best first."""
    given_scores = scores(trials, [direction])
    return sorted(given_scores, key=lambda number: given_scores[number], reverse=direction == UP)


def test_a_pruned_trial_is_compared_at_its_own_last_epoch() -> None:
    """That a trial was promoted does not make it better than a later one that was not."""
    promoted_by_luck, good, late = trial(0, 0.5, 0.6, 0.7, complete=True), trial(1, 0.6, 0.9, 0.99), trial(2, 0.55)
    poor = trial(3, 0.1)
    assert order(promoted_by_luck, good, late, poor) == [1, 2, 0, 3]
    assert order(promoted_by_luck, good, late, poor, direction=DOWN) == [3, 0, 2, 1]


def test_equal_trials_have_equal_scores_and_those_that_came_to_nothing_the_worst() -> None:
    given_scores = scores(
        [trial(0, 0.5), trial(1, 0.5), trial(2, infeasible=True), trial(3, 0.9, infeasible=True), trial(4)], [UP]
    )
    assert given_scores[0] == given_scores[1] > given_scores[2] == given_scores[3]
    assert 4 not in given_scores  # it was broken off before it said anything
    assert scores([], [UP]) == {}


def test_with_several_metrics_a_plan_that_came_to_nothing_is_the_worst_in_each() -> None:
    ended = [create_trial(state=TrialState.COMPLETE, values=values) for values in ([0.9, 100.0], [0.8, 50.0])]
    for number, one in enumerate(ended):
        one.number = number
    given_scores = scores([*ended, trial(2, infeasible=True), trial(3)], [UP, DOWN])
    assert given_scores == {0: (0.9, 100.0), 1: (0.8, 50.0), 2: (0.8, 100.0)}
    assert scores([trial(2, infeasible=True)], [UP, DOWN]) == {}


CURVES = st.lists(st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=6), max_size=12)


@given(CURVES)
def test_scores_rank_as_their_trials_do(curves: list[list[float]]) -> None:
    trials = [trial(number, *curve) for number, curve in enumerate(curves)]
    given_scores = scores(trials, [UP])
    assert given_scores.keys() == set(range(len(curves)))
    assert all(math.isfinite(value) for (value,) in given_scores.values())
    for one, curve in enumerate(curves):
        for other, against in enumerate(curves):
            if len(curve) == len(against):  # trained for as long: the value decides
                assert (curve[-1] > against[-1]) == (given_scores[one] > given_scores[other])
            elif all(more > less for more, less in zip(curve, against, strict=False)) and len(curves) == 2:
                assert given_scores[one] > given_scores[other]  # better at each epoch that both have
    upside_down = scores([trial(number, *(1 - v for v in curve)) for number, curve in enumerate(curves)], [DOWN])
    assert upside_down.keys() == given_scores.keys()
    assert all(upside_down[number][0] == pytest.approx(1 - value) for number, (value,) in given_scores.items())
