"""A stepped value from Optuna, a population or an earlier driver is one of the points of its range, bit for bit."""

from __future__ import annotations

import copy
import math
import random
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnistlab.api import Choice, Domain, Float, Int
from mnistlab.experiment.identity import canonical
from mnistlab.experiment.points import values
from mnistlab.experiment.space import Branch, Parameter, Space
from mnistlab.plugins.registry import Registry
from mnistlab.store.results import TrialResult
from mnistlab.tuning.driver import best_trials
from mnistlab.tuning.history import Past
from mnistlab.tuning.samplers import About, sampler
from mnistlab.tuning.schedulers.pbt import _neighbour, _sample
from mnistlab.tuning.study import _be_quiet, ask, enqueue, settings_of
from tests.tuning.test_amended import past_of_tasks
from tests.tuning.test_repeats import Asked
from tests.util.test_steps import stepped

pytestmark = pytest.mark.simulated

WARMUP = """
[model.moody]
mood = "good"
gain = 1.0
[optimizer.sgd]
lr = 0.05
momentum = 0.9
weight_decay = 1e-6
schedule = "constant"
warmup = { low = 0, high = 0.5, step = 0.1 }
[training]
epochs = 4
batch_size = 16
[search]
trials = 20
algorithm = "grid"
scheduler = "none"
"""
POINTS = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]


def space_of(*parameters: Parameter) -> Space:
    return Space((Branch("m", {}, {}, parameters),), (Branch("o", {}, {}, ()),), (), Branch("training", {}, {}, ()))


