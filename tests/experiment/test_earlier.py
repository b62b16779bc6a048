"""What earlier runs lend to a search: which of their plans fit a space, and which of these are looked at first."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from pydantic import ValidationError

from mnistlab.experiment import earlier, loader
from mnistlab.experiment.earlier import Earlier, MisfitError, Result, fitted
from mnistlab.experiment.portfolio import first_looks, looks_of, most_looks
from mnistlab.experiment.space import Space, defaults, suggest
from mnistlab.experiment.spec import SearchSpec
from tests.experiment.test_portfolio import SPACE as TWO_OF_EACH
from tests.simulated.driving import registry

SPACE = f"""{TWO_OF_EACH}
[transform.shift]
pixels = [1, 2]
[training]
batch_size = [64, 128]
"""


@pytest.fixture
def space(tmp_path) -> Space:
    return space_of(tmp_path, SPACE)


def space_of(folder, text: str) -> Space:
    file = folder / "x.toml"
    file.write_text(text)
    return loader.load(file, (), registry()).space


def plan_of(space: Space, **wished: Any) -> dict[str, Any]:
    """The plan of all defaults, with these values in the place of some of them; `__` stands for a dot."""
    point = {key.replace("__", "."): value for key, value in wished.items()}
    return suggest(space, lambda one: point.get(one.path, one.default))


def test_a_plan_of_the_same_space_is_its_own_point(space):
    plan = plan_of(space, model="mlp", optimizer="sgd", model__mlp__width=100, training__batch_size=64)
    point = fitted(space, plan)
    assert suggest(space, lambda one: point[one.path]) == plan
    assert fitted(space, json.loads(json.dumps(plan))) == point


def test_what_the_space_fixes_and_what_the_plan_lacks_is_as_the_space_has_it(tmp_path, space):
    plan = plan_of(space, model="mlp", model__mlp__width=100, training__batch_size=64)
    del plan["model"]["config"]["dropout"]  # a version before it was there
    plan["transforms"] = []
    narrow = space_of(tmp_path, SPACE.replace("depth = [1, 2]", "depth = 4").replace("[64, 128]", "32"))
    point = fitted(narrow, plan)
    assert point["model.mlp.width"] == 100
    assert point["transform.shift.pixels"] == defaults(narrow)["transform.shift.pixels"]
    assert point["model.mlp.dropout"] == defaults(narrow)["model.mlp.dropout"]
    assert not point.keys() & {"model.mlp.depth", "training.batch_size"}
    assert point.keys() == {**defaults(narrow)}.keys()


def test_a_model_is_known_by_its_plugin_and_needs_no_choice(tmp_path, space):
    plan = plan_of(space, model="mlp", model__mlp__width=100)
    alone = space_of(tmp_path, SPACE.replace("[model.cnn]\n", "").replace("[model.mlp]", '[model."mnistlab:mlp"]'))
    point = fitted(alone, plan)
    assert "model" not in point
    assert point["model.mnistlab:mlp.width"] == 100


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model__mlp__width": 300}, "model.mlp.width = 300 is not in"),
        ({"model__mlp__depth": 3}, "model.mlp.depth = 3 is not in"),
        ({"optimizer__adamw__lr": 0.5}, "optimizer.adamw.lr = 0.5 is not in"),
        ({"training__batch_size": 256}, "training.batch_size = 256 is not in"),
        ({"transform__shift__pixels": 3}, "transform.shift.pixels = 3 is not in"),
    ],
)
def test_a_plan_outside_the_space_does_not_fit(space, change, why):
    with pytest.raises(MisfitError, match=why):
        fitted(space, plan_of(space, model="mlp", optimizer="adamw", **change))


@pytest.mark.parametrize("kind", ["model", "optimizer"])
def test_a_plan_of_what_the_space_has_not_does_not_fit(space, kind):
    plan = plan_of(space)
    plan[kind] = {**plan[kind], "name": "other", "plugin": "elsewhere:other"}
    with pytest.raises(MisfitError, match=f"{kind} other is none of"):
        fitted(space, plan)


def test_a_plan_whose_settings_were_changed_while_it_was_trained_is_no_plan_of_its_result(space):
    with pytest.raises(MisfitError, match="changed while"):
        fitted(space, {**plan_of(space), "changes": {"3": {"lr": 0.1}}})


# --- which plans are looked at first ------------------------------------------------------------------------------


def run_of(space: Space, *plans: dict[str, Any], name: str = "x-1", **about: Any) -> Earlier:
    """A run with these plans, the best first."""
    count = len(plans)
    results = [Result(f"{at:04}", fitted(space, one), 1 - (at + 0.5) / count, True) for at, one in enumerate(plans)]
    known = {"created": "", "sha256": "", "dataset": "digits", "images_sha256": "a", "images": 100, "epochs": 8}
    return Earlier(run=name, plans=count, results=tuple(results), **{**known, **about})


def plans(space: Space, *widths: int, **more: Any) -> list[dict[str, Any]]:
    return [plan_of(space, model="mlp", model__mlp__width=width, **more) for width in widths]


def good_and_others(space: Space, **about: Any) -> Earlier:
    """A run whose best third are three plans that are nearly the same, and one of another optimizer."""
    near = plans(space, 64, 66, 70)
    return run_of(space, *near, *plans(space, 80, optimizer="sgd"), *plans(space, *range(90, 170, 10)), **about)


def test_the_best_plans_that_are_unlike_each_other_are_looked_at_after_the_defaults(space):
    (found,) = earlier.looked_at(space, (good_and_others(space),), 5)
    assert found.looks == ("0000", "0003")  # the others are like them, or not among the best third
    looks = list(first_looks(space, (found,)))
    assert looks[0] == defaults(space)
    assert looks[1:3] == [dict(found.results[0].point), dict(found.results[3].point)]
    assert [*looks[:1], *looks[3:]] == [one for one in first_looks(space) if one not in looks[1:3]]


def test_a_plan_like_that_of_all_defaults_is_not_looked_at_again(space):
    run = run_of(space, *plans(space, 256), *plans(space, 250, model__mlp__dropout=0.3), *[plan_of(space)] * 4)
    assert earlier.looked_at(space, (run,), 5)[0].looks == ()
    far = replace(run, results=(Result("0009", fitted(space, plans(space, 100)[0]), 1.0, True), *run.results))
    assert earlier.looked_at(space, (far,), 5)[0].looks == ("0009",)


def test_no_more_are_looked_at_than_there_is_room_for(space):
    assert [one.looks for one in earlier.looked_at(space, (good_and_others(space),), 1)] == [("0000",)]
    assert [one.looks for one in earlier.looked_at(space, (good_and_others(space),), 0)] == [()]


def test_several_runs_lend_in_turn_and_none_what_another_has_lent(space):
    two = run_of(space, *plans(space, 65), name="x-2")
    three = run_of(space, *plans(space, 200, training__batch_size=64), name="x-3")
    found = earlier.looked_at(space, (good_and_others(space), two, three), 9)
    assert [run.looks for run in found] == [("0000", "0003"), (), ("0000",)]
    assert [point["model.mlp.width"] for point in earlier.points(found)] == [64, 200, 80]


def test_a_plan_that_had_no_full_budget_is_looked_at_only_where_none_had(space):
    run = good_and_others(space)
    short = replace(run, results=tuple(replace(one, whole=one.trial == "0003") for one in run.results))
    assert earlier.looked_at(space, (short,), 5)[0].looks == ("0003",)
    none = replace(run, results=tuple(replace(one, whole=False) for one in run.results))
    assert earlier.looked_at(space, (none,), 5)[0].looks == ("0000",)


@pytest.mark.parametrize(("algorithm", "count"), [("auto", 4), ("tpe", 3), ("random", 3)])
def test_looks_are_a_third_of_the_trials_at_most(space, algorithm, count):
    search = SearchSpec(trials=12, algorithm=algorithm)
    taken = earlier.looked_at(space, (good_and_others(space),), most_looks(search) - 1)
    assert looks_of(search, taken) == count
    assert looks_of(search) == (4 if algorithm == "auto" else 1)


# --- what a result counts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("about", "alike"),
    [({}, True), ({"images_sha256": "b"}, False), ({"images": 99}, False), ({"epochs": 9}, False)],
)
def test_results_of_another_task_count_half(space, about, alike):
    run = run_of(space, *plans(space, 256, 128, 64), **about)
    (found,) = earlier.compared((run,), "a", 100, 8)
    assert found.alike == alike
    shares = [share for _, share in found.weighed()]
    assert shares == pytest.approx([5 / 6, 1 / 2, 1 / 6] if alike else [2 / 3, 1 / 2, 1 / 3])
    assert ("count less" in earlier.text(found)) == (not alike)


def test_what_is_written_down_is_read_again_as_it_was(space):
    run = replace(run_of(space, *plans(space, 256, 128)), looks=("0000",))
    entries = json.loads(json.dumps([{**asdict(run), "new": 1}]))
    assert earlier.from_json(entries) == (run,)
    assert [type(value) for value in earlier.from_json(entries)[0].results[0].point.values()] == [
        type(value) for value in run.results[0].point.values()
    ]
    del entries[0]["results"][0]["beats"]
    with pytest.raises(ValidationError, match="beats"):
        earlier.from_json(entries)


def test_points_are_those_of_a_space_that_was_added_to(tmp_path, space):
    """Where the one model becomes a choice, and a fixed value a list, a plan has what it was made with."""
    small = SPACE.replace("[model.cnn]\n", "").replace("depth = [1, 2]", "depth = 2")
    before = space_of(tmp_path, small)
    run = run_of(before, *plans(before, 256, 100))
    (found,) = earlier.refitted((run,), before, space)
    assert [one.point["model"] for one in found.results] == ["mlp", "mlp"]
    assert [one.point["model.mlp.depth"] for one in found.results] == [2, 2]
    assert [one.point["model.mlp.width"] for one in found.results] == [256, 100]
