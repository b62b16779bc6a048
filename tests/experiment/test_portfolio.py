"""What a search looks at before it proposes anything: defaults, and what plugins know to be good."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from mnistlab.experiment import loader
from mnistlab.experiment.portfolio import first_looks
from mnistlab.experiment.space import Space, suggest
from tests.simulated.driving import registry

SPACE = """
name = "x"
[data]
dataset = "digits"
[model.mlp]
width = { low = 64, high = 256 }
depth = [1, 2]
[model.cnn]
[optimizer.adamw]
lr = { low = 1e-3, high = 1e-2 }
[optimizer.sgd]
momentum = 0.9
"""


@pytest.fixture
def space(tmp_path) -> Space:
    file = tmp_path / "x.toml"
    file.write_text(SPACE)
    return bare(loader.load(file, (), registry()).space)


def bare(space: Space, **offers: Any) -> Space:
    """Return the space with these portfolios, by the name of the branch, and no others."""

    def of(branches):
        return tuple(replace(one, portfolio=tuple(offers.get(one.name, ()))) for one in branches)

    return replace(space, models=of(space.models), optimizers=of(space.optimizers))


def test_defaults_of_each_model_come_first_and_of_each_pair_last(space):
    found = list(first_looks(space))
    pairs = [(one["model"], one["optimizer"]) for one in found]
    assert pairs == [("mlp", "adamw"), ("cnn", "adamw"), ("mlp", "sgd"), ("cnn", "sgd")]
    defaults = {one.path: one.default for one in space.parameters() if one.path not in {"model", "optimizer"}}
    assert all(defaults[key] == value for one in found for key, value in one.items() if key in defaults)


def test_plans_of_plugins_come_in_turn_with_the_defaults_of_the_next_model(space):
    offered = bare(
        space,
        mlp=[{"model.mlp.width": 100}, {"model.mlp.width": 200}],
        sgd=[{"model": "cnn", "optimizer.sgd.lr": 0.2}],
    )
    found = list(first_looks(offered))
    pairs = [(one["model"], one["optimizer"]) for one in found[:5]]
    assert pairs == [("mlp", "adamw"), ("mlp", "adamw"), ("cnn", "adamw"), ("cnn", "sgd"), ("mlp", "adamw")]
    assert found[2] == next(one for one in first_looks(space) if one["model"] == "cnn")
    assert [found[1]["model.mlp.width"], found[4]["model.mlp.width"]] == [100, 200]
    assert found[3]["optimizer.sgd.lr"] == 0.2


def test_plans_of_what_the_space_lacks_come_after_the_others(space):
    wishes = [{"optimizer": "muon", "model.mlp.width": 100}, {"optimizer": "sgd", "model.mlp.width": 200}]
    found = [one for one in first_looks(bare(space, mlp=wishes)) if one.get("model.mlp.width") in {100, 200}]
    assert [(one["optimizer"], one["model.mlp.width"]) for one in found] == [("sgd", 200), ("adamw", 100)]


@pytest.mark.parametrize(
    ("wish", "key", "value"),
    [
        ({"model.mlp.width": 10_000}, "model.mlp.width", 256),  # beyond the experiment's range: the nearest inside
        ({"model.mlp.depth": 3}, "model.mlp.depth", 2),  # no option of the list: the default
        ({"optimizer.adamw.lr": 1}, "optimizer.adamw.lr", 0.01),
        ({"optimizer.sgd.momentum": 0.5}, "optimizer.sgd.momentum", None),  # fixed by the experiment
        ({"model.mlp.gone": 3}, "model.mlp.gone", None),
        ({"optimizer": "muon"}, "optimizer", "adamw"),  # the space has no such one
        ({"model.mlp.width": "wide"}, "model.mlp.width", None),
    ],
)
def test_a_wish_that_the_space_lacks_becomes_the_nearest_that_it_has(space, wish, key, value):
    point = list(first_looks(bare(space, mlp=[{"model.mlp.width": 77, "optimizer.adamw.lr": 0.002} | wish])))[1]
    default = next((one.default for one in space.parameters() if one.path == key), None)
    assert point.get(key) == (default if value is None else value)
    assert suggest(space, lambda one: point[one.path])  # it is a whole point of the space


def test_no_plan_is_looked_at_twice(space):
    found = [sorted(one.items()) for one in first_looks(bare(space, mlp=[{}, {"model.mlp.width": 77}, {}]))]
    assert len(found) == 5
    assert all(found.count(one) == 1 for one in found)


def test_one_model_and_one_optimizer_have_one_default(space):
    alone = replace(space, models=space.models[:1], optimizers=space.optimizers[:1])
    assert [set(one) & {"model", "optimizer"} for one in islice(first_looks(alone), 3)] == [set()]
