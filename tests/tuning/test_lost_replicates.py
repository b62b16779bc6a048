"""Replicates and tests of models in workers of Ray that hang, are killed or lack memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mnistlab import events
from mnistlab.store.results import TrialResult
from mnistlab.tuning.confirm import confirm
from mnistlab.tuning.context import Search
from mnistlab.tuning.ray.executor import RAY_TUNE
from tests.tuning.conftest import Ran, RunTiny
from tests.tuning.test_confirm import CONFIRM
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


@pytest.mark.chaos
@pytest.mark.ray
def test_a_replicate_without_memory_is_tried_once_more_with_all_of_it(run_tiny: RunTiny) -> None:
    text = moods("good", scheduler="none") + CONFIRM.format(top=1, seeds=1)
    ran = run_tiny(text, parallel=2, then=confirmed_as("memory"), executor=RAY_TUNE)
    (failed,) = [event for event in ran.stream if isinstance(event, events.ReplicateFailed)]
    assert failed.cause == "memory"
    assert [said.split(":")[0] for said in anew(ran)] == ["trial 0000, replicate 1 begins anew with all of a device"]
    assert (ran.path / failed.log).read_text().count("device out of memory, says the test") >= 2
