"""Searches with real trainings on a tiny dataset: who is told what, and what is written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from optuna.trial import TrialState

from mnistlab import events
from mnistlab.store import read_events
from mnistlab.tuning.outcome import common_failure
from tests.tuning.conftest import RunTiny, mood_of, starts

pytestmark = pytest.mark.simulated


def moods(*names: str, **search: object) -> str:
    """Return an experiment that tries these moods of the test model one after the other."""
    extra = "\n".join(f"{key} = {json.dumps(value)}" for key, value in search.items())
    return f"""
[model.moody]
mood = {json.dumps(list(names))}
gain = 1.0
[optimizer.sgd]
lr = 0.05
momentum = 0.9
weight_decay = 1e-6
schedule = "constant"
warmup = 0.0
[training]
epochs = 4
batch_size = 16
[search]
trials = {len(names)}
algorithm = "grid"
{extra}
"""


def test_optuna_is_told_how_each_trial_ended(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MOODY_WATCH", str(tmp_path / "watched"))
    ran = run_tiny(moods("good", "nan", "raise", "stuck", scheduler="asha", reduction_factor=2, grace_epochs=1))
    assert [trial.state for trial in ran.study] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,  # its plan is infeasible
        TrialState.PRUNED,  # and so is this one
        TrialState.PRUNED,
    ]
    good, diverged, raised, stuck = ran.study
    assert (diverged.value, diverged.user_attrs["cause"], diverged.constraints) == (None, "nan", {"nan": 1.0})
    assert (raised.value, raised.user_attrs["cause"], raised.constraints) == (None, "plugin", {"plugin": 1.0})
    assert not stuck.constraints
    assert sorted(good.intermediate_values) == [1, 2, 3, 4]
    assert ran.trials[0].metrics["macs"] == 8 * 8 * 2  # one matrix product
    assert good.value == good.intermediate_values[4] == ran.trials[0].metrics["val_accuracy"] > 0.9
    assert list(stuck.intermediate_values) == [1]
    assert stuck.value == stuck.intermediate_values[1] == pytest.approx(0.5)
    assert stuck.user_attrs == {}
    assert [ran.trials[n].cause for n in range(4)] == ["", "nan", "plugin", ""]
    assert "this plan can't be built" in ran.trials[2].message
    assert "this plan can't be built" in (ran.path / "trials" / "0002" / "log.txt").read_text()
    # an observer's error is a warning, and every end was observed
    assert (tmp_path / "watched").read_text().split("\n")[:4] == [
        "0000 complete",
        "0001 failed",
        "0002 failed",
        "0003 pruned",
    ]
    assert len(ran.of(events.Warned)) == 2
    assert "the observer dislikes failures" in ran.of(events.Warned)[0].message


def test_numbers_that_are_none_fail_their_trial_alone(run_tiny: RunTiny) -> None:
    ran = run_tiny(moods("wordy", "endless", "speechless", "late", "good", scheduler="asha"))
    by_mood = {one.plan["model"]["config"]["mood"]: one for one in ran.results}
    assert {mood: (one.state, one.cause, len(one.history)) for mood, one in by_mood.items()} == {
        "wordy": ("failed", "plugin", 0),
        "endless": ("failed", "nan", 0),
        "speechless": ("failed", "plugin", 0),
        "late": ("failed", "nan", 2),
        "good": ("complete", "", 4),
    }
    assert "the model's measure 'doubt' is a str" in by_mood["wordy"].message
    assert "the validation doubt became inf in epoch 1" in by_mood["endless"].message
    log = ran.path / "trials" / by_mood["speechless"].trial / "log.txt"
    assert "no attribute 'backward'" in log.read_text()
    states = {mood: ran.study[one.number].state for mood, one in by_mood.items()}
    assert states == {
        "wordy": TrialState.PRUNED,
        "endless": TrialState.PRUNED,
        "speechless": TrialState.PRUNED,
        "late": TrialState.PRUNED,
        "good": TrialState.COMPLETE,
    }


def test_what_breaks_in_a_trial_costs_it_alone(run_tiny: RunTiny) -> None:
    ran = run_tiny(moods("good", "exit", "step", "memory", "stuck", scheduler="none"))
    causes = {result.plan["model"]["config"]["mood"]: result.cause for result in ran.results}
    assert causes == {"good": "", "exit": "plugin", "step": "plugin", "memory": "memory", "stuck": ""}
    states = {trial.params["model.moody.mood"]: trial.state for trial in ran.study}
    assert states["good"] == states["stuck"] == TrialState.COMPLETE
    assert all(states[mood] == TrialState.PRUNED for mood in ("exit", "step", "memory"))  # infeasible
    failed = {event.trial: event for event in ran.of(events.TrialFailed)}
    assert len(failed) == 3
    assert all((ran.path / event.log).is_file() for event in failed.values())


def test_a_search_in_which_the_same_thing_goes_wrong_is_given_up(run_tiny: RunTiny) -> None:
    text = (
        moods("raise", scheduler="none")
        .replace("trials = 1", "trials = 30")
        .replace('algorithm = "grid"', 'algorithm = "random"')
    )
    ran = run_tiny(text.replace("gain = 1.0\n", ""))
    assert 5 <= len(ran.results) <= 6
    assert str(common_failure(ran.results)) == "cause 'plugin' in 5 of the first 8 trials"
    assert common_failure(ran.results[:4]) is None


SEARCHED = """
[model.moody]
mood = "good"
[model.mlp]
depth = 1
width = {{ low = 32, high = 64 }}
[optimizer.sgd]
[optimizer.adamw]
[transform.shift]
pixels = [0, 1]
[training]
epochs = 4
batch_size = [8, 16]
[search]
trials = {trials}
algorithm = "{algorithm}"
scheduler = "{scheduler}"
{extra}
"""


def test_one_worker_and_one_seed_give_the_same_run_twice(run_tiny: RunTiny) -> None:
    text = SEARCHED.format(trials=8, algorithm="tpe", scheduler="asha", extra="")
    first, second = run_tiny(text), run_tiny(text)

    def numbers(ran) -> list[object]:
        kept = ("train_loss", "val_loss", "val_accuracy")
        return [
            (r.number, r.state, r.seed, dict(r.plan), [{k: epoch[k] for k in kept} for epoch in r.history])
            for r in ran.results
        ]

    assert numbers(first) == numbers(second)
    assert len({json.dumps(r.plan) for r in first.results}) > 4
    # the first plan is made of all defaults
    assert first.trials[0].plan["model"]["name"] == "moody"
    assert first.trials[0].plan["transforms"][0]["config"]["pixels"] == 0


@pytest.mark.parametrize(
    ("algorithm", "scheduler", "extra"),
    [
        ("random", "none", ""),
        ("qmc", "median", ""),
        ("cmaes", "hyperband", "reduction_factor = 2"),
        ("gp", "asha", 'metric = "val_loss"'),
        ("nsga2", "none", 'metric = ["val_accuracy", "parameters"]'),
    ],
)
def test_every_algorithm_and_scheduler_runs_to_its_end(
    run_tiny: RunTiny, algorithm: str, scheduler: str, extra: str
) -> None:
    ran = run_tiny(SEARCHED.format(trials=8, algorithm=algorithm, scheduler=scheduler, extra=extra))
    assert sorted(ran.trials) == list(range(8))
    assert {result.state for result in ran.results} <= {"complete", "pruned"}
    assert ran.trials[0].state == "complete"
    assert not [trial for trial in ran.study if trial.state in (TrialState.RUNNING, TrialState.WAITING)]
    for trial in ran.study:
        result = ran.trials[trial.number]
        if result.state == "complete":
            assert len(result.history) == 4
            assert trial.state == TrialState.COMPLETE
        else:
            assert scheduler != "none"
            assert 1 <= len(result.history) < 4
            assert trial.state == TrialState.PRUNED
        if algorithm == "nsga2" and trial.values:
            assert trial.values == [result.metrics["val_accuracy"], result.metrics["parameters"]]


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_a_trial_that_breaks_late_hurts_no_scheduler(run_tiny: RunTiny, scheduler: str) -> None:
    text = moods("late", "good", scheduler=scheduler)
    text = text.replace('"grid"', '"random"').replace("trials = 2", "trials = 6").replace("lr = 0.05\n", "")
    ran = run_tiny(text.replace("gain = 1.0\n", ""))
    assert len(ran.results) == 6
    late = [r for r in ran.results if r.plan["model"]["config"]["mood"] == "late"]
    assert {r.cause for r in late if r.state == "failed"} <= {"nan"}
    assert any(r.state == "failed" for r in late)
    good = [r for r in ran.results if r not in late]
    assert {r.state for r in good} <= {"complete", "pruned"}
    assert [t.state for t in ran.study if not t.state.is_finished()] == []


def test_the_time_budget_ends_running_trials_and_starts_no_more(run_tiny: RunTiny) -> None:
    text = moods("slow", scheduler="none").replace('"grid"', '"random"').replace("epochs = 4", "epochs = 10000")
    ran = run_tiny(text.replace("trials = 1", "trials = 3\ntime_budget = 1"))
    assert [(result.state, result.message) for result in ran.results] == [("interrupted", "time budget")]
    (event,) = ran.of(events.TrialInterrupted)
    assert (event.reason, event.epoch) == ("time budget", len(ran.results[0].history))
    assert [trial.state for trial in ran.study] == [TrialState.PRUNED]
    assert ran.study[0].user_attrs == {"interrupted": "time budget"}


def test_a_request_to_stop_ends_the_search_at_the_next_epoch(run_tiny: RunTiny) -> None:
    ran = run_tiny(moods("slow", scheduler="none").replace("epochs = 4", "epochs = 10000"), stop_after=3)
    assert [result.state for result in ran.results] == ["interrupted"]
    assert 3 <= len(ran.results[0].history) <= 5


def test_events_on_disk_tell_the_same_story(run_tiny: RunTiny) -> None:
    ran = run_tiny(moods("good", "nan", scheduler="none"))
    on_disk = [stamped.event for stamped in read_events(ran.path)]
    assert on_disk == ran.stream
    kinds = [event.type for event in on_disk]
    assert kinds == [
        "trial_started",
        *["trial_epoch"] * 4,
        "trial_finished",
        "best_changed",
        "trial_started",
        "trial_failed",
        "warning",
    ]
    assert json.loads((ran.path / "trials" / "0001" / "result.json").read_text())["state"] == "failed"


def test_a_trial_that_has_had_its_time_ends(run_tiny: RunTiny) -> None:
    text = moods("slow", "good", scheduler="none", trial_timeout="2s").replace("epochs = 4", "epochs = 400")
    ran = run_tiny(text)
    slow = next(one for one in ran.results if one.trial == mood_of(ran, "slow"))
    assert (slow.state, slow.cause) == ("failed", "timeout")
    assert 0 < len(slow.history) < 400
    assert "TimeLimitError" in (ran.path / "trials" / slow.trial / "log.txt").read_text()


def test_where_a_trial_has_all_memory_already_it_fails_at_once(run_tiny: RunTiny) -> None:
    ran = run_tiny(moods("memory", scheduler="none"))
    assert [one.cause for one in ran.results] == ["memory"]
    assert len(starts(ran, "0000")) == 1


def test_a_hundred_megabytes_of_chatter_fill_no_log(run_tiny: RunTiny) -> None:
    ran = run_tiny(moods("flood", scheduler="none"))
    assert [one.state for one in ran.results] == ["complete"]
    assert (ran.path / "trials" / "0000" / "log.txt").stat().st_size < 2 << 20
