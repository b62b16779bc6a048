"""A trial of a population resumes with the settings that it has come to, and its copies start from those."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.tune.experiment import Trial

from mnistlab.experiment.space import Space
from mnistlab.plugins.registry import Registry
from mnistlab.store import RunWriter, create_run
from mnistlab.store.checkpoints import write_checkpoint
from mnistlab.training.weights import pack
from mnistlab.tuning import driver
from mnistlab.tuning.history import Past, PastTrial, Step
from mnistlab.tuning.schedulers.pbt import Population
from tests.tuning.test_repeats import Asked

pytestmark = pytest.mark.simulated

TEXT = """
[model.moody]
mood = "good"
gain = { low = 0.5, high = 2.0 }
[optimizer.sgd]
lr = { low = 0.005, high = 0.5, log = true }
momentum = 0.9
weight_decay = 1e-6
schedule = "constant"
warmup = 0.0
[training]
epochs = 8
batch_size = 16
[search]
trials = 3
algorithm = "random"
scheduler = "SCHEDULER"
"""


def asked(folder: Path, registry: Registry, scheduler: str = "pbt") -> Asked:
    (folder / "study.db").unlink(missing_ok=True)
    return Asked(folder, registry, TEXT.replace("SCHEDULER", scheduler), "random")


def task_of(answer: Any) -> dict[str, Any]:
    return json.loads(answer["task"])


def evolved(task: dict[str, Any], lr: float = 0.02, gain: float = 1.5) -> tuple[dict[str, Any], int]:
    """The plan and the seed of a trial that took over another one's after two epochs and changed its settings."""
    plan = copy.deepcopy(task["plan"])
    plan["model"]["config"]["gain"] = gain
    changed = copy.deepcopy(plan["optimizer"])
    changed["config"]["lr"] = lr
    plan["changes"] = [{"epoch": 2, "optimizer": changed}]
    return plan, task["seed"] + 1000


def state_of(plan: dict[str, Any], seed: int) -> bytes:
    return pack({"plan": plan, "seed": seed, "history": [], "module": {"w": torch.ones(2)}})


def reported(task: dict[str, Any], epochs: int, number: int = 0) -> PastTrial:
    history = {epoch: {"val_accuracy": 0.5} for epoch in range(1, epochs + 1)}
    return PastTrial(name=f"{number:04}", number=number, seed=task["seed"], plan=task["plan"], history=history)


def lr_of(bridge_answer: Any, space: Space) -> set[float]:
    """The learning rates that a population may give to a copy of this task, unless it draws one anew."""
    found: set[float] = set()
    for seed in range(12):
        population = Population(space, seed, lambda: False, metric="val_accuracy", mode="max", time_attr="epoch")
        found.add(task_of(population._explore(bridge_answer))["optimizer"]["config"]["lr"])
    return found


# --- a lost worker ------------------------------------------------------------------------------------------------


def test_a_trial_that_lost_its_worker_resumes_with_the_plan_of_its_state(tmp_path: Path, registry: Registry) -> None:
    bridge = asked(tmp_path, registry).bridge
    first = task_of(bridge.suggest("a"))
    plan, seed = evolved(first)
    last_reported = replace(reported(first, 3), plan=plan, seed=seed)
    bridge.goes_on("a", last_reported, state_of(plan, seed), room=False)
    again = bridge.suggest("b")
    assert (task_of(again)["plan"], task_of(again)["seed"], task_of(again)["resumes"]) == (plan, seed, "a")
    assert bridge.going_on["b"].plan == plan  # so the events and the result tell of it
    assert {0.02 * 0.8, 0.02 * 1.25} <= lr_of(again, bridge._proposals.space)


def test_an_older_state_counts_and_not_what_was_reported_since(tmp_path: Path, registry: Registry) -> None:
    bridge = asked(tmp_path, registry).bridge
    first = task_of(bridge.suggest("a"))
    plan, seed = evolved(first)
    bridge.goes_on("a", replace(reported(first, 2), plan=plan, seed=seed), state_of(first["plan"], 7), room=False)
    again = task_of(bridge.suggest("b"))
    assert (again["plan"], again["seed"]) == (first["plan"], 7)


