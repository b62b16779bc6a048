"""What samplers make of a space that has grown since earlier drivers proposed in it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mnistlab.experiment import loader
from mnistlab.experiment.identity import canonical
from mnistlab.experiment.space import grid, suggest
from mnistlab.plugins.registry import Registry
from mnistlab.store import read_run
from mnistlab.store.layout import trial_name
from mnistlab.tuning.history import Past, PastTrial, Step
from mnistlab.util.text import settings
from tests.tuning.conftest import RunTiny
from tests.tuning.test_repeats import Asked
from tests.tuning.test_resume import all_found, space

pytestmark = pytest.mark.simulated

FINITE = """
[model.moody]
mood = ["good", "stuck"]
gain = [0.5, 1.0]
[optimizer.sgd]
lr = [0.05, 0.1]
momentum = 0.9
weight_decay = 1e-6
schedule = "constant"
warmup = 0.0
[training]
epochs = 4
batch_size = 16
[search]
trials = TRIALS
algorithm = "grid"
scheduler = "none"
"""
WIDE = FINITE.replace("lr = [0.05, 0.1]", "lr = { low = 0.005, high = 0.5 }")
MLP = "depth = 1\nwidth = [32, 64]\ndropout = 0.1\nbatch_norm = true\nactivation = 'relu'"
ADAMW = "lr = [0.01, 0.02]\nbeta1 = 0.9\nbeta2 = 0.99\nweight_decay = 1e-3\nschedule = 'constant'\nwarmup = 0.0"
ADDITIONS = {
    "option": ("gain = [0.5, 1.0]", "gain = [1.0, 2.0, 0.5]"),
    "fixed": ("batch_size = 16", "batch_size = [8, 16]"),
    "model": ("[model.moody]", f"[model.mlp]\n{MLP}\n[model.moody]"),
    "optimizer": ("[training]", f"[optimizer.adamw]\n{ADAMW}\n[training]"),
    "transform": ("[training]", "[transform.shift]\npixels = [1, 2]\n[training]"),
}


def past_of_tasks(tasks: list[dict[str, Any]]) -> Past:
    """The past of trials that were begun and ended one after the other."""
    trials, steps = dict[str, PastTrial](), list[Step]()
    for number, task in enumerate(tasks):
        name, history = trial_name(number), {epoch: {"val_accuracy": 0.5 + epoch / 100} for epoch in range(1, 5)}
        about: dict[str, Any] = {"seed": task["seed"], "plan": task["plan"], "repeats": task.get("repeats", "")}
        trials[name] = PastTrial(name=name, number=number, state="complete", history=history, **about)
        steps += [Step("started", name), *(Step("epoch", name, epoch) for epoch in history), Step("ended", name)]
    return Past(trials, tuple(steps), 1.0, 1)


def plans(tasks: list[dict[str, Any]]) -> list[str]:
    return [canonical(task["plan"]) for task in tasks]


def gone_on(
    folder: Path, registry: Registry, algorithm: str, text: str, addition: str, *, first: int, then: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Asked]:
    """The tasks of a search, those of the amended one that goes on with it, and what that asked."""
    old, new = ADDITIONS[addition]
    assert old in text
    tasks: Any = Asked(folder, registry, text.replace("TRIALS", str(first)), algorithm).tasks()
    (folder / "study.db").unlink()
    asked = Asked(folder, registry, text.replace("TRIALS", str(then)).replace(old, new), algorithm)
    asked.bridge.take_up(past_of_tasks(tasks), {})
    more: Any = asked.tasks()
    return tasks, more, asked


def pairs(first: list[Any], second: list[Any]) -> list[Any]:
    """All pairs: of these the first of either with all of the other, the rest for `make chaos` alone."""
    long = list(itertools.product(first[1:], second[1:]))
    short = [one for one in itertools.product(first, second) if one not in long]
    return [*short, *(pytest.param(*one, marks=pytest.mark.chaos) for one in long)]


@pytest.mark.parametrize(
    ("algorithm", "addition"), pairs(["cmaes", "tpe", "random", "qmc", "gp", "nsga2"], list(ADDITIONS))
)
def test_a_sampler_knows_what_was_tried_and_proposes_in_the_larger_space(
    tmp_path: Path, registry: Registry, algorithm: str, addition: str
) -> None:
    new = 4 if algorithm == "gp" else 20  # that one takes its time
    tasks, more, asked = gone_on(tmp_path, registry, algorithm, WIDE, addition, first=6, then=6 + new)
    assert (len(tasks), len(more)) == (6, new)
    assert not set(plans(tasks)) & set(plans(more))
    told = [trial for trial in asked.study.trials if trial.state == TrialState.COMPLETE]
    assert len(told) == 6 + new
    for trial, task in zip(told, tasks, strict=False):
        flat = settings(task["plan"])
        # what the plan has, and nothing that it has not: no value of what was added was tried in it
        assert trial.params == {key: flat[key] for key in trial.params}
        assert trial.value == 0.54
    assert any(is_new(task["plan"]) for task in more)


def is_new(plan: dict[str, Any]) -> bool:
    """Whether a plan has something that was added, by any of `ADDITIONS`."""
    names = plan["model"]["name"] == "mlp" or plan["optimizer"]["name"] == "adamw" or bool(plan["transforms"])
    return names or plan["training"]["batch_size"] == 8 or plan["model"]["config"].get("gain") == 2.0


@pytest.mark.parametrize(("first", "addition"), pairs([8, 3], list(ADDITIONS)))
def test_a_grid_tries_every_point_that_was_added_and_none_again(
    tmp_path: Path, registry: Registry, addition: str, first: int
) -> None:
    tasks, more, asked = gone_on(tmp_path, registry, "grid", FINITE, addition, first=first, then=1000)
    assert len(tasks) == first
    whole = loader.load(tmp_path / "x.toml", (), registry).space
    points = [canonical(suggest(whole, lambda one, point=point: point[one.path])) for point in grid(whole)]
    behind = plans(tasks) if addition != "transform" else []  # there every plan of now has one part more
    assert sorted([*behind, *plans(more)]) == sorted(points)
    assert not set(plans(tasks)) & set(plans(more))
    assert not [trial for trial in asked.study.trials if trial.state == TrialState.FAIL]
    (said,) = asked.said
    assert "and each was tried" in said


def test_a_finite_space_ends_when_all_of_its_own_plans_were_tried(tmp_path: Path, registry: Registry) -> None:
    """Plans of before that the space no longer makes do not count, or the new ones would never be tried."""
    tasks, more, _ = gone_on(tmp_path, registry, "random", FINITE, "transform", first=8, then=1000)
    assert len(set(plans(tasks))) == 8
    assert len(set(plans(more))) == 16


def test_a_grid_that_is_gone_on_with_as_it_is_is_told_the_same_again(tmp_path: Path, registry: Registry) -> None:
    tasks: Any = Asked(tmp_path, registry, FINITE.replace("TRIALS", "8"), "grid").tasks()
    (tmp_path / "study.db").unlink()
    asked = Asked(tmp_path, registry, FINITE.replace("TRIALS", "8"), "grid")
    past = past_of_tasks(tasks)
    begun = {name: one for name, one in past.trials.items() if one.number not in (1, 4)}  # two were never begun
    asked.bridge.take_up(Past(begun, tuple(step for step in past.steps if step.trial in begun), 1.0, 1), {})
    again: Any = asked.tasks()
    assert plans(again) == [plans(tasks)[1], plans(tasks)[4]]


@pytest.mark.parametrize(
    "algorithm", ["tpe", "grid", *(pytest.param(n, marks=pytest.mark.chaos) for n in ("cmaes", "random"))]
)
def test_a_search_goes_on_in_a_larger_space(run_tiny: RunTiny, algorithm: str) -> None:
    text = space(algorithm, "none", "") if algorithm != "grid" else FINITE.replace("TRIALS", "4")
    first = run_tiny(text, stop_after=6)
    before = {name: one for name, one in all_found(first.path).items() if one["state"] == "complete"}
    larger = text.replace('["good", "stuck"]', '["good", "slow", "stuck"]').replace("size = 16", "size = [16, 32]")
    larger = larger.replace("trials = 6", "trials = 12").replace("trials = 4", "trials = 12")
    second = run_tiny(larger, goes_on=first)
    results = read_run(second.path).trials
    assert [one.number for one in results] == list(range(12))
    assert {one.state for one in results} == {"complete"}
    after = all_found(second.path)
    assert {name: after[name] for name in before} == before
    assert len({canonical(one.plan) for one in results}) == 12
    new = [one for one in results if one.plan["training"]["batch_size"] == 32]
    assert new
    assert not [trial for trial in second.study if trial.state == TrialState.RUNNING]
    assert optuna.get_all_study_names(f"sqlite:///{second.path / 'study.db'}") == ["tiny"]
