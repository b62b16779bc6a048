"""What becomes of trials in the driver's own process: their logs, their failures, and those of the machine."""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from mnistlab import events
from mnistlab.errors import DataError, ExitCode, RunWriteError
from mnistlab.store import RunWriter, read_run
from mnistlab.store.fsck import check
from mnistlab.tuning import local_executor
from mnistlab.tuning.local_executor import LOCAL
from mnistlab.tuning.ray.nodes import NoNodeError
from mnistlab.tuning.usage import DiskLowError
from mnistlab.tuning.worker import leaving
from mnistlab.tuning.worker import trial as worker
from mnistlab.util.seeds import Stream, derive
from tests.local.conftest import AtStep, Drive
from tests.tuning.conftest import RunTiny, mood_of
from tests.tuning.test_disk import full_once
from tests.tuning.test_resume import space
from tests.tuning.test_search import moods

pytestmark = pytest.mark.simulated


def test_a_log_holds_what_its_trial_printed_and_nothing_stays_redirected(
    run_tiny: RunTiny, capfd: pytest.CaptureFixture[str]
) -> None:
    streams, files = (sys.stdout, sys.stderr), [os.fstat(number).st_ino for number in (1, 2)]
    ran = run_tiny(moods("noisy", "good", scheduler="none"))
    assert capfd.readouterr() == ("", "")
    log = (ran.path / "trials" / mood_of(ran, "noisy") / "log.txt").read_text()
    assert "\x1b[31mprinted by the model" in log  # by Python, whose stream is a file of pytest's here
    assert "written to descriptor 2" in log
    assert not (ran.path / "trials" / mood_of(ran, "good") / "log.txt").exists()
    assert (sys.stdout, sys.stderr) == streams
    assert [os.fstat(number).st_ino for number in (1, 2)] == files


def test_a_plan_that_fails_is_told_as_infeasible_and_the_search_goes_on(run_tiny: RunTiny) -> None:
    ran = run_tiny(moods("raise", "step", "good", scheduler="none"))
    assert {name: ran.trials[int(mood_of(ran, name))].cause for name in ("raise", "step", "good")} == {
        "raise": "plugin",
        "step": "plugin",
        "good": "",
    }
    states = {trial.params["model.moody.mood"]: trial.state for trial in ran.study}
    assert states == {"raise": TrialState.PRUNED, "step": TrialState.PRUNED, "good": TrialState.COMPLETE}
    assert "this plan breaks" in (ran.path / "trials" / mood_of(ran, "step") / "log.txt").read_text()


# --- the machine's faults -----------------------------------------------------------------------------------------


def test_a_lack_ends_the_search_with_its_code_and_its_words_and_it_can_be_gone_on_with(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(*_: object) -> Any:
        print("looked for the images")
        raise DataError("the images are not here")

    one = drive(moods("good", "stuck", scheduler="none"))
    with monkeypatch.context() as patch:
        patch.setattr(worker, "data_for", lacks)
        with pytest.raises(NoNodeError, match="--executor local`") as raised:
            one.search()
    assert raised.value.exit_code == ExitCode.DATA_OR_PLUGIN
    assert one.of(events.RunFinished)[0].exit_code == ExitCode.DATA_OR_PLUGIN
    assert [event.message for event in one.of(events.Warned) if "this machine lacks the data" in event.message]
    assert {trial.state for trial in read_run(one.path).trials} <= {"interrupted"}
    log = (one.path / "trials" / "0000" / "log.txt").read_text()
    assert "looked for the images" in log
    finished = one.resume()
    assert finished is not None
    assert finished.exit_code == ExitCode.DONE
    assert [trial.state for trial in read_run(one.path).trials] == ["complete"] * 2
    assert check(one.path).sound


def test_what_the_machine_did_to_a_trial_is_in_its_own_log(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = worker.data_for, list[int]()

    def breaks_once(*about: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(24, "Too many open files")
        return whole(*about)

    monkeypatch.setattr(worker, "data_for", breaks_once)
    ran = run_tiny(moods("good", "stuck", scheduler="none"))
    assert [one.state for one in ran.results] == ["complete", "complete"]
    assert "Too many open files" in (ran.path / "trials" / "0000" / "log.txt").read_text()
    assert not (ran.path / "trials" / "0001" / "log.txt").exists()


def test_in_a_process_that_is_in_a_ray_the_one_node_is_called_as_failures_call_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = SimpleNamespace(get_node_id=lambda: "n1")
    monkeypatch.setattr(
        leaving, "ray", SimpleNamespace(is_initialized=lambda: True, get_runtime_context=lambda: context)
    )
    assert list(LOCAL.alive(1, 0.0)) == [leaving.place_here().partition("/")[0]] == ["n1"]


def test_a_full_disk_ends_the_search_after_what_had_begun_and_it_can_be_gone_on_with(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = drive(moods("good", "stuck", scheduler="none"))
    with monkeypatch.context() as patch:
        full_once(patch, one.options.runs, "trial_started")
        with pytest.raises(DiskLowError) as raised:
            one.search()
    assert raised.value.exit_code == ExitCode.RESOURCES_VANISHED
    assert [trial.state for trial in read_run(one.path).trials] == ["complete"]
    one.resume()
    assert [trial.state for trial in read_run(one.path).trials] == ["complete"] * 2


def test_what_the_driver_meets_while_a_trial_trains_is_not_blamed_on_the_plan(
    drive: Drive, at_step: AtStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = RunWriter.append

    def refuse(writer: RunWriter, event: events.Event) -> Any:
        if isinstance(event, events.StatusAsked):
            raise RunWriteError("can't write events.jsonl: No space left on device")
        return append(writer, event)

    monkeypatch.setattr(RunWriter, "append", refuse)
    monkeypatch.setattr(local_executor, "TICK_SECONDS", 0.0)
    at_step(2, lambda: signal.raise_signal(signal.SIGUSR1))
    one = drive(moods("slow", "good", scheduler="none"))
    with pytest.raises(RunWriteError, match="No space left"):
        one.search()
    assert one.of(events.TrialFailed) == []
    assert [trial.state for trial in read_run(one.path).trials] == ["interrupted"]


def test_trials_are_put_into_brackets_by_draws_that_no_training_disturbs(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training seeds numpy's generator, from which Ray draws the brackets."""
    choice, drawn = np.random.choice, list[tuple[int, list[float], int]]()

    def noted(count: int, p: list[float]) -> int:
        drawn.append((count, p, int(choice(count, p=p))))
        return drawn[-1][-1]

    monkeypatch.setattr(np.random, "choice", noted)
    run_tiny(space("random", "hyperband"))
    alone = np.random.RandomState(derive(0, Stream.SAMPLER))
    assert [number for *_, number in drawn] == [alone.choice(count, p=p) for count, p, _ in drawn]
    assert len(drawn) == 6
