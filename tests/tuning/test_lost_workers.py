"""Workers of Ray that hang, die, drown or run out of memory: what becomes of their trials, by cause."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from optuna.trial import TrialState
from ray import cloudpickle
from ray.tune.experiment import trial as tune_trial

from mnistlab import events
from mnistlab.store import read_events
from mnistlab.store.fsck import check
from mnistlab.tuning.ray.executor import RAY_TUNE
from tests.tuning.conftest import RunTiny, mood_of, starts
from tests.tuning.test_search import moods

pytestmark = pytest.mark.ray


def one_of_them_wrecks_the_device(count: int) -> str:
    gains = [round(1 + n / 100, 2) for n in range(count)]
    text = moods("wrecking", scheduler="none").replace("gain = 1.0", f"gain = {gains}")
    return text.replace("trials = 1", f"trials = {count}").replace("epochs = 4", "epochs = 1")


@pytest.mark.chaos  # without a Ray: tests/simulated/test_causes.py and test_leaving.py
def test_a_plan_that_breaks_the_device_fails_alone(run_tiny: RunTiny) -> None:
    """What is emulated: after a device-side assert every call of that process fails, whatever it trains."""
    count = 32
    ran = run_tiny(one_of_them_wrecks_the_device(count), parallel=2, executor=RAY_TUNE)
    assert sorted(one.state for one in ran.results) == ["complete"] * (count - 1) + ["failed"]
    (failed,) = [one for one in ran.results if one.state == "failed"]
    assert failed.plan["model"]["config"]["gain"] == 1.0
    assert [one.attempt for one in starts(ran, failed.trial)] == [1, 2, 3, 4]
    assert failed.cause == "plugin"  # others trained on where it broke
    assert "the device broke in each of 4 new processes" in failed.message
    assert {one.attempt for one in ran.of(events.TrialStarted) if one.trial != failed.trial} == {1}  # type: ignore[attr-defined]
    log = (ran.path / "trials" / failed.trial / "log.txt").read_text()
    assert log.count("AcceleratorError: CUDA error: device-side assert triggered\n") >= 4
    assert "mnistlab: this worker ends itself" not in log
    assert check(ran.path).sound


@pytest.mark.chaos
@pytest.mark.parametrize("scheduler", ["asha", "none", "hyperband", "median"])
def test_a_trial_whose_worker_dies_goes_on_from_its_checkpoint(run_tiny: RunTiny, scheduler: str) -> None:
    deaths = Path(os.environ["MOODY_DEATHS"])
    deaths.unlink(missing_ok=True)
    ran = run_tiny(moods("good", "mortal", scheduler=scheduler), executor=RAY_TUNE)
    assert deaths.read_text().count("died") == 2
    trial = mood_of(ran, "mortal")
    assert [(one.attempt, one.epoch) for one in starts(ran, trial)] == [(1, 0), (2, 1), (3, 2)]
    (result,) = [one for one in ran.results if one.trial == trial]
    assert result.state == "complete"
    assert len(result.history) == 4
    told = [event.epoch for event in ran.stream if isinstance(event, events.TrialEpoch) and event.trial == trial]
    assert told == [1, 2, 3, 4]
    said = [event.message for event in ran.stream if isinstance(event, events.Warned)]
    assert [f"trial {trial} goes on from epoch {n}: worker lost" in said[n - 1] for n in (1, 2)] == [True, True]
    assert [one.state for one in ran.study] == [TrialState.COMPLETE] * 2
    assert sorted(ran.study[1].intermediate_values) == [1, 2, 3, 4]
    assert [stamped.event for stamped in read_events(ran.path)] == ran.stream  # on disk as it was told to the views
    assert check(ran.path).findings == ()


def kill_workers(name: str) -> list[int]:
    """Kill the workers of Ray that do what is called so; return their process ids."""
    killed: list[int] = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if name in (process.cmdline() or [""])[0]:
                process.kill()
                killed.append(process.pid)
    return killed


@pytest.mark.chaos
def test_a_worker_that_always_dies_costs_its_trial_alone_after_three_more(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[object]()  # Tune pickles what Ray says of each, and would read it back
    monkeypatch.setattr(tune_trial, "cloudpickle", SimpleNamespace(**{**vars(cloudpickle), "loads": read.append}))
    ran = run_tiny(moods("good", "die", scheduler="none"), parallel=2, executor=RAY_TUNE)
    trial = mood_of(ran, "die")
    assert [one.attempt for one in starts(ran, trial)] == [1, 2, 3, 4]
    states = {one.trial: (one.state, one.cause) for one in ran.results}
    assert states[trial] == ("failed", "worker")
    assert states[mood_of(ran, "good")] == ("complete", "")
    assert list(ran.path.glob("ray/**/error.pkl"))
    assert read == []
    assert check(ran.path).sound


@pytest.mark.chaos
def test_a_population_goes_on_when_it_loses_a_worker(run_tiny: RunTiny) -> None:
    deaths = Path(os.environ["MOODY_DEATHS"])
    deaths.unlink(missing_ok=True)
    text = moods("mortal", scheduler="pbt").replace('"grid"', '"random"').replace("trials = 1", "trials = 3")
    text = text.replace("epochs = 4", "epochs = 8")  # it is compared every two epochs, and dies in between
    ran = run_tiny(text.replace("gain = 1.0\n", ""), parallel=2, executor=RAY_TUNE)
    assert len(ran.results) == 3
    assert {one.state for one in ran.results} == {"complete"}
    again = sum(one.attempt > 1 for one in ran.stream if isinstance(one, events.TrialStarted))
    assert again == deaths.read_text().count("died") == 2


@pytest.mark.chaos  # "loop" is tried in test_by_ray.py
@pytest.mark.parametrize("name", ["lock", "deaf", "sleep"])
def test_a_trial_that_hangs_is_ended_with_its_stacks_in_the_log_and_its_slot_is_free_again(
    run_tiny: RunTiny, name: str
) -> None:
    began = time.monotonic()
    ran = run_tiny(moods(name, "good", scheduler="none", stall_timeout="8s"), executor=RAY_TUNE)
    trial = mood_of(ran, name)
    result = next(one for one in ran.results if one.trial == trial)
    assert (result.state, result.cause, len(result.history)) == ("failed", "hang", 1)
    assert len(starts(ran, trial)) == 1  # it is not tried again
    log = (ran.path / "trials" / trial / "log.txt").read_text()
    assert "most recent call first" in log
    assert "mnistlab_moody.py" in log
    assert next(one for one in ran.results if one.trial != trial).state == "complete"
    assert time.monotonic() - began < 120
    assert ran.study[int(trial)].state == TrialState.FAIL


@pytest.mark.chaos
def test_a_trial_that_is_slow_but_moves_is_left_alone(run_tiny: RunTiny) -> None:
    # Its epoch of 8 steps of 0.5 s is longer than the limit; none of its steps is, nor what the first one imports.
    text = moods("slower", scheduler="none", stall_timeout="3s").replace("epochs = 4", "epochs = 1")
    ran = run_tiny(text.replace("batch_size = 16", "batch_size = 8"), executor=RAY_TUNE)
    assert [one.state for one in ran.results] == ["complete"]
    assert ran.results[0].history[0]["seconds"] > 3


@pytest.mark.chaos
def test_a_trial_that_hangs_past_its_time_has_had_it(run_tiny: RunTiny) -> None:
    ran = run_tiny(moods("sleep", scheduler="none", trial_timeout="3s", stall_timeout="300s"), executor=RAY_TUNE)
    assert [one.cause for one in ran.results] == ["timeout"]
    assert "most recent call first" in (ran.path / "trials" / "0000" / "log.txt").read_text()


@pytest.mark.parametrize("name", ["greedy", pytest.param("memory", marks=pytest.mark.chaos)])
def test_a_trial_without_memory_is_tried_once_more_with_all_of_it(run_tiny: RunTiny, name: str) -> None:
    ran = run_tiny(moods(name, "good", scheduler="none"), parallel=2, executor=RAY_TUNE)
    trial = mood_of(ran, name)
    assert [one.attempt for one in starts(ran, trial)] == [1, 2]
    result = next(one for one in ran.results if one.trial == trial)
    assert (result.state, result.cause) == ("failed", "memory")
    assert ran.study[int(trial)].state == TrialState.PRUNED  # infeasible: that speaks against its like
    assert [event.trial for event in ran.stream if isinstance(event, events.TrialWaiting)] == [trial]
    said = [event.message for event in ran.stream if isinstance(event, events.Warned)]
    assert any(f"trial {trial} goes on" in text and "with 2 CPUs to itself" in text for text in said)
    assert next(one for one in ran.results if one.trial == mood_of(ran, "good")).state == "complete"
    # While it had the machine, nobody else ran: the other one had ended, or began when it had failed.
    (again,) = (n for n, event in enumerate(ran.stream) if event in starts(ran, trial)[1:])
    (end,) = (n for n, event in enumerate(ran.stream) if isinstance(event, events.TrialFailed) and event.trial == trial)
    between = [event for event in ran.stream[again:end] if isinstance(event, events.TrialEpoch)]
    assert all(event.trial == trial for event in between)
