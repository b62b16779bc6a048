"""What only a real Ray shows of a search: what its workers print, populations, and how it ends when it is stopped."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import psutil
import pytest
from optuna.trial import TrialState
from ray import cloudpickle
from ray.tune.experiment import trial as tune_trial

from mnistlab import events
from mnistlab.plugins.discovery import selection
from mnistlab.plugins.registry import Registry, select
from mnistlab.store import read_events, read_lines, read_run
from mnistlab.store.fsck import check
from mnistlab.store.results import TrialResult
from mnistlab.tuning.context import Search
from mnistlab.tuning.local_executor import LOCAL
from mnistlab.tuning.ray.executor import RAY_TUNE
from mnistlab.tuning.worker.replicate import ReplicateAnswer, ReplicateTask, train_replicate
from mnistlab.tuning.worker.trial import Here, Shared
from tests.tuning.conftest import MACHINE, Ran, RunTiny, mood_of, starts
from tests.tuning.test_confirm import CONFIRM
from tests.tuning.test_lost_replicates import anew, confirmed_as
from tests.tuning.test_lost_workers import kill_workers
from tests.tuning.test_resume import all_found, rungs, space
from tests.tuning.test_search import SEARCHED, moods

pytestmark = pytest.mark.ray


@pytest.mark.chaos
def test_a_search_that_is_given_up_interrupts_what_runs(run_tiny: RunTiny) -> None:
    text = (
        moods("lonely", scheduler="none").replace("trials = 1", "trials = 30").replace("epochs = 4", "epochs = 10000")
    )
    ran = run_tiny(text.replace('"grid"', '"random"').replace("gain = 1.0\n", ""), parallel=2, executor=RAY_TUNE)
    first, *others = [ran.trials[number] for number in sorted(ran.trials)]
    assert (first.state, first.message) == ("interrupted", "search given up")
    assert {result.cause for result in others} == {"plugin"}
    assert ran.study[0].user_attrs == {"interrupted": "search given up"}


@dataclass(frozen=True)
class Mixed:
    """A search and its confirmation by one worker, of whose trials and replicates most are bad company."""

    ran: Ran
    printed: str  # what came through to this process's streams
    loads: tuple[str, ...]  # what was asked of the dataset before the confirmation began
    killed: tuple[int, ...]  # the processes that were killed while they trained a replicate

    @property
    def confirmed(self) -> list[str]:
        """The trials that were confirmed: as one that hangs, one that hangs on the test set, and one that is killed."""
        return sorted(one.trial for one in self.ran.results if one.state == "complete")

    def trial(self, mood: str) -> tuple[TrialResult, str]:
        """Return the trial of a mood, and its log."""
        result = self.ran.trials[int(mood_of(self.ran, mood))]
        log = self.ran.path / "trials" / result.trial / "log.txt"
        return result, log.read_text() if log.exists() else ""


@pytest.fixture(scope="module")
def mixed(run_tiny_once: RunTiny, loads: Path) -> Mixed:
    """The one search that most tests of this file look at: a worker takes long to start."""
    for name in (loads, Path(os.environ["MOODY_CHILDREN"])):
        name.unlink(missing_ok=True)
    asked, killed = list[str](), list[int]()
    read = list[object]()  # Tune pickles what Ray says of a worker's death, and would read it back
    text = moods("noisy", "curious", "fork", "loop", "good", scheduler="none", stall_timeout="8s")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile("w+") as said:
        patch.setattr(tune_trial, "cloudpickle", SimpleNamespace(**{**vars(cloudpickle), "loads": read.append}))

        def then(search: Search, trials: list[TrialResult]) -> None:
            asked.extend(loads.read_text().splitlines())
            _confirm_badly(killed, search, trials)

        with _written_to(said):
            ran = run_tiny_once(text + CONFIRM.format(top=3, seeds=1), executor=RAY_TUNE, dataset="watched", then=then)
        said.seek(0)
        assert read == []
        printed = said.read()
    return Mixed(ran, printed, tuple(asked), tuple(killed))


def _confirm_badly(killed: list[int], search: Search, trials: list[TrialResult]) -> None:
    """Confirm three trials as if one model hung while it is trained, and another one on the test set.

    The worker of a third one is killed in its second epoch.
    """
    bad, shy, slow = sorted((one for one in trials if one.state == "complete"), key=lambda one: one.number)

    def emit(event: events.Event) -> None:
        search.emit(event)
        if isinstance(event, events.ReplicateEpoch) and (event.trial, event.epoch) == (slow.trial, 2) and not killed:
            killed.extend(kill_workers("ray::train_replicate"))

    confirmed_as("sleep", "shy", "slow")(replace(search, emit=emit), [bad, shy, slow])


@contextmanager
def _written_to(file: TextIO) -> Iterator[None]:
    """Have this process and its children write into a file instead of its standard streams."""
    before = {number: os.dup(number) for number in (1, 2)}
    for number in before:
        os.dup2(file.fileno(), number)
    try:
        with redirect_stdout(file), redirect_stderr(file):
            yield
    finally:
        for number, copy in before.items():
            os.dup2(copy, number)
            os.close(copy)


def test_what_a_trial_prints_goes_to_its_log_alone(mixed: Mixed) -> None:
    assert "the model" not in mixed.printed
    assert "descriptor" not in mixed.printed
    result, log = mixed.trial("noisy")
    assert result.state == "complete"
    assert "\x1b[31mprinted by the model" in log
    assert "written to descriptor 2" in log
    assert not mixed.trial("good")[1].partition("[replicate")[0].strip()
    assert not list((mixed.ran.path / "ray").rglob("*.safetensors"))  # only a population leaves any


def test_a_model_that_asks_for_the_test_images_fails_and_gets_none(mixed: Mixed) -> None:
    failed, _ = mixed.trial("curious")
    assert (failed.state, failed.cause) == ("failed", "plugin")
    assert "dataset 'watched' was asked for its test images, but the test set is sealed" in failed.message
    assert "load train" in mixed.loads
    assert "load test" not in mixed.loads


def test_a_worker_that_is_killed_costs_its_trial_an_epoch_and_is_told_in_a_sentence(mixed: Mixed) -> None:
    ran = mixed.ran
    result, log = mixed.trial("fork")
    assert [(one.attempt, one.epoch) for one in starts(ran, result.trial)] == [(1, 0), (2, 1)]  # from its checkpoint
    assert (result.state, len(result.history)) == ("complete", 4)
    told = [event.epoch for event in ran.stream if isinstance(event, events.TrialEpoch) and event.trial == result.trial]
    assert told == [1, 2, 3, 4]
    killed, _ = Path(os.environ["MOODY_CHILDREN"]).read_text().split()
    warned = [event.message for event in ran.stream if isinstance(event, events.Warned)]
    (said,) = [text for text in warned if text.startswith(f"trial {result.trial} ")]
    assert said.endswith(f": worker lost: process {killed} on node 127.0.0.1 ended without a word")
    assert "Worker exit type: SYSTEM_ERROR" in log
    assert list(ran.path.glob("ray/**/error.pkl"))
    assert [stamped.event for stamped in read_events(ran.path)] == ran.stream  # on disk as it was told to the views
    assert check(ran.path).findings == ()


def test_what_a_lost_worker_has_forked_ends_too(mixed: Mixed) -> None:
    _, child = map(int, Path(os.environ["MOODY_CHILDREN"]).read_text().split())
    deadline = time.monotonic() + 60
    while psutil.pid_exists(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(child)


def test_a_trial_that_hangs_is_ended_with_its_stacks_in_the_log_and_its_slot_is_free_again(
    mixed: Mixed,
) -> None:
    result, log = mixed.trial("loop")
    assert (result.state, result.cause, len(result.history)) == ("failed", "hang", 1)
    assert len(starts(mixed.ran, result.trial)) == 1  # it is not tried again
    assert "most recent call first" in log
    assert "mnistlab_moody.py" in log
    assert mixed.trial("good")[0].state == "complete"
    assert mixed.ran.study[result.number].state == TrialState.FAIL


def test_a_replicate_whose_worker_is_killed_begins_anew(mixed: Mixed) -> None:
    ran, (*_, slow) = mixed.ran, mixed.confirmed
    told = [one.epoch for one in ran.stream if isinstance(one, events.ReplicateEpoch) and one.trial == slow]
    assert told == [1, 2, 3, 4]
    (said,) = anew(ran)
    assert said == f"trial {slow}, replicate 1 begins anew: worker lost: its process ended without a word"
    assert len(mixed.killed) == 1
    record = read_run(ran.path)
    (one,) = [one for one in record.replicates if one.trial == slow]
    assert (one.cause, len(one.history), one.test is not None) == ("", 4, True)
    assert check(ran.path).findings == ()


def test_what_hangs_in_a_confirmation_is_ended_once_and_on_the_record_with_its_stacks(
    mixed: Mixed,
) -> None:
    ran, (sleeping, shy, slow) = mixed.ran, mixed.confirmed
    (failed,) = [event for event in ran.stream if isinstance(event, events.ReplicateFailed)]
    assert (failed.trial, failed.cause) == (sleeping, "hang")
    assert "the stacks of its threads are in its log" in failed.message
    opened, *tested = read_lines(ran.path / "test_ledger.jsonl")
    assert opened["type"] == "opened"
    assert {one["trial"]: (one["type"], one.get("cause")) for one in tested} == {
        shy: ("failed", "hang"),
        slow: ("evaluated", None),
    }
    for name, part in ((sleeping, "[replicate 1]"), (shy, "[replicate 1 on the test set]")):
        log = (ran.path / "trials" / name / "log.txt").read_text()
        assert part in log
        assert "mnistlab_moody.py" in log.partition("most recent call first")[2]
    (said,) = [one["message"] for one in tested if one["trial"] == shy]
    *_, warned = [event.message for event in ran.stream if isinstance(event, events.Warned)]
    assert warned.endswith(f"could not be evaluated on the test set: {said}")
    assert {one.trial: one.cause for one in read_run(ran.path).replicates} == {sleeping: "hang", shy: "", slow: ""}


@pytest.mark.chaos
def test_a_stopped_population_ends_at_once_and_everybody_agrees(run_tiny: RunTiny) -> None:
    text = SEARCHED.format(trials=6, algorithm="random", scheduler="pbt", extra="")
    ran = run_tiny(text.replace("epochs = 4", "epochs = 100000"), parallel=2, stop_after=50, executor=RAY_TUNE)
    assert ran.results
    assert {(result.state, result.message) for result in ran.results} == {("interrupted", "stop request")}
    assert {trial.state for trial in ran.study} == {TrialState.PRUNED}
    assert {trial.user_attrs["interrupted"] for trial in ran.study} == {"stop request"}
    assert len(ran.of(events.TrialEpoch)) < 100


def test_a_population_copies_weights_and_its_plans_give_the_same_numbers_when_they_are_trained_again(
    run_tiny: RunTiny, registry: Registry
) -> None:
    """A trial of a population went on from another's weights; its plan and seed alone repeat what came of it."""
    text = SEARCHED.format(trials=4, algorithm="random", scheduler="pbt", extra="").replace("epochs = 4", "epochs = 8")
    shared: list[Shared] = []
    ran = run_tiny(text, parallel=2, then=lambda search, _: shared.append(search.shared), executor=RAY_TUNE)
    assert sorted(ran.trials) == [0, 1, 2, 3]
    assert all(result.state == "complete" for result in ran.results)
    assert all(len(result.history) == 8 for result in ran.results)
    changed = [result for result in ran.results if result.plan.get("changes")]
    assert changed, "no trial of the population took up another's weights"
    for result in changed:
        for change in result.plan["changes"]:
            assert 0 < change["epoch"] < 8
            assert change["optimizer"]["name"] in ("sgd", "adamw")
    one = changed[0]
    task = ReplicateTask(one.trial, 1, one.seed, dict(one.plan))
    with LOCAL.joined(None, MACHINE, ""):
        *_, answer = train_replicate(replace(shared[0], here=Here(registry, lambda: None)), task)
    assert isinstance(answer, ReplicateAnswer)
    assert answer.cause == ""
    assert answer.history[-1]["val_loss"] == one.metrics["val_loss"]


