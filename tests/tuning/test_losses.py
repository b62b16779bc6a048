"""Workers that hang, die, drown or run out of memory: what becomes of their trials, by cause."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from optuna.trial import TrialState
from ray import cloudpickle
from ray.tune.experiment import trial as tune_trial

from mnistlab import events
from mnistlab.fsck import check
from mnistlab.store import read_events
from mnistlab.tuning.losses import Leftover, Loss, Retries, log_of, loss_of
from tests.tuning import ray_texts
from tests.tuning.conftest import Ran, RunTiny
from tests.tuning.test_search import moods

pytestmark = pytest.mark.ray

DUMP = "printed before\nTimeout (0:00:02)!\nThread 0x00007f (most recent call first):\n"


@pytest.mark.parametrize(
    ("log", "seconds", "limit", "cause"),
    [
        ("printed", 5.0, None, "worker"),
        ("it says Timeout (0:00:02)! somewhere", 5.0, None, "worker"),
        (DUMP, 5.0, None, "hang"),
        (DUMP, 5.0, 9.0, "hang"),
        (DUMP, 9.5, 9.0, "timeout"),
    ],
)
def test_why_a_worker_is_gone(log: str, seconds: float, limit: float | None, cause: str) -> None:
    assert loss_of(Leftover("it died", log), seconds, limit).cause == cause


def test_what_ray_kills_for_the_memory_of_the_machine_had_too_little_of_it() -> None:
    found = loss_of(Leftover(ray_texts.LOW_ON_MEMORY), 1.0, None)
    said = "worker lost: Ray ended its process on node 192.0.2.2, whose memory was nearly full (4.84GB used / 23.54GB)"
    assert found == Loss("memory", said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ray_texts.ACTOR_KILLED, "process 7936 on node 192.0.2.2 ended without a word"),
        (ray_texts.ACTOR_EXITED, "process 7935 on node 192.0.2.2 ended with exit code 3"),
        (ray_texts.ACTOR_ENDED_BY_RAY, "process 8142 on node 192.0.2.2 was ended by Ray"),
        (ray_texts.ACTOR_OUT_OF_REACH, "its process can't be reached any more"),
        (ray_texts.NODE_OF_ACTOR_DIED, "its node 192.0.2.7 is gone"),
        (ray_texts.NODE_OF_TASK_DIED, "its node 192.0.2.2 is gone"),
        (ray_texts.TASK_KILLED, "its process ended without a word"),
        (ray_texts.TASK_RAISED, "OSError: [Errno 28] No space left on device: '/x'"),
        ("", "its process ended without a word"),
    ],
)
def test_what_ray_says_at_length_is_one_plain_sentence(text: str, said: str) -> None:
    in_a_traceback = f'Traceback (most recent call last):\n  File "x.py", line 1, in f\nray.exceptions.{text}'
    for error in (text, in_a_traceback if text.startswith(("The ", "Task ")) else text):
        assert loss_of(Leftover(error), 1.0, None) == Loss("worker", f"worker lost: {said}")


def test_a_log_keeps_what_was_printed_the_sentence_and_all_that_ray_says() -> None:
    left = Leftover(ray_texts.ACTOR_KILLED, "printed\n")
    log = log_of(left, loss_of(left, 1.0, None))
    assert log.startswith("printed\n\nworker lost: process 7936 on node 192.0.2.2 ended without a word\n")
    assert ray_texts.ACTOR_KILLED in log


def test_what_ray_says_of_any_lost_worker_is_not_taken_for_a_lack_of_memory() -> None:
    said = "Common causes include: (1) the process was killed by the OOM killer due to high memory usage, (2) ..."
    assert loss_of(Leftover(said), 1.0, None).cause == "worker"


@pytest.mark.parametrize(
    ("cause", "more_room", "times"),
    [
        ("worker", False, 3),
        ("device", False, 3),
        ("system", False, 3),
        ("memory", True, 1),
        ("memory", False, 0),
        ("hang", True, 0),
        ("timeout", True, 0),
    ],
)
def test_how_often_a_trial_goes_on(cause: str, more_room: bool, times: int) -> None:
    retries = Retries(more_room=more_room)
    assert [retries.takes("0000", Loss(cause, "x")) for _ in range(5)].count(True) == times
    assert retries.takes("0001", Loss("worker", "x"))  # another trial's count is its own


def starts(ran: Ran, trial: str) -> list[events.TrialStarted]:
    return [event for event in ran.stream if isinstance(event, events.TrialStarted) and event.trial == trial]


def mood_of(ran: Ran, name: str) -> str:
    return next(one.trial for one in ran.results if one.plan["model"]["config"]["mood"] == name)


def long_form(*values: str) -> list[Any]:
    """Parameters that `make chaos` alone tries."""
    return [pytest.param(value, marks=pytest.mark.chaos) for value in values]


def one_of_them_wrecks_the_device(count: int) -> str:
    gains = [round(1 + n / 100, 2) for n in range(count)]
    text = moods("wrecking", scheduler="none").replace("gain = 1.0", f"gain = {gains}")
    return text.replace("trials = 1", f"trials = {count}").replace("epochs = 4", "epochs = 1")


@pytest.mark.chaos  # without a Ray: tests/simulated/test_causes.py and test_leaving.py
def test_a_plan_that_breaks_the_device_fails_alone(run_tiny: RunTiny) -> None:
    """What is emulated: after a device-side assert every call of that process fails, whatever it trains."""
    count = 32
    ran = run_tiny(one_of_them_wrecks_the_device(count), parallel=2)
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


@pytest.mark.parametrize("scheduler", ["asha", *long_form("none", "hyperband", "median")])
def test_a_trial_whose_worker_dies_goes_on_from_its_checkpoint(run_tiny: RunTiny, scheduler: str) -> None:
    deaths = Path(os.environ["MOODY_DEATHS"])
    deaths.unlink(missing_ok=True)
    ran = run_tiny(moods("good", "mortal", scheduler=scheduler))
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


def test_a_killed_worker_is_told_in_a_sentence_and_in_the_log_at_length(run_tiny: RunTiny) -> None:
    killed: list[int] = []

    def kill_one() -> bool:
        for process in psutil.Process().children(recursive=True) if not killed else ():
            with suppress(psutil.Error):
                if "ResourceTrainable.train" in (process.cmdline() or [""])[0]:
                    killed.append(process.pid)
                    process.kill()
        return False

    ran = run_tiny(moods("slow", scheduler="none"), stopping=kill_one)
    assert [one.state for one in ran.results] == ["complete"]
    (said,) = [event.message for event in ran.stream if isinstance(event, events.Warned)]
    assert said.endswith(f": worker lost: process {killed[0]} on node 127.0.0.1 ended without a word")
    assert "Worker exit type: SYSTEM_ERROR" in (ran.path / "trials" / "0000" / "log.txt").read_text()


def test_a_worker_that_always_dies_costs_its_trial_alone_after_three_more(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[object]()  # Tune pickles what Ray says of each, and would read it back
    monkeypatch.setattr(tune_trial, "cloudpickle", SimpleNamespace(**{**vars(cloudpickle), "loads": read.append}))
    ran = run_tiny(moods("good", "die", scheduler="none"), parallel=2)
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
    ran = run_tiny(text.replace("gain = 1.0\n", ""), parallel=2)
    assert len(ran.results) == 3
    assert {one.state for one in ran.results} == {"complete"}
    again = sum(one.attempt > 1 for one in ran.stream if isinstance(one, events.TrialStarted))
    assert again == deaths.read_text().count("died") == 2


@pytest.mark.parametrize("name", ["lock", "loop", "deaf", *long_form("sleep")])
def test_a_trial_that_hangs_is_ended_with_its_stacks_in_the_log_and_its_slot_is_free_again(
    run_tiny: RunTiny, name: str
) -> None:
    began = time.monotonic()
    ran = run_tiny(moods(name, "good", scheduler="none", stall_timeout="6s"))
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


def test_a_trial_that_is_slow_but_moves_is_left_alone(run_tiny: RunTiny) -> None:
    # Its epoch of 8 steps of 0.5 s is longer than the limit; none of its steps is, nor what the first one imports.
    text = moods("slower", scheduler="none", stall_timeout="3s").replace("epochs = 4", "epochs = 1")
    ran = run_tiny(text.replace("batch_size = 16", "batch_size = 8"))
    assert [one.state for one in ran.results] == ["complete"]
    assert ran.results[0].history[0]["seconds"] > 3


def test_a_trial_that_has_had_its_time_ends(run_tiny: RunTiny) -> None:
    text = moods("slow", "good", scheduler="none", trial_timeout="2s").replace("epochs = 4", "epochs = 400")
    ran = run_tiny(text)
    slow = next(one for one in ran.results if one.trial == mood_of(ran, "slow"))
    assert (slow.state, slow.cause) == ("failed", "timeout")
    assert 0 < len(slow.history) < 400
    assert "TimeLimitError" in (ran.path / "trials" / slow.trial / "log.txt").read_text()


def test_a_trial_that_hangs_past_its_time_has_had_it(run_tiny: RunTiny) -> None:
    ran = run_tiny(moods("sleep", scheduler="none", trial_timeout="3s", stall_timeout="300s"))
    assert [one.cause for one in ran.results] == ["timeout"]
    assert "most recent call first" in (ran.path / "trials" / "0000" / "log.txt").read_text()


@pytest.mark.parametrize("name", ["greedy", *long_form("memory")])
def test_a_trial_without_memory_is_tried_once_more_with_all_of_it(run_tiny: RunTiny, name: str) -> None:
    ran = run_tiny(moods(name, "good", scheduler="none"), parallel=2)
    trial = mood_of(ran, name)
    assert [one.attempt for one in starts(ran, trial)] == [1, 2]
    result = next(one for one in ran.results if one.trial == trial)
    assert (result.state, result.cause) == ("failed", "memory")
    assert ran.study[int(trial)].state == TrialState.PRUNED  # infeasible: that speaks against its like
    assert [event.trial for event in ran.stream if isinstance(event, events.TrialWaiting)] == [trial]
    said = [event.message for event in ran.stream if isinstance(event, events.Warned)]
    assert any(f"trial {trial} goes on" in text and "with 2 CPUs to itself" in text for text in said)
    assert next(one for one in ran.results if one.trial != trial).state == "complete"
    # While it had the machine, nobody else ran: the other one had ended, or began when it had failed.
    (again,) = (n for n, event in enumerate(ran.stream) if event in starts(ran, trial)[1:])
    (end,) = (n for n, event in enumerate(ran.stream) if isinstance(event, events.TrialFailed) and event.trial == trial)
    between = [event for event in ran.stream[again:end] if isinstance(event, events.TrialEpoch)]
    assert all(event.trial == trial for event in between)


def test_where_a_trial_has_all_memory_already_it_fails_at_once(run_tiny: RunTiny) -> None:
    ran = run_tiny(moods("memory", scheduler="none"))
    assert [one.cause for one in ran.results] == ["memory"]
    assert len(starts(ran, "0000")) == 1


def test_a_hundred_megabytes_of_chatter_fill_no_log(run_tiny: RunTiny) -> None:
    ran = run_tiny(moods("flood", scheduler="none"))
    assert [one.state for one in ran.results] == ["complete"]
    assert (ran.path / "trials" / "0000" / "log.txt").stat().st_size < 2 << 20


def test_what_a_lost_worker_has_forked_ends_too(run_tiny: RunTiny) -> None:
    before = {process.pid for process in psutil.process_iter()}
    ran = run_tiny(moods("fork", scheduler="none"))
    assert len(starts(ran, "0000")) == 4  # each of three workers has come one epoch further, and died
    assert [one.state for one in ran.results] == ["complete"]
    deadline = time.monotonic() + 30

    def orphans() -> list[psutil.Process]:
        return [p for p in psutil.process_iter(["ppid", "cmdline"]) if p.pid not in before and p.info["ppid"] == 1]

    while orphans() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert orphans() == []


def test_a_dump_that_follows_on_the_beginning_of_a_line_is_seen() -> None:
    log = "epoch 1 |###   |Timeout (0:00:00.300000)!\nCurrent thread 0x00007f (most recent call first):\n"
    assert loss_of(Leftover("it died", log), 1.0, None).cause == "hang"
