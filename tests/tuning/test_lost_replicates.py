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


@pytest.mark.ray
def test_replicates_whose_workers_are_killed_begin_anew(run_tiny: RunTiny) -> None:
    killed: list[int] = []

    def kill_in_the_second_epoch(search: Search, trials: list[TrialResult]) -> None:
        def emit(event: events.Event) -> None:
            search.emit(event)
            if isinstance(event, events.ReplicateEpoch) and event.epoch == 2 and not killed:
                killed.extend(kill_workers("ray::train_replicate"))

        confirmed_as("slow")(replace(search, emit=emit), trials)

    text = moods("good", scheduler="none") + CONFIRM.format(top=1, seeds=2)
    ran = run_tiny(text, parallel=2, then=kill_in_the_second_epoch, executor=RAY_TUNE)
    told = [(event.replicate, event.epoch) for event in ran.stream if isinstance(event, events.ReplicateEpoch)]
    assert sorted(told) == [(number, epoch) for number in (1, 2) for epoch in (1, 2, 3, 4)]
    assert len(ran.of(events.ReplicateStarted)) == len(ran.of(events.ReplicateFinished)) == 2
    assert 1 <= len(anew(ran)) <= len(killed) <= 2  # the other one may be at its end already
    assert all(" begins anew: worker lost" in said for said in anew(ran))
    record = read_run(ran.path)
    assert [(one.cause, len(one.history), one.test is not None) for one in record.replicates] == [("", 4, True)] * 2
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
def test_what_hangs_in_a_confirmation_is_ended_once_and_on_the_record_with_its_stacks(run_tiny: RunTiny) -> None:
    """One model hangs while it is trained, the other one on the test set."""
    text = moods("good", "stuck", scheduler="none", stall_timeout="8s") + CONFIRM.format(top=2, seeds=1)
    ran = run_tiny(text, then=confirmed_as("sleep", "shy"), executor=RAY_TUNE)
    (failed,) = [event for event in ran.stream if isinstance(event, events.ReplicateFailed)]
    assert (failed.cause, "the stacks of its threads are in its log" in failed.message) == ("hang", True)
    assert anew(ran) == []
    opened, tested = read_lines(ran.path / "test_ledger.jsonl")
    assert (opened["type"], tested["type"], tested["cause"]) == ("opened", "failed", "hang")
    logs = {name: (ran.path / "trials" / name / "log.txt").read_text() for name in (failed.trial, tested["trial"])}
    for log, part in zip(logs.values(), ("[replicate 1]", "[replicate 1 on the test set]"), strict=True):
        assert part in log
        assert "mnistlab_moody.py" in log.partition("most recent call first")[2]
    *_, warned = [event.message for event in ran.stream if isinstance(event, events.Warned)]
    assert warned.endswith(f"could not be evaluated on the test set: {tested['message']}")
    results = {one.trial: one.cause for one in read_run(ran.path).replicates}
    assert results == {failed.trial: "hang", tested["trial"]: ""}
    assert check(ran.path).findings == ()