@pytest.mark.chaos
def test_two_workers_lose_nothing_and_number_on(run_tiny: RunTiny) -> None:
    text = space()
    first = run_tiny(text, parallel=2, stop_after=7, executor=RAY_TUNE)
    ended = {name: one for name, one in all_found(first.path).items() if one["state"] != "interrupted"}
    second = run_tiny(text, parallel=2, goes_on=first, executor=RAY_TUNE)
    after = all_found(second.path)
    assert sorted(after) == [f"{number:04}" for number in range(6)]
    assert all(one["state"] in {"complete", "pruned"} for one in after.values())
    assert {name: after[name] for name in ended} == ended
    assert TrialState.RUNNING not in {trial.state for trial in second.study}
    told = [trial for trial in second.study if trial.state in {TrialState.COMPLETE, TrialState.PRUNED}]
    assert len(told) == 6


@pytest.mark.chaos
def test_a_population_goes_on(run_tiny: RunTiny) -> None:
    text = space("random", "pbt", "")
    first = run_tiny(text, parallel=2, stop_after=17, executor=RAY_TUNE)
    changed = {r.trial: r.plan for r in first.results if r.state == "interrupted" and r.plan.get("changes")}
    assert changed, "no trial had taken over another one's settings before the cut"
    second = run_tiny(text, parallel=2, goes_on=first, executor=RAY_TUNE)
    started = {event.trial: event for event in second.of(events.TrialStarted)}
    assert {trial: started[trial].plan for trial in changed} == changed
    results = read_run(second.path).trials
    assert [result.state for result in results] == ["complete"] * 6
    assert all(len(result.history) == 4 for result in results)


