"""What only a real Ray shows of a search: what its workers print, populations, and how it ends when it is stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from mnistlab import events
from mnistlab.discovery import selection
from mnistlab.registry import Registry, select
from mnistlab.store import read_run
from mnistlab.tuning.local import LOCAL
from mnistlab.tuning.replicates import ReplicateAnswer, ReplicateTask, train_replicate
from mnistlab.tuning.tune import RAY_TUNE
from mnistlab.tuning.worker import Here, Shared
from tests.tuning.conftest import MACHINE, RunTiny
from tests.tuning.test_resume import all_found, rungs, space
from tests.tuning.test_search import SEARCHED, moods

pytestmark = pytest.mark.ray


@pytest.mark.chaos
def test_a_search_that_is_given_up_interrupts_what_runs(run_tiny: RunTiny) -> None:
    text = (
        moods("lonely", scheduler="none").replace("trials = 1", "trials = 30").replace("epochs = 4", "epochs = 10000")
    )
    ran = run_tiny(text.replace('"grid"', '"random"').replace("gain = 1.0\n", ""), parallel=2, executor=RAY_TUNE)
    first, *others = [ran.trials[number] for number in sorted(ran.trials)]
    assert (first.state, first.message) == ("interrupted", "search given up")
    assert {result.cause for result in others} == {"plugin"}
    assert ran.study[0].user_attrs == {"interrupted": "search given up"}


def test_what_a_trial_prints_goes_to_its_log_alone(run_tiny: RunTiny, capfd: pytest.CaptureFixture[str]) -> None:
    ran = run_tiny(moods("noisy", "good", scheduler="none"), executor=RAY_TUNE)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    by_mood = {
        result.plan["model"]["config"]["mood"]: ran.path / "trials" / result.trial / "log.txt" for result in ran.results
    }
    log = by_mood["noisy"].read_text()
    assert "\x1b[31mprinted by the model" in log
    assert "written to descriptor 2" in log
    assert not by_mood["good"].exists()
    assert not list((ran.path / "ray").rglob("*.safetensors"))  # only a population leaves any


@pytest.mark.chaos
def test_a_stopped_population_ends_at_once_and_everybody_agrees(run_tiny: RunTiny) -> None:
    text = SEARCHED.format(trials=6, algorithm="random", scheduler="pbt", extra="")
    ran = run_tiny(text.replace("epochs = 4", "epochs = 100000"), parallel=2, stop_after=50, executor=RAY_TUNE)
    assert ran.results
    assert {(result.state, result.message) for result in ran.results} == {("interrupted", "stop request")}
    assert {trial.state for trial in ran.study} == {TrialState.PRUNED}
    assert {trial.user_attrs["interrupted"] for trial in ran.study} == {"stop request"}
    assert len(ran.of(events.TrialEpoch)) < 100


def test_a_population_copies_weights_and_its_plans_give_the_same_numbers_when_they_are_trained_again(
    run_tiny: RunTiny, registry: Registry
) -> None:
    """A trial of a population went on from another's weights; its plan and seed alone repeat what came of it."""
    text = SEARCHED.format(trials=4, algorithm="random", scheduler="pbt", extra="").replace("epochs = 4", "epochs = 8")
    shared: list[Shared] = []
    ran = run_tiny(text, parallel=2, then=lambda search, _: shared.append(search.shared), executor=RAY_TUNE)
    assert sorted(ran.trials) == [0, 1, 2, 3]
    assert all(result.state == "complete" for result in ran.results)
    assert all(len(result.history) == 8 for result in ran.results)
    changed = [result for result in ran.results if result.plan.get("changes")]
    assert changed, "no trial of the population took up another's weights"
    for result in changed:
        for change in result.plan["changes"]:
            assert 0 < change["epoch"] < 8
            assert change["optimizer"]["name"] in ("sgd", "adamw")
    one = changed[0]
    task = ReplicateTask(one.trial, 1, one.seed, dict(one.plan))
    with LOCAL.joined(None, MACHINE, ""):
        *_, answer = train_replicate(replace(shared[0], here=Here(registry, lambda: None)), task)
    assert isinstance(answer, ReplicateAnswer)
    assert answer.cause == ""
    assert answer.history[-1]["val_loss"] == one.metrics["val_loss"]