@pytest.mark.parametrize("losses", [1, 2])
def test_without_a_state_a_trial_begins_again_as_it_was_proposed(
    tmp_path: Path, registry: Registry, losses: int
) -> None:
    bridge = asked(tmp_path, registry).bridge
    first = task_of(bridge.suggest("a0"))
    plan, seed = evolved(first)
    for loss in range(losses):
        bridge.goes_on(f"a{loss}", replace(reported(first, 0), plan=plan, seed=seed), None, room=False)
        again = task_of(bridge.suggest(f"a{loss + 1}"))
        assert (again["plan"], again["seed"]) == (first["plan"], first["seed"])


def test_other_schedulers_never_read_a_state(tmp_path: Path, registry: Registry) -> None:
    bridge = asked(tmp_path, registry, "none").bridge
    first = task_of(bridge.suggest("a"))
    bridge.goes_on("a", reported(first, 3), b"not safetensors", room=False)
    assert task_of(bridge.suggest("b"))["plan"] == first["plan"]


# --- a resume -----------------------------------------------------------------------------------------------------


def test_a_resumed_population_has_the_plans_of_its_states(tmp_path: Path, registry: Registry) -> None:
    before = asked(tmp_path, registry).bridge
    tasks = [task_of(before.suggest(name)) for name in "abc"]
    trials = {one.name: one for one in (reported(task, 3, number) for number, task in enumerate(tasks))}
    steps = [Step("started", name) for name in trials]
    plan, seed = evolved(tasks[1])
    now = asked(tmp_path, registry)
    now.bridge.take_up(Past(trials, tuple(steps), 1.0, 1), {"0001": state_of(plan, seed)})
    resumed = [now.bridge.suggest(name) for name in "def"]
    found = {task_of(one)["resumes"]: (task_of(one)["plan"], task_of(one)["seed"]) for one in resumed}
    assert found["0001"] == (plan, seed)
    assert found["0000"] == (tasks[0]["plan"], tasks[0]["seed"])
    # Optuna is told what it had proposed
    gains = [trial.params["model.moody.gain"] for trial in now.study.trials]
    assert gains == [task["plan"]["model"]["config"]["gain"] for task in tasks]
    # and when that worker is lost too, before a state is kept, its first plan is known
    now.bridge.goes_on("e", replace(trials["0001"], plan=plan, seed=seed), None, room=False)
    assert task_of(now.bridge.suggest("g"))["plan"] == tasks[1]["plan"]


@pytest.mark.parametrize(("scheduler", "epoch"), [("pbt", 3), ("asha", 2)])
def test_a_population_resumes_from_its_last_epoch(tmp_path: Path, scheduler: str, epoch: int) -> None:
    """The state before may be from before it took over another trial's."""
    from datetime import UTC, datetime

    store = RunWriter(create_run(tmp_path, "x", datetime.now(UTC)))
    try:
        for at in (2, 3):
            write_checkpoint(store, "0000", at, "val_accuracy", 0.5, b"%d" % at)
    finally:
        store.close()
    spec = SimpleNamespace(search=SimpleNamespace(scheduler=scheduler))
    search: Any = SimpleNamespace(store=store, emit=lambda _: None, spec=spec)
    one = reported({"seed": 1, "plan": {}}, 3)
    assert driver._states(search, Past({"0000": one})) == {"0000": (epoch, b"%d" % epoch)}


# --- a copy -------------------------------------------------------------------------------------------------------