def proposed(algorithm: Any, domain: Domain, count: int) -> list[Any]:
    """What an algorithm proposes for a parameter; that of which Optuna would warn is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        _be_quiet()  # as in a search
        parameter = Parameter("x", domain, domain.corners()[0])
        about = About(settings_of(space_of(parameter)), count, rungs=False)
        study = optuna.create_study(sampler=sampler(algorithm, 0, about))
        found: list[Any] = []
        for _ in range(count):
            trial = study.ask()
            found.append(ask(trial, parameter))
            study.tell(trial, float(len(found)))
    return found


@pytest.mark.parametrize("algorithm", ["random", "tpe", "qmc"])
@settings(deadline=None, max_examples=15)
@given(domain=stepped())
def test_what_optuna_proposes_is_a_point(algorithm: str, domain: Float) -> None:
    points = set(map(repr, values(domain) or ()))
    assert {repr(one) for one in proposed(algorithm, domain, 6)} <= points


@pytest.mark.parametrize(
    "domain",
    [Float(0.0, 1.0, step=1 / 3), Float(0.0, 0.1 + 0.7, step=0.1), Float(0.0, 5 / 3, step=5 / 6), Int(1, 8, 3)],
)
@pytest.mark.parametrize("algorithm", ["random", "cmaes", "gp"])
def test_every_point_is_proposed_the_last_one_too(algorithm: str, domain: Float | Int) -> None:
    count = 12 if algorithm == "gp" else 80
    found = set(map(repr, proposed(algorithm, domain, count)))
    points = set(map(repr, values(domain) or ()))
    assert found <= points
    assert found == points or algorithm != "random"


@pytest.mark.parametrize("algorithm", ["random", "tpe", "qmc", "cmaes", "gp"])
@pytest.mark.parametrize("domain", [Float(1e-5, 0.3, log=True), Float(-0.1, 0.3), Int(1, 500, log=True)])
def test_what_optuna_proposes_of_a_continuous_range_lies_inside(algorithm: str, domain: Float | Int) -> None:
    found = proposed(algorithm, domain, 10)
    assert all(domain.contains(one) for one in found)
    assert {type(one) for one in found} == {type(domain.low)}


class Beyond:
    """As a trial whose sampler leaves the range by the rounding of its logarithms."""

    def suggest_float(self, _name: str, low: float, high: float, **_: Any) -> float:
        return math.nextafter(high, math.inf) if high < 1 else math.nextafter(low, 0.0)


def test_a_proposal_beyond_a_range_is_its_end() -> None:
    trial: Any = Beyond()
    assert ask(trial, Parameter("x", Float(1e-5, 0.3, log=True), 0.1)) == 0.3
    assert ask(trial, Parameter("x", Float(1e-5, 3.0, log=True), 0.1)) == 1e-5


@pytest.mark.parametrize("domain", [Choice(1, True), Choice(True, 1, 1.0, "1"), Choice(0, False, 0.5)])
def test_optuna_tells_equal_options_apart(domain: Choice) -> None:
    assert {repr(one) for one in proposed("random", domain, 60)} == set(map(repr, domain.options))
    parameter = Parameter("x", domain, domain.options[0])
    space = space_of(parameter)
    study = optuna.create_study(sampler=sampler("random", 0, About(settings_of(space), 8, rungs=False)))
    for option in domain.options:
        enqueue(study, space, {"x": option})
        assert repr(ask(study.ask(), parameter)) == repr(option)


@settings(deadline=None, max_examples=30)
@given(domain=stepped(), seed=st.integers(0, 2**32))
def test_a_population_moves_from_point_to_neighbouring_point(domain: Float, seed: int) -> None:
    points, parameter, draw = list(values(domain) or ()), Parameter("x", domain, domain.low), random.Random(seed)
    value: Any = _sample(parameter, draw)
    for _ in range(20):
        here = points.index(value)
        moved: Any = _neighbour(parameter, math.nextafter(value, math.inf), draw)  # as an earlier version wrote it
        assert abs(points.index(moved) - here) == 1 or here in {0, len(points) - 1}
        assert abs(points.index(moved) - here) <= 1
        value = moved


def test_a_small_whole_number_has_neighbours() -> None:
    parameter, draw = Parameter("x", Int(1, 64, log=True), 2), random.Random(0)
    assert {_neighbour(parameter, 2, draw) for _ in range(20)} == {1, 3}
    assert {_neighbour(parameter, 1, draw) for _ in range(20)} == {1, 2}


def test_an_equal_option_of_another_type_has_its_own_neighbours() -> None:
    parameter, draw = Parameter("x", Choice("a", 1, "b", "c", True, "d"), "a"), random.Random(0)
    assert {_neighbour(parameter, True, draw) for _ in range(20)} == {"c", "d"}
    assert {_neighbour(parameter, 1, draw) for _ in range(20)} == {"a", "b"}


def test_an_option_that_is_gone_is_replaced_by_any_other() -> None:
    parameter, draw = Parameter("x", Choice("a", "b", "c"), "a"), random.Random(0)
    assert {_neighbour(parameter, "gone", draw) for _ in range(40)} == {"a", "b", "c"}


# --- searches -----------------------------------------------------------------------------------------------------


def warmups(tasks: list[dict[str, Any]]) -> list[float]:
    return [task["plan"]["optimizer"]["config"]["warmup"] for task in tasks]


@pytest.mark.parametrize("algorithm", ["grid", "tpe"])
def test_a_stepped_range_is_tried_point_by_point_and_then_exhausted(
    tmp_path: Path, registry: Registry, algorithm: str
) -> None:
    asked = Asked(tmp_path, registry, WARMUP.replace("trials = 20", "trials = 12"), algorithm)
    tasks = asked.tasks()
    tried = [task for task in tasks if "repeats" not in task]
    assert sorted(map(repr, warmups(tried))) == list(map(repr, POINTS))
    assert len({canonical(task["plan"]) for task in tasks}) == 6
    (said,) = asked.said
    assert said.startswith("the space holds 6 plans, and each was tried")


@pytest.mark.parametrize("algorithm", ["grid", "random"])
def test_options_that_python_calls_equal_are_tried_each(tmp_path: Path, registry: Registry, algorithm: str) -> None:
    asked = Asked(tmp_path, registry, WARMUP.replace("trials = 20", "trials = 5"), algorithm)
    space = asked.bridge._proposals.space
    (branch,) = space.optimizers
    (warmup,) = branch.parameters
    equal = replace(warmup, domain=Choice(1, True, 1.0), default=True)
    asked.bridge._proposals.space = replace(space, optimizers=(replace(branch, parameters=(equal,)),))
    tried = {repr(one) for one in warmups(asked.tasks())}
    assert tried == {"1", "True", "1.0"}


def as_before(task: dict[str, Any]) -> dict[str, Any]:
    """A task as an earlier version has written it: low + i * step, computed in floats, and an int for a float."""
    old = copy.deepcopy(task)
    config = old["plan"]["optimizer"]["config"]
    config["warmup"] = 0.0 + round(config["warmup"] / 0.1) * 0.1
    old["plan"]["model"]["config"]["gain"] = 1
    return old


@pytest.mark.parametrize("algorithm", ["grid", "random"])
def test_a_run_of_an_earlier_version_goes_on_without_trying_a_plan_twice(
    tmp_path: Path, registry: Registry, algorithm: str
) -> None:
    first = Asked(tmp_path, registry, WARMUP.replace("trials = 20", "trials = 5"), algorithm).tasks()
    first = [task for task in first if "repeats" not in task]
    old = [as_before(task) for task in first]
    assert algorithm != "grid" or warmups(old) != warmups(first)  # 0.30000000000000004
    (tmp_path / "study.db").unlink()
    asked = Asked(tmp_path, registry, WARMUP.replace("trials = 20", "trials = 12"), algorithm)
    asked.bridge.take_up(past_of_tasks(old), {})
    more = [task for task in asked.tasks() if "repeats" not in task]
    assert sorted(map(repr, [*warmups(first), *warmups(more)])) == list(map(repr, POINTS))
    (said,) = asked.said
    assert said.startswith("the space holds 6 plans, and each was tried")


def test_an_option_of_an_earlier_version_is_told_to_optuna_as_it_is_written_now(
    tmp_path: Path, registry: Registry
) -> None:
    text = WARMUP.replace("{ low = 0, high = 0.5, step = 0.1 }", "[0.1, 0.3]")
    old = [as_before(task) for task in Asked(tmp_path, registry, text, "grid").tasks()]
    assert 0.1 + 0.2 in warmups(old)
    (tmp_path / "study.db").unlink()
    asked = Asked(tmp_path, registry, text, "grid")
    asked.bridge.take_up(past_of_tasks(old), {})  # Optuna refuses an option that is not in its list
    assert [trial.params["optimizer.sgd.warmup"] for trial in asked.study.trials] == [round(w, 1) for w in warmups(old)]
    assert asked.tasks() == []


@pytest.mark.parametrize("algorithm", ["grid", "random"])
def test_a_trial_of_an_earlier_version_goes_on_with_the_plan_that_it_had(
    tmp_path: Path, registry: Registry, algorithm: str
) -> None:
    whole = Asked(tmp_path, registry, WARMUP.replace("trials = 20", "trials = 8"), algorithm).tasks()
    task = as_before(next(task for task in whole if task["plan"]["optimizer"]["config"]["warmup"] == 0.3))
    past = past_of_tasks([task])
    one = replace(past.trials["0000"], state=None, history={1: {"val_accuracy": 0.5}})
    (tmp_path / "study.db").unlink()
    asked = Asked(tmp_path, registry, WARMUP.replace("trials = 20", "trials = 8"), algorithm)
    asked.bridge.take_up(Past({"0000": one}, past.steps[:2], 1.0, 1), {})
    again, *more = asked.tasks()
    assert (again["resumes"], again["plan"]) == ("0000", task["plan"])  # so that its weights and history are its own
    tried = [one for one in more if "repeats" not in one]
    assert sorted(map(repr, warmups(tried))) == [repr(one) for one in POINTS if one != 0.3]


def result(number: int, warmup: float, accuracy: float) -> TrialResult:
    plan = {"optimizer": {"name": "sgd", "config": {"warmup": warmup}}}
    about: dict[str, Any] = {"seed": number, "history": (), "seconds": 1.0, "label": ""}
    metrics = {"val_accuracy": accuracy}
    return TrialResult(trial=f"{number:04}", number=number, state="complete", plan=plan, metrics=metrics, **about)


def test_a_plan_in_two_representations_is_confirmed_once() -> None:
    results = [result(0, 0.1 + 0.2, 0.9), result(1, 0.3, 0.8), result(2, 0.4, 0.7)]
    assert [one.trial for one in best_trials(results, "val_accuracy", 2)] == ["0000", "0002"]