@pytest.mark.chaos
def test_a_trial_that_breaks_late_hurts_no_population(run_tiny: RunTiny) -> None:
    text = moods("late", "good", scheduler="pbt").replace('"grid"', '"random"').replace("trials = 2", "trials = 6")
    ran = run_tiny(text.replace("lr = 0.05\n", "").replace("gain = 1.0\n", ""), parallel=2, executor=RAY_TUNE)
    assert len(ran.results) == 6
    late = [r for r in ran.results if r.plan["model"]["config"]["mood"] == "late"]
    assert {r.cause for r in late if r.state == "failed"} <= {"nan"}  # a copy counts anew: it may live to its end
    assert {r.state for r in ran.results if r not in late} <= {"complete", "pruned"}
    assert [t.state for t in ran.study if not t.state.is_finished()] == []


PLAIN = """
from typing import Annotated
from torch import nn
from mnistlab.api import Config, Int, Model, hookimpl

class Plain(Config):
    width: Annotated[int, Int(4, 32)] = 8

def build(config, shape):
    hidden = nn.Linear(shape.pixels, config.width)
    return nn.Sequential(nn.Flatten(), hidden, nn.Dropout(0.2), nn.Linear(config.width, shape.classes))

@hookimpl
def mnistlab_models():
    return [Model(name="plain", config=Plain, build=build, summary="Draws at random while it trains.")]
"""


def test_one_worker_and_this_process_come_to_the_same_trials_of_a_model_in_a_single_file(
    run_tiny: RunTiny, tmp_path: Path
) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    plugins = select(selection([tmp_path / "plain.py"]))
    text = space("tpe", "hyperband").replace('[model.moody]\nmood = ["good", "stuck"]\ngain', "[model.plain]\nwidth")
    text = text.replace("{ low = 0.5, high = 2.0 }", "{ low = 4, high = 32 }")
    here, there = (run_tiny(text, executor=by, plugins=plugins) for by in (LOCAL, RAY_TUNE))
    assert all_found(here.path) == all_found(there.path)
    assert rungs(here) == rungs(there)
    assert [trial.params for trial in here.study] == [trial.params for trial in there.study]
    assert len(here.results) == 6