@pytest.mark.chaos
def test_two_workers_lose_nothing_and_number_on(run_tiny: RunTiny) -> None:
    text = space()
    first = run_tiny(text, parallel=2, stop_after=7, executor=RAY_TUNE)
    ended = {name: one for name, one in all_found(first.path).items() if one["state"] != "interrupted"}
    second = run_tiny(text, parallel=2, goes_on=first, executor=RAY_TUNE)
    after = all_found(second.path)
    assert sorted(after) == [f"{number:04}" for number in range(6)]
    assert all(one["state"] in {"complete", "pruned"} for one in after.values())
    assert {name: after[name] for name in ended} == ended
    assert TrialState.RUNNING not in {trial.state for trial in second.study}
    told = [trial for trial in second.study if trial.state in {TrialState.COMPLETE, TrialState.PRUNED}]
    assert len(told) == 6


@pytest.mark.chaos
def test_a_population_goes_on(run_tiny: RunTiny) -> None:
    text = space("random", "pbt", "")
    first = run_tiny(text, parallel=2, stop_after=17, executor=RAY_TUNE)
    changed = {r.trial: r.plan for r in first.results if r.state == "interrupted" and r.plan.get("changes")}
    assert changed, "no trial had taken over another one's settings before the cut"
    second = run_tiny(text, parallel=2, goes_on=first, executor=RAY_TUNE)
    started = {event.trial: event for event in second.of(events.TrialStarted)}
    assert {trial: started[trial].plan for trial in changed} == changed
    results = read_run(second.path).trials
    assert [result.state for result in results] == ["complete"] * 6
    assert all(len(result.history) == 4 for result in results)


@pytest.mark.chaos
def test_a_trial_that_breaks_late_hurts_no_population(run_tiny: RunTiny) -> None:
    text = moods("late", "good", scheduler="pbt").replace('"grid"', '"random"').replace("trials = 2", "trials = 6")
    ran = run_tiny(text.replace("lr = 0.05\n", "").replace("gain = 1.0\n", ""), parallel=2, executor=RAY_TUNE)
    assert len(ran.results) == 6
    late = [r for r in ran.results if r.plan["model"]["config"]["mood"] == "late"]
    assert {r.cause for r in late if r.state == "failed"} <= {"nan"}  # a copy counts anew: it may live to its end
    assert {r.state for r in ran.results if r not in late} <= {"complete", "pruned"}
    assert [t.state for t in ran.study if not t.state.is_finished()] == []


PLAIN = """
from typing import Annotated
from torch import nn
from mnistlab.api import Config, Int, Model, hookimpl

class Plain(Config):
    width: Annotated[int, Int(4, 32)] = 8

def build(config, shape):
    hidden = nn.Linear(shape.pixels, config.width)
    return nn.Sequential(nn.Flatten(), hidden, nn.Dropout(0.2), nn.Linear(config.width, shape.classes))

@hookimpl
def mnistlab_models():
    return [Model(name="plain", config=Plain, build=build, summary="Draws at random while it trains.")]
"""


def test_one_worker_and_this_process_come_to_the_same_trials_of_a_model_in_a_single_file(
    run_tiny: RunTiny, tmp_path: Path
) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    plugins = select(selection([tmp_path / "plain.py"]))
    text = space("tpe", "hyperband").replace('[model.moody]\nmood = ["good", "stuck"]\ngain', "[model.plain]\nwidth")
    text = text.replace("{ low = 0.5, high = 2.0 }", "{ low = 4, high = 32 }")
    here, there = (run_tiny(text, executor=by, plugins=plugins) for by in (LOCAL, RAY_TUNE))
    assert all_found(here.path) == all_found(there.path)
    assert rungs(here) == rungs(there)
    assert [trial.params for trial in here.study] == [trial.params for trial in there.study]
    assert len(here.results) == 6
