"""Confirmation with a real Ray: fresh seeds, failures that are answers, a test set that opens once or not at all."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from mnistlab import events
from mnistlab.confirm import confirm
from mnistlab.results import State, TrialResult
from mnistlab.seeds import replicate_seed
from mnistlab.store import read_lines, read_run
from mnistlab.tuning.driver import best_trials
from mnistlab.tuning.worker import ReplicateTask, train_replicate
from tests.tuning.conftest import RunTiny
from tests.tuning.test_search import SEARCHED, moods

pytestmark = pytest.mark.ray

CONFIRM = "\n[confirm]\ntop = {top}\nseeds = {seeds}\n"


def trial(number: int, value: float, state: State = "complete", plan: int | None = None) -> TrialResult:
    metrics = {"val_accuracy": value, "val_loss": value}
    tried = {"model": number if plan is None else plan}
    return TrialResult(trial=f"{number:04d}", number=number, state=state, seed=0, plan=tried, label="", metrics=metrics)


def test_the_best_are_those_that_used_their_full_budget() -> None:
    trials = [trial(0, 0.9), trial(1, 0.95), trial(2, 0.99, "pruned"), trial(3, 0.95), trial(4, 0.2, "failed")]
    assert [t.number for t in best_trials(trials, "val_accuracy", 3)] == [1, 3, 0]
    assert [t.number for t in best_trials(trials, "val_loss", 2)] == [0, 1]
    assert best_trials([], "val_accuracy", 3) == []


def test_a_plan_that_was_tried_twice_is_confirmed_once() -> None:
    trials = [trial(0, 0.9, plan=7), trial(1, 0.8), trial(2, 0.95, plan=7)]
    assert [t.number for t in best_trials(trials, "val_accuracy", 3)] == [2, 1]


def test_the_best_plans_are_trained_on_fresh_seeds_and_tested_once(run_tiny: RunTiny) -> None:
    text = moods("good", "stuck", scheduler="none") + CONFIRM.format(top=2, seeds=2)
    ran = run_tiny(text, parallel=2, then=lambda search, trials: confirm(search, trials, "the command"))
    kinds = [event.type for event in ran.stream]
    confirming = kinds[kinds.index("confirmation_started") :]
    epochs = ran.results[0].plan["training"]["epochs"]
    assert Counter(confirming) == {
        "confirmation_started": 1,
        "replicate_started": 4,
        "replicate_epoch": 4 * epochs,
        "replicate_finished": 4,
        "test_opened": 1,
    }
    assert confirming[-1] == "test_opened"
    record = read_run(ran.path)
    assert record.test_openings == 1
    assert {(r.trial, r.replicate, r.seed) for r in record.replicates} == {
        (name, number, replicate_seed(0, number)) for name in ("0000", "0001") for number in (1, 2)
    }
    good = [r for r in record.replicates if r.trial == "0000"]
    assert all(r.test and r.test.accuracy > 0.9 and r.test.images == 40 for r in good)
    assert all(r.cost and r.cost.macs and r.cost.latency_1 > 0 and "thread" in r.cost.device for r in good)
    assert good[0].seed not in {t.seed for t in record.trials}
    assert good[0].weights_sha256 != good[1].weights_sha256
    assert [entry["type"] for entry in read_lines(ran.path / "test_ledger.jsonl")] == ["opened", *["evaluated"] * 4]


def test_a_replicate_that_fails_is_recorded_and_does_not_open_the_test_set(run_tiny: RunTiny) -> None:
    def break_then_confirm(search, trials) -> None:
        broken = json.loads(json.dumps(dict(trials[0].plan)))
        broken["model"]["config"]["mood"] = "nan"
        confirm(search, [TrialResult(**{**vars(trials[0]), "plan": broken})], "the command")

    ran = run_tiny(moods("good", scheduler="none") + CONFIRM.format(top=1, seeds=1), then=break_then_confirm)
    (failed,) = ran.of(events.ReplicateFailed)
    assert failed.cause == "nan"  # type: ignore[attr-defined]
    assert not ran.of(events.TestOpened)
    assert not (ran.path / "test_ledger.jsonl").exists()
    assert read_run(ran.path).replicates[0].cause == "nan"


def test_a_run_that_is_asked_to_stop_leaves_the_test_set_sealed(run_tiny: RunTiny) -> None:
    stop: list[bool] = []

    def stop_then_confirm(search, trials) -> None:
        stop.append(True)
        confirm(search, trials, "the command")

    text = moods("good", scheduler="none") + CONFIRM.format(top=1, seeds=2)
    ran = run_tiny(text, then=stop_then_confirm, stopping=lambda: bool(stop))
    assert ran.of(events.ConfirmationStarted)
    assert not ran.of(events.TestOpened)


def test_a_changed_plan_gives_the_same_numbers_when_it_is_trained_again(run_tiny: RunTiny) -> None:
    """A trial of a population went on from another's weights; its plan and seed alone repeat what came of it."""
    text = SEARCHED.format(trials=4, algorithm="random", scheduler="pbt", extra="").replace("epochs = 4", "epochs = 8")
    shared = []
    ran = run_tiny(text, parallel=2, then=lambda search, trials: shared.append(search.shared))
    changed = next(result for result in ran.results if result.plan.get("changes"))
    import ray

    task = ReplicateTask(changed.trial, 1, changed.seed, dict(changed.plan))
    *_, last = ray.remote(train_replicate).options(num_cpus=1).remote(shared[0], task)
    answer = ray.get(last)
    assert answer.cause == ""
    assert answer.history[-1]["val_loss"] == changed.metrics["val_loss"]
