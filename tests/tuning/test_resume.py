"""A search that is cut short and gone on with decides and finds what it would have without the cut."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState

from mnistlab import events
from mnistlab.store import read_events, read_run
from mnistlab.store.checkpoints import newest_checkpoint
from mnistlab.store.jsonl import encode_line
from mnistlab.store.results import TrialResult
from mnistlab.tuning import driver
from mnistlab.tuning.history import past_of
from tests.faults.test_going_on import flip, running
from tests.tuning.conftest import Ran, RunTiny
from tests.tuning.test_search import moods

__all__ = ["running"]  # a fixture

pytestmark = pytest.mark.simulated

SPACE = """

[model.moody]
mood = ["good", "stuck"]
gain = {{ low = 0.5, high = 2.0 }}
[optimizer.sgd]
lr = {{ low = 0.005, high = 0.5, log = true }}
momentum = 0.9
weight_decay = 1e-6
schedule = "constant"
warmup = 0.0
[training]
epochs = 4
batch_size = 16
[search]
trials = 6
algorithm = "{algorithm}"
scheduler = "{scheduler}"
grace_epochs = 1
{more}
"""


def space(algorithm: str = "tpe", scheduler: str = "asha", more: str = "reduction_factor = 2") -> str:
    return SPACE.format(algorithm=algorithm, scheduler=scheduler, more=more)


def found(result: TrialResult) -> Mapping[str, Any]:
    """What a trial has come to, without the time that it took."""
    timeless = [{k: v for k, v in at.items() if k not in {"seconds", "images_per_second"}} for at in result.history]
    about = {"state": result.state, "seed": result.seed, "cause": result.cause, "repeats": result.repeats}
    return {**about, "plan": result.plan, "history": timeless}


def all_found(path: Path) -> dict[str, Mapping[str, Any]]:
    return {result.trial: found(result) for result in read_run(path).trials}


def rungs(ran: Ran) -> list[events.Event]:
    return [stamped.event for stamped in read_events(ran.path) if isinstance(stamped.event, events.RungDecided)]


@pytest.mark.parametrize(
    ("algorithm", "scheduler", "more", "cut"),
    [
        ("tpe", "asha", "reduction_factor = 2", 2),
        ("tpe", "asha", "reduction_factor = 2", 10),
        ("random", "median", "", 13),
        ("cmaes", "hyperband", "reduction_factor = 2", 11),
        ("gp", "none", "", 14),
    ],
)
def test_one_worker_finds_the_same_as_without_the_cut(
    run_tiny: RunTiny, algorithm: str, scheduler: str, more: str, cut: int
) -> None:
    text = space(algorithm, scheduler, more)
    whole = run_tiny(text)
    first = run_tiny(text, stop_after=cut)
    assert [result.state for result in first.results].count("interrupted") == 1
    (interrupted,) = [result for result in first.results if result.state == "interrupted"]
    second = run_tiny(text, goes_on=first)
    assert all_found(second.path) == all_found(whole.path)
    assert rungs(second) == rungs(whole)
    # the one that was interrupted went on where it was, under its own name
    (again,) = [event for event in second.of(events.TrialStarted) if event.attempt == 2]
    assert again.trial == interrupted.trial
    assert again.epoch < len(interrupted.history)  # its last epoch is judged anew
    epochs = [event.epoch for event in second.of(events.TrialEpoch) if event.trial == again.trial]
    assert epochs[:1] == [again.epoch + 1]
    # Optuna was told the same in the same order
    told = [(trial.state, trial.params, trial.intermediate_values) for trial in whole.study]
    assert [(trial.state, trial.params, trial.intermediate_values) for trial in second.study] == told


def killed(ran: Ran, to: Path, lines: int) -> Ran:
    """What a driver leaves that is killed after so many events."""
    shutil.copytree(ran.path, to)
    stream = (to / "events.jsonl").read_bytes().splitlines(keepends=True)[:lines]
    (to / "events.jsonl").write_bytes(b"".join(stream))
    for name, one in past_of(read_events(to)).trials.items():
        if one.state is None:
            (to / "trials" / name / "result.json").unlink()
    for folder in (to / "trials").iterdir():
        if folder.name not in past_of(read_events(to)).trials:
            shutil.rmtree(folder)
    return Ran([], [], to)


def test_a_killed_driver_costs_nothing_that_had_ended(run_tiny: RunTiny, tmp_path: Path) -> None:
    text = space()
    whole = run_tiny(text)
    count = len(list(read_events(whole.path)))
    for lines in range(1, count, max(1, count // 5)):
        left = killed(whole, tmp_path / f"killed-{lines}", lines)
        before = all_found(left.path)
        second = run_tiny(text, goes_on=left)
        assert all_found(second.path) == all_found(whole.path)
        started = {event.trial for event in second.of(events.TrialStarted)}
        assert not started & before.keys()  # what had ended was not trained again


def test_numbers_that_were_given_out_and_never_begun_stay_with_their_plans(run_tiny: RunTiny, tmp_path: Path) -> None:
    """Two workers come up in any order: the driver died when the second trial had begun and the first one not yet."""
    text = space("tpe", "none", "")
    whole = run_tiny(text)
    left = tmp_path / "gap"
    shutil.copytree(whole.path, left)
    shutil.rmtree(left / "trials")
    lines = (left / "events.jsonl").read_bytes().splitlines(keepends=True)
    begun = [line for line in lines if b'"type":"trial_started"' in line]
    (left / "events.jsonl").write_bytes(begun[1])
    second = run_tiny(text, goes_on=Ran([], [], left))
    assert all_found(left) == all_found(whole.path)
    started = [(event.trial, event.attempt) for event in second.of(events.TrialStarted)]
    assert started[:2] == [("0001", 2), ("0000", 1)]
    assert [trial.params for trial in second.study] == [trial.params for trial in whole.study]
    values = {trial.number: trial.value for trial in second.study}
    assert values == {result.number: result.metrics["val_accuracy"] for result in read_run(left).trials}


def test_trials_count_as_proposed_in_the_order_of_their_numbers(run_tiny: RunTiny) -> None:
    text = space("tpe", "none", "")
    whole = run_tiny(text, stop_after=2)
    path = whole.path / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    (first,) = [line for line in lines if b'"type":"trial_started"' in line]
    other = json.loads(first) | {"trial": "0001", "number": 1}
    path.write_bytes(encode_line({key: value for key, value in other.items() if key != "crc"}) + b"".join(lines))
    past = past_of(read_events(whole.path))
    assert [step.trial for step in past.steps if step.kind == "started"] == ["0000", "0001"]


def test_more_trials_continue_what_there_is(run_tiny: RunTiny) -> None:
    whole = run_tiny(space())
    fewer = run_tiny(space().replace("trials = 6", "trials = 4"))
    assert fewer.study[-1].state != TrialState.RUNNING
    more = run_tiny(space(), goes_on=fewer)
    assert all_found(more.path) == all_found(whole.path)


def test_what_has_failed_can_be_tried_again(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    text = moods("good", "raise", "stuck", scheduler="none")
    first = run_tiny(text)
    assert [result.state for result in first.results] == ["complete", "failed", "complete"]
    second = run_tiny(text, goes_on=first, again=True)
    (started,) = second.of(events.TrialStarted)
    assert (started.trial, started.attempt, started.epoch) == ("0001", 2, 0)
    assert [result.state for result in read_run(first.path).trials] == ["complete", "failed", "complete"]


def test_states_are_kept_while_a_trial_runs_and_not_after_it(run_tiny: RunTiny) -> None:
    text = moods("slow", scheduler="none")  # long enough for a state to be kept at each epoch
    ran = run_tiny(text, stop_after=2)
    (interrupted,) = ran.results
    assert (newest_checkpoint(ran.path, interrupted.trial, 4) or (0,))[0] == 3
    folder = ran.path / "trials" / interrupted.trial / "checkpoints"
    assert len(list(folder.iterdir())) <= 2 * 3  # the last two and the best, each with its manifest
    done = run_tiny(text, goes_on=ran)
    assert not list(done.path.glob("trials/*/checkpoints"))
    (again,) = [event for event in done.of(events.TrialStarted) if event.attempt == 2]
    assert again.epoch == 2
    (whole,) = read_run(done.path).trials
    assert whole.state == "complete"
    assert len(whole.history) == 4


def test_a_checkpoint_that_is_passed_over_is_told_to_whoever_looks_on(running: Path) -> None:
    flip(running / "trials/0000/checkpoints/epoch-00001.safetensors")
    told: list[events.Event] = []
    spec = SimpleNamespace(search=SimpleNamespace(scheduler="none"))
    search: Any = SimpleNamespace(store=SimpleNamespace(path=running), emit=told.append, spec=spec)
    assert driver._states(search, past_of(read_events(running))) == {}
    assert told == [events.Warned(message="trial 0000: its checkpoint of epoch 1 is damaged, and passed over")]
