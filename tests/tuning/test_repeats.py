"""A plan is one configuration: what becomes of a proposal that was tried before, and of a space that is exhausted."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from mnistlab import events
from mnistlab.experiment import loader
from mnistlab.experiment.identity import canonical
from mnistlab.plugins.registry import Registry
from mnistlab.tuning.outcome import Interruptions
from mnistlab.tuning.proposals import INSISTS
from mnistlab.tuning.searcher import Bridge, SearcherOptions
from mnistlab.tuning.study import open_study
from tests.tuning.conftest import RunTiny
from tests.tuning.test_search import moods

THREE = moods("good", "stuck", "noisy", scheduler="none").replace("trials = 3", "trials = 10")
CONTINUOUS = THREE.replace("gain = 1.0\n", "")
TASKS = list[dict[str, Any]]
Config = dict[str, Any]
Ended = dict[str, Any]


class Asked:
    """A bridge that is asked as Tune would, each trial ending before the next one begins."""

    def __init__(self, folder: Path, registry: Registry, text: str, algorithm: str) -> None:
        file = folder / "x.toml"
        file.write_text('name = "tiny"\n' + text.replace('"grid"', f'"{algorithm}"'))
        wanted = loader.load(file, (), registry)
        self.study, self.said = open_study(folder / "study.db", wanted.spec, wanted.space), list[str]()
        options = SearcherOptions(parallel=None, interruptions=Interruptions(lambda: ""), say=self.said.append)
        self.bridge = Bridge(self.study, wanted.space, wanted.spec, options)

    def tasks(self, end_of: Callable[[Config], Ended] = lambda _: {"val_accuracy": 0.9}) -> TASKS:
        """Return all tasks; each ends as `end_of` says of its model's settings."""
        found: TASKS = []
        for turn in range(100):
            name = f"t{turn}"
            answer = self.bridge.suggest(name)
            if answer == Searcher.FINISHED:
                break
            found.append(json.loads(answer["task"]))
            end = end_of(found[-1]["plan"]["model"]["config"])
            self.bridge.on_trial_complete(name, {"epoch": 4, "epochs": 4, **end})
        return found


@pytest.mark.parametrize("algorithm", ["random", "tpe", "grid", "gp", "qmc"])
def test_a_space_of_three_plans_is_tried_once_and_the_search_says_that_it_ends(
    tmp_path: Path, registry: Registry, algorithm: str
) -> None:
    asked = Asked(tmp_path, registry, THREE, algorithm)
    tasks = asked.tasks()
    tried = Counter(canonical(task["plan"]) for task in tasks)
    assert (len(tried), len(tasks)) == (3, 3)
    assert not [task for task in tasks if "repeats" in task]  # also where a sampler insists on one that was tried
    (said,) = asked.said
    assert said.startswith("the space holds 3 plans, and each was tried: the search ends after 3 of 10 tri")
    assert asked.bridge.suggest("later") == Searcher.FINISHED
    assert len(asked.said) == 1


def test_a_continuous_space_is_never_exhausted_and_repeats_nothing(tmp_path: Path, registry: Registry) -> None:
    asked = Asked(tmp_path, registry, CONTINUOUS, "random")
    tasks = asked.tasks()
    assert len({canonical(task["plan"]) for task in tasks}) == len(tasks) == 10
    assert not [task for task in tasks if "repeats" in task]
    assert asked.said == []


def test_a_sampler_that_insists_gets_another_seed_of_its_plan(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a space that can't be counted: of one that can, a plan that was not tried comes instead."""
    asked = Asked(tmp_path, registry, CONTINUOUS, "random")
    first = json.loads(asked.bridge.suggest("a")["task"])
    wanted = first["plan"]["model"]["config"]
    options = {"model.moody.mood": wanted["mood"], "model.moody.gain": wanted["gain"]}
    monkeypatch.setattr(asked.study.sampler, "sample_independent", lambda _study, _trial, name, _domain: options[name])
    again = json.loads(asked.bridge.suggest("b")["task"])
    assert again["plan"] == first["plan"]
    assert again["repeats"] == "0000"
    assert again["seed"] != first["seed"]
    refused = [trial for trial in asked.study.trials if trial.state == TrialState.FAIL]
    assert len(refused) >= INSISTS - 1
    assert {trial.user_attrs["repeats"] for trial in refused} == {"0000"}


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("cause", "least", "most"),
    [
        ("nan", 0.0, 0.6),
        ("hang", 0.8, 1.0),
        *(pytest.param(cause, 0.0, 0.6, marks=pytest.mark.chaos) for cause in ("plugin", "timeout")),
    ],
)
def test_tpe_keeps_away_from_plans_that_are_infeasible_and_passes_over_the_faults_of_machines(
    tmp_path: Path, registry: Registry, cause: str, least: float, most: float
) -> None:
    """The best plans lie beside the half of the space in which all fail."""
    text = THREE.replace("gain = 1.0", "gain = {low = 0.5, high = 2.0}").replace('["good", "stuck", "noisy"]', '"good"')
    asked = Asked(tmp_path, registry, text.replace("trials = 10", "trials = 60"), "tpe")

    def end(config: Config) -> Ended:
        return {"cause": cause, "message": "x"} if config["gain"] > 1.2 else {"val_accuracy": config["gain"] / 2}

    gains = [task["plan"]["model"]["config"]["gain"] for task in asked.tasks(end)]
    failed = [gain > 1.2 for gain in gains]
    assert least <= sum(failed[20:]) / 40 <= most  # of all plans it is 0.53


@pytest.mark.parametrize("algorithm", ["cmaes", "gp", "nsga2", "qmc", "random"])
def test_a_sampler_that_makes_no_use_of_infeasible_plans_says_nothing_of_it(
    tmp_path: Path, registry: Registry, algorithm: str
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        asked = Asked(tmp_path, registry, CONTINUOUS.replace("trials = 10", "trials = 4"), algorithm)
        assert len(asked.tasks(lambda _: {"cause": "nan", "message": "x"})) == 4
    assert [str(one.message) for one in said if "onstraint" in str(one.message)] == []


@pytest.mark.simulated
def test_a_search_of_a_small_space_ends_early_and_its_events_say_so(run_tiny: RunTiny) -> None:
    ran = run_tiny(THREE.replace('"grid"', '"random"'))
    assert len({canonical(result.plan) for result in ran.results}) == 3
    assert sorted(ran.trials) == list(range(len(ran.results)))
    named = {t.user_attrs.get("trial", f"{t.number:04}"): t for t in ran.study if t.state != TrialState.FAIL}
    assert {name: t.value for name, t in named.items()} == {r.trial: r.metrics["val_accuracy"] for r in ran.results}
    started = [event for event in ran.stream if isinstance(event, events.TrialStarted)]
    assert {e.trial: e.repeats for e in started} == {r.trial: r.repeats for r in ran.results}
    (warning,) = ran.of(events.Warned)
    assert "the space holds 3 plans, and each was tried" in warning.message  # type: ignore[attr-defined]
    assert not [trial for trial in ran.study if not trial.state.is_finished()]