def test_a_copy_of_a_resumed_trial_starts_from_its_settings_and_takes_nothing_else(
    tmp_path: Path, registry: Registry
) -> None:
    space = asked(tmp_path, registry).bridge._proposals.space
    plan, seed = evolved(task_of(asked(tmp_path, registry).bridge.suggest("a")))
    config = {"task": json.dumps({"plan": plan, "seed": seed, "resumes": "a", "room": True}), "state": b"packed"}
    population = Population(space, 0, lambda: False, metric="val_accuracy", mode="max", time_attr="epoch")
    copied = population._explore(config)
    task = task_of(copied)
    assert (task["plan"], task["seed"]) == (plan, seed)
    assert not {"resumes", "room"} & task.keys()
    assert copied["state"] is None  # it loads a newer one of the copied trial
    assert {0.02 * 0.8, 0.02 * 1.25} <= lr_of(config, space)
    # a change that the worker has not reported yet is newer than the plan
    newer = {**task, "optimizer": {**plan["optimizer"], "config": {**plan["optimizer"]["config"], "lr": 0.1}}}
    assert {0.1 * 0.8, 0.1 * 1.25} <= lr_of({"task": json.dumps(newer)}, space)


class Waiting:
    """A trial, as far as a population looks at one that waits."""

    def __init__(self, name: str, score: float) -> None:
        self.trial_id = self.experiment_tag = name
        self.config = {"task": json.dumps({"plan": {"optimizer": {"name": "sgd", "config": {}}}})}
        self.score, self.status, self.epoch, self.last_result = score, Trial.PENDING, 0, {}
        self.evaluated_params: dict[str, Any] = {}
        self.temporary_state = SimpleNamespace(saving_to=None)
        self.run_metadata = SimpleNamespace(checkpoint_manager=SimpleNamespace(_latest_checkpoint_result=None))

    def is_finished(self) -> bool:
        return self.status == Trial.TERMINATED

    set_experiment_tag = set_config = lambda self, _: None


class OneWorker:
    """A controller with one worker: it trains an epoch of the trial that the population chooses."""

    def __init__(self, population: Population, trials: list[Waiting], epochs: int) -> None:
        self.population, self.trials, self.epochs = population, trials, epochs
        for one in trials:
            population.on_trial_add(self, one)

    def get_trials(self) -> list[Waiting]:
        return self.trials

    def pause_trial(self, trial: Waiting, should_checkpoint: bool) -> None:
        trial.status = Trial.PAUSED

    def _schedule_trial_save(self, trial: Waiting, result: dict[str, Any]) -> int:
        return trial.epoch  # a state is as good as the epoch at which it was saved

    def step(self) -> bool:
        """Train an epoch; return whether there was one to train."""
        one = self.population.choose_trial_to_run(self)
        if one is None:
            return False
        taken = one.run_metadata.checkpoint_manager._latest_checkpoint_result
        if taken is not None:
            one.epoch, one.run_metadata.checkpoint_manager._latest_checkpoint_result = taken.checkpoint, None
        one.epoch, one.status = one.epoch + 1, Trial.RUNNING
        result = {"epoch": one.epoch, "val_accuracy": one.score}
        if one.epoch == self.epochs:
            one.status = Trial.TERMINATED
            self.population.on_trial_complete(self, one, result)
        elif self.population.on_trial_result(self, one, result) == Population.PAUSE:
            one.status = Trial.PAUSED
        elif one.status == Trial.RUNNING:
            one.status = Trial.PENDING  # it goes on, unless another one has waited longer
        return True


@pytest.mark.parametrize("bad", range(6))
def test_a_trial_that_does_badly_keeps_no_other_from_going_on(bad: int, tmp_path: Path, registry: Registry) -> None:
    space = asked(tmp_path, registry).bridge._proposals.space
    options = {"metric": "val_accuracy", "mode": "max", "time_attr": "epoch", "perturbation_interval": 1}
    trials = [Waiting(f"{n:04}", score=0.5 + n / 100 if n != bad else 0.1) for n in range(6)]
    worker = OneWorker(Population(space, 0, lambda: False, **options), trials, epochs=4)
    steps = 0
    while worker.step():
        steps += 1
        assert steps < 200, [one.epoch for one in trials]
    assert {one.status for one in trials} == {Trial.TERMINATED}
