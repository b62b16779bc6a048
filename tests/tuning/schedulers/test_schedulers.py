"""How a population changes its settings, how many brackets Hyperband has, and when the first trial may be stopped."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from mnistlab.api import Choice, Domain, Float, Int, domains
from mnistlab.builtin.optimizers.schedules import Scheduled
from mnistlab.experiment.space import Branch, Parameter, Space
from mnistlab.experiment.spec import ExperimentSpec, Table
from mnistlab.tuning.schedulers import scheduler
from mnistlab.tuning.schedulers.common import Wanted
from mnistlab.tuning.schedulers.hyperband import brackets
from mnistlab.tuning.schedulers.pbt import Population, _neighbour, _sample


@pytest.mark.parametrize(
    ("domain", "value"),
    [
        (Float(1e-4, 1e-1, log=True), 3e-3),
        (Float(0.0, 0.5), 0.1),
        (Float(0.0, 1.0, step=0.25), 0.5),
        (Int(16, 512, log=True), 128),
        (Int(1, 4), 2),
        (Choice("a", "b", "c"), "b"),
        (Choice("only"), "only"),
    ],
)
def test_changes_stay_inside_the_domain(domain: Domain, value: object) -> None:
    draw, parameter = random.Random(0), Parameter("optimizer.x.y", domain, value)  # type: ignore[arg-type]
    for _ in range(200):
        assert domain.contains(_sample(parameter, draw))
        value = _neighbour(parameter, value, draw)  # type: ignore[arg-type]
        assert domain.contains(value)


def test_a_neighbour_is_near() -> None:
    parameter = Parameter("optimizer.x.lr", Float(1e-4, 1e-1, log=True), 1e-3)
    moved = sorted({_neighbour(parameter, 1e-3, random.Random(i)) for i in range(20)})
    assert moved == pytest.approx([0.8e-3, 1.25e-3])


def test_exploring_changes_searched_settings_and_leaves_fixed_ones_and_the_plan() -> None:
    lr = Parameter("optimizer.x.lr", Float(1e-4, 1e-1, log=True), 1e-3)
    branch = Branch("x", {}, {"momentum": 0.9}, (lr,))
    empty = Branch("training", {}, {"epochs": 4}, ())
    population = Population(Space((), (branch,), (), empty), 0, lambda: False, metric="val_accuracy", mode="max")
    part = {"name": "x", "config": {"momentum": 0.9, "lr": 1e-3}}
    task = json.dumps({"plan": {"optimizer": part}, "seed": 1})
    explored = json.loads(population._explore({"task": task})["task"])
    assert explored["plan"] == {"optimizer": part}
    assert explored["optimizer"]["config"]["momentum"] == 0.9
    assert explored["optimizer"]["config"]["lr"] != 1e-3
    again = json.loads(population._explore({"task": json.dumps(explored)})["task"])
    assert again["optimizer"]["config"]["lr"] != explored["optimizer"]["config"]["lr"]


@pytest.mark.parametrize(
    ("epochs", "factor", "count"), [(1, 3, 1), (2, 3, 1), (3, 3, 2), (8, 3, 2), (9, 3, 3), (8, 2, 4)]
)
def test_hyperband_has_a_bracket_for_each_power(epochs: int, factor: int, count: int) -> None:
    assert brackets(epochs, factor) == count


@pytest.mark.parametrize("epochs", [1, 2, 7, 8, 20])
@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_nothing_is_stopped_while_the_learning_rate_may_still_rise(name: str, epochs: int) -> None:
    warmup = domains(Scheduled)["warmup"]
    assert isinstance(warmup, Float)
    assert warmup.high * epochs <= _grace(name, epochs) <= epochs
    assert _grace(name, epochs, grace_epochs=1) == 1


@pytest.mark.parametrize("epochs", [1, 4, 8, 9, 27])
@pytest.mark.parametrize("grace", [{}, {"grace_epochs": 1}])
def test_every_bracket_of_hyperband_judges_its_trials(epochs: int, grace: dict[str, int]) -> None:
    made = _made("hyperband", epochs, **grace)
    rungs = [[epoch for epoch, _ in bracket._rungs] for bracket in made._brackets]
    assert all(rungs)
    assert len(rungs) == (1 if not grace else 1 + sum(3**power <= epochs for power in (1, 2, 3)))


def _grace(name: str, epochs: int, **search: int) -> float:
    """Return before which epoch a scheduler stops nothing."""
    made = _made(name, epochs, **search)
    return made._grace_period if name == "median" else min(epoch for epoch, _ in made._brackets[0]._rungs)


def _made(name: str, epochs: int, **search: int) -> Any:
    tables: Table = {"name": "x", "model": {"mlp": {}}, "search": {"scheduler": name, **search}}
    spec = ExperimentSpec.model_validate(tables)
    space = Space((), (), (), Branch("training", {}, {"epochs": epochs}, ()))
    return scheduler(Wanted(spec, space, lambda: False))
