"""The driver's own process trains: what it hears meanwhile, and that it is as before afterwards."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from mnistlab import events
from mnistlab.errors import ExitCode, SpecError
from mnistlab.store import read_run
from mnistlab.tuning import local_executor
from mnistlab.tuning.local_executor import CANT
from tests.local.conftest import AtStep, Drive, Driven
from tests.tuning.test_resume import all_found, space
from tests.tuning.test_search import moods

pytestmark = pytest.mark.simulated


@pytest.fixture(autouse=True)
def looks_around_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_executor, "TICK_SECONDS", 0.0)


def raises(number: signal.Signals, times: int = 1) -> Callable[[], None]:
    def then() -> None:
        for _ in range(times):
            signal.raise_signal(number)

    return then


def state() -> Mapping[str, Any]:
    """What a program finds that calls mnistlab as a library."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM)
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state().tolist(),
        "torch threads": torch.get_num_threads(),
        "warns always": torch.is_warn_always_enabled(),
        "handlers": [signal.getsignal(number) for number in numbers],
        "streams": (sys.stdout, sys.stderr, sys.breakpointhook),
        "descriptors": [(os.fstat(number).st_dev, os.fstat(number).st_ino) for number in (1, 2)],
    }


@pytest.mark.parametrize("interrupts", [0, 1, 2])
def test_afterwards_the_process_is_as_before(drive: Drive, at_step: AtStep, interrupts: int) -> None:
    drive(moods("good", scheduler="none"), "first").search()  # what is imported then adds filters of warnings for good
    torch.set_num_threads(2)
    before = state()
    if interrupts:
        at_step(7, raises(signal.SIGINT, interrupts))
    drive(moods("slow", "noisy", scheduler="none") + "[resources]\ncpus_per_trial = 1\n").search()
    assert state() == before


def test_a_run_says_that_one_trial_runs_at_a_time_and_what_it_can_not_do(drive: Drive) -> None:
    one = drive(moods("good", scheduler="none"))
    assert one.search().exit_code == ExitCode.DONE
    (started,) = one.of(events.RunStarted)
    assert (started.parallel, started.parallel_replicates) == (1, 1)
    assert json.loads((one.path / "run.json").read_text())["machine"]["parallel"] == 1
    assert CANT in [event.message for event in one.of(events.Warned)]


def told_before_the_first_epoch(one: Driven, kind: type[events.Event]) -> bool:
    kinds = [type(event) for event in one.told]
    return kinds.index(events.TrialStarted) < kinds.index(kind) < kinds.index(events.TrialEpoch)


def test_who_asks_how_it_stands_is_answered_in_the_middle_of_an_epoch(drive: Drive, at_step: AtStep) -> None:
    at_step(2, raises(signal.SIGUSR1))
    one = drive(moods("slow", scheduler="none"))
    one.search()
    assert told_before_the_first_epoch(one, events.StatusAsked)


def test_a_search_that_is_interrupted_comes_to_the_same_end_as_one_that_is_not(drive: Drive, at_step: AtStep) -> None:
    text = space().replace('"good"', '"slow"')
    at_step(13, raises(signal.SIGINT))
    cut = drive(text, "cut")
    finished = cut.search()
    assert finished.exit_code == ExitCode.INTERRUPTED
    assert len(cut.of(events.StopAsked)) == 1
    assert "interrupted" in {trial.state for trial in read_run(cut.path).trials}
    assert cut.resume() is not None
    whole = drive(text, "whole")
    whole.search()
    assert all_found(cut.path) == all_found(whole.path)


def test_a_stop_is_heard_in_the_middle_of_an_epoch_and_the_second_one_ends_it_there(
    drive: Drive, at_step: AtStep
) -> None:
    at_step(2, raises(signal.SIGINT, 2))
    one = drive(moods("slow", scheduler="none"))
    assert one.search().exit_code == ExitCode.INTERRUPTED
    assert [event.at_once for event in one.of(events.StopAsked)][-1]
    assert one.of(events.TrialEpoch) == []


def test_a_first_stop_is_told_at_once(drive: Drive, at_step: AtStep) -> None:
    at_step(2, raises(signal.SIGTERM))
    one = drive(moods("slow", scheduler="none"))
    assert one.search().exit_code == ExitCode.TERMINATED
    assert told_before_the_first_epoch(one, events.StopAsked)
    assert [len(trial.history) for trial in read_run(one.path).trials] == [1]


@pytest.mark.parametrize(
    ("search", "options", "words"),
    [({"scheduler": "pbt"}, {}, "population trains side by side"), ({}, {"address": "10.0.0.1:6379"}, "joins no Ray")],
)
def test_what_it_can_not_do_is_refused_before_anything_is_written(
    drive: Drive, search: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    text = moods("good", **search).replace('"grid"', '"random"')
    one = drive(text, **options)
    with pytest.raises(SpecError, match=words) as raised:
        one.search()
    assert raised.value.exit_code == ExitCode.USAGE
    assert not one.options.runs.exists()
