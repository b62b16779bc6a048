"""Replicates and tests of models in workers of Ray that hang, are killed or lack memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mnistlab import events
from mnistlab.confirm import confirm
from mnistlab.fsck import check
from mnistlab.results import TrialResult
from mnistlab.store import read_lines, read_run
from mnistlab.tuning.job import Search
from mnistlab.tuning.tune import RAY_TUNE
from tests.tuning.conftest import Ran, RunTiny
from tests.tuning.test_confirm import CONFIRM
from tests.tuning.test_lost_workers import kill_workers
from tests.tuning.test_search import moods


def confirmed_as(*moods: str, **plan: Any) -> Callable[[Search, list[TrialResult]], None]:
    """Confirm the trials as if their models had other moods."""

    def as_if(trial: TrialResult, mood: str) -> TrialResult:
        other = json.loads(json.dumps(dict(trial.plan)))
        other["model"]["config"]["mood"] = mood
        other["training"] |= plan
        return replace(trial, plan=other)

    def then(search: Search, trials: list[TrialResult]) -> None:
        confirm(search, [as_if(*one) for one in zip(trials, moods, strict=True)], "the command")

    return then


def anew(ran: Ran) -> list[str]:
    return [
        event.message for event in ran.stream if isinstance(event, events.Warned) and "begins anew" in event.message
    ]


@pytest.mark.simulated
def test_a_replicate_that_has_had_its_time_ends(run_tiny: RunTiny) -> None:
    text = moods("good", scheduler="none", trial_timeout="1s") + CONFIRM.format(top=1, seeds=1)
    ran = run_tiny(text, then=confirmed_as("slow", epochs=400))
    (failed,) = [event for event in ran.stream if isinstance(event, events.ReplicateFailed)]
    assert failed.cause == "timeout"
    assert "TimeLimitError" in (ran.path / failed.log).read_text()


@pytest.fixture(scope="module")
def wounded(run_tiny_once: RunTiny) -> tuple[Ran, list[int]]:
    """A confirmation by one worker in which a model hangs while it is trained, and one on the test set.

    The worker of a third one is killed, whose process id stands beside the search.
    """
    killed: list[int] = []

    def kill_in_the_second_epoch(search: Search, trials: list[TrialResult]) -> None:
        def emit(event: events.Event) -> None:
            search.emit(event)
            if isinstance(event, events.ReplicateEpoch) and (event.trial, event.epoch) == ("0002", 2) and not killed:
                killed.extend(kill_workers("ray::train_replicate"))

        confirmed_as("sleep", "shy", "slow")(replace(search, emit=emit), sorted(trials, key=lambda one: one.number))

    text = moods("good", "stuck", "noisy", scheduler="none", stall_timeout="8s") + CONFIRM.format(top=3, seeds=1)
    return run_tiny_once(text, then=kill_in_the_second_epoch, executor=RAY_TUNE), killed


@pytest.mark.ray
def test_a_replicate_whose_worker_is_killed_begins_anew(wounded: tuple[Ran, list[int]]) -> None:
    ran, killed = wounded
    told = [one.epoch for one in ran.stream if isinstance(one, events.ReplicateEpoch) and one.trial == "0002"]
    assert told == [1, 2, 3, 4]
    (said,) = anew(ran)
    assert said == "trial 0002, replicate 1 begins anew: worker lost: its process ended without a word"
    assert len(killed) == 1
    record = read_run(ran.path)
    (one,) = [one for one in record.replicates if one.trial == "0002"]
    assert (one.cause, len(one.history), one.test is not None) == ("", 4, True)
    assert check(ran.path).findings == ()


@pytest.mark.chaos
@pytest.mark.ray
def test_a_replicate_without_memory_is_tried_once_more_with_all_of_it(run_tiny: RunTiny) -> None:
    text = moods("good", scheduler="none") + CONFIRM.format(top=1, seeds=1)
    ran = run_tiny(text, parallel=2, then=confirmed_as("memory"), executor=RAY_TUNE)
    (failed,) = [event for event in ran.stream if isinstance(event, events.ReplicateFailed)]
    assert failed.cause == "memory"
    assert [said.split(":")[0] for said in anew(ran)] == ["trial 0000, replicate 1 begins anew with all of a device"]
    assert (ran.path / failed.log).read_text().count("device out of memory, says the test") >= 2


@pytest.mark.ray
def test_what_hangs_in_a_confirmation_is_ended_once_and_on_the_record_with_its_stacks(
    wounded: tuple[Ran, list[int]],
) -> None:
    ran, _ = wounded
    (failed,) = [event for event in ran.stream if isinstance(event, events.ReplicateFailed)]
    assert (failed.trial, failed.cause) == ("0000", "hang")
    assert "the stacks of its threads are in its log" in failed.message
    opened, *tested = read_lines(ran.path / "test_ledger.jsonl")
    assert opened["type"] == "opened"
    assert {one["trial"]: (one["type"], one.get("cause")) for one in tested} == {
        "0001": ("failed", "hang"),
        "0002": ("evaluated", None),
    }
    for name, part in (("0000", "[replicate 1]"), ("0001", "[replicate 1 on the test set]")):
        log = (ran.path / "trials" / name / "log.txt").read_text()
        assert part in log
        assert "mnistlab_moody.py" in log.partition("most recent call first")[2]
    (shy,) = [one for one in tested if one["trial"] == "0001"]
    *_, warned = [event.message for event in ran.stream if isinstance(event, events.Warned)]
    assert warned.endswith(f"could not be evaluated on the test set: {shy['message']}")
    assert {one.trial: one.cause for one in read_run(ran.path).replicates} == {"0000": "hang", "0001": "", "0002": ""}
