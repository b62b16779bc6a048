"""How the end of a run is written: in words that say why, whatever ended it."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mnistlab import events
from mnistlab.errors import ExitCode, RunDirectoryError
from mnistlab.experiment.spec import SearchSpec
from mnistlab.tuning.outcome import common_failure
from mnistlab.tuning.ray.heartbeat import ClusterLostError
from mnistlab.tuning.session import Drive, ticker, to_the_end, why_none
from mnistlab.tuning.usage import DiskLowError
from mnistlab.util.signals import Requests

SHORT = (
    "only 3 MiB are free on the disk of runs/x,\n and nothing is running any more: free some, then `mnistlab resume`"
)

LOST = "broken off: Ray's raylet ended"  # what can be done about it is no part of the record


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DiskLowError(SHORT), ExitCode.RESOURCES_VANISHED, f"broken off: {' '.join(SHORT.split())}"),
        (ClusterLostError("Ray's raylet ended", "mnistlab resume x"), ExitCode.RESOURCES_VANISHED, LOST),
        (KeyError("width"), ExitCode.INTERNAL, "broken off: internal error, KeyError: 'width'"),
        (ValueError("x" * 900), ExitCode.INTERNAL, f"broken off: internal error, ValueError: {'x' * 500}"),
    ],
)
def test_a_run_that_is_broken_off_says_why(error: Exception, code: ExitCode, said: str) -> None:
    told = list[events.Event]()
    writer = SimpleNamespace(seconds=3.0)
    run = cast("Drive", SimpleNamespace(requests=Requests(), emit=told.append, trials=[], writer=writer))

    def work() -> Any:
        raise error

    with pytest.raises(type(error)):
        to_the_end(run, work)
    assert told == [events.RunFinished(outcome=said, exit_code=int(code), counts={}, seconds=3.0)]


@pytest.mark.parametrize(
    ("failed", "code", "outcome"),
    [
        (5, ExitCode.TOO_MANY_FAILURES, "stopped: cause 'plugin' in 5 of the first 8 trials"),
        (4, ExitCode.NO_TRIAL_SUCCEEDED, "no trial succeeded: 4 trials failed (plugin 4)"),
    ],
)
def test_a_run_in_which_the_same_thing_goes_wrong_ends_with_a_code_of_its_own(
    failed: int, code: ExitCode, outcome: str
) -> None:
    told = list[events.Event]()
    trials = [SimpleNamespace(state="failed", cause="plugin")] * failed
    writer = SimpleNamespace(seconds=3.0)
    why = common_failure(cast("Any", trials))
    spec = SimpleNamespace(search=SearchSpec(trials=8))
    run = SimpleNamespace(requests=Requests(), emit=told.append, trials=trials, writer=writer, given_up=why)
    run.searching, run.experiment = True, SimpleNamespace(spec=spec)
    end = to_the_end(cast("Drive", run), lambda: None)
    assert told == [end]
    assert (end.outcome, end.exit_code, end.counts) == (outcome, code, {"failed": failed})


TRIALS = {
    "failed": SimpleNamespace(state="failed", cause="nan"),
    "lost": SimpleNamespace(state="failed", cause=""),
    "pruned": SimpleNamespace(state="pruned", cause=""),
    "cut": SimpleNamespace(state="interrupted", cause=""),
}


@pytest.mark.parametrize(
    ("ended", "spent", "begun", "said"),
    [
        ([], 10.0, False, "the time budget of 10s ran out while the workers were starting"),
        ([], 10.0, True, "the time budget of 10s ran out before a trial could use its full budget"),
        (["cut"], 90.0, True, "the time budget of 1m30s ran out before a trial could use its full budget"),
        (
            ["failed", "pruned", "cut"],
            90.0,
            True,
            "the time budget of 1m30s ran out before a trial could use its full budget; "
            "1 trial failed (nan 1); 1 trial pruned",
        ),
        (["failed", "failed", "lost"], 90.0, True, "3 trials failed (nan 2, unknown 1)"),  # it was over before
        (["failed"], 0.0, True, "1 trial failed (nan 1)"),
        (["pruned", "pruned"], 0.0, True, "2 trials pruned"),
        (["cut"], 0.0, True, "1 trial interrupted"),
        ([], 0.0, False, "no trial was started"),
    ],
)
def test_a_search_without_a_success_says_why(ended: list[str], spent: float, begun: bool, said: str) -> None:
    assert why_none(cast("Any", [TRIALS[one] for one in ended]), 3, spent, begun=begun) == said


@pytest.mark.parametrize(("seconds", "said"), [(12.0, "the time budget of 10s ran out while"), (9.0, "no trial was")])
def test_only_a_time_budget_that_is_spent_is_a_reason(seconds: float, said: str) -> None:
    writer = SimpleNamespace(seconds=seconds)
    run = SimpleNamespace(requests=Requests(), emit=lambda _: None, trials=[], writer=writer, given_up=None)
    run.searching, run.experiment = True, SimpleNamespace(spec=SimpleNamespace(search=SearchSpec(time_budget=10.0)))
    end = to_the_end(cast("Drive", run), lambda: None)
    assert end.outcome.startswith(f"no trial succeeded: {said}")


def test_each_turn_of_a_drivers_loop_flushes_what_has_waited(tmp_path: Path) -> None:
    flushed = list[int]()
    writer = SimpleNamespace(path=tmp_path, flush_what_waits=lambda: flushed.append(1))
    run = SimpleNamespace(requests=Requests(), emit=lambda _: None, writer=writer)
    tick = ticker(cast("Drive", run))
    tick()
    tick()
    assert flushed == [1, 1]


def test_each_turn_of_a_drivers_loop_asks_whether_ray_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise ClusterLostError("Ray's raylet ended", "mnistlab resume x")

    monkeypatch.setattr("mnistlab.tuning.session.check_pulse", gone)
    run = SimpleNamespace(writer=SimpleNamespace(path=tmp_path))
    with pytest.raises(ClusterLostError):
        ticker(cast("Drive", run))()


def test_a_confirmation_does_not_end_for_what_went_wrong_in_the_search() -> None:
    trials = [*[SimpleNamespace(state="failed", cause="plugin")] * 5, SimpleNamespace(state="complete")]
    writer = SimpleNamespace(seconds=3.0)
    run = Drive(
        cast("Any", None), cast("Any", None), cast("Any", None), cast("Any", writer), Requests(), lambda _: None
    )
    run = replace(run, trials=cast("Any", trials), searching=False)
    end = to_the_end(run, lambda: None)
    assert (end.outcome, end.exit_code) == ("done", ExitCode.DONE)


def begun(emit: events.Emit) -> Drive:
    """A run in which a trial has been started, so that the first Ctrl-C asks and does not insist."""
    requests, writer = Requests(), SimpleNamespace(seconds=3.0)
    requests.begun = True
    trials = [SimpleNamespace(state="complete")]
    return cast("Drive", SimpleNamespace(requests=requests, emit=emit, trials=trials, writer=writer, given_up=None))


def test_a_ctrl_c_while_the_end_is_shown_breaks_off_nothing() -> None:
    told = list[events.Event]()

    def show(event: events.Event) -> None:
        told.append(event)
        run.requests.receive(signal.SIGINT, None)

    run = begun(show)
    end = to_the_end(run, lambda: None)
    assert told == [end]
    assert (end.exit_code, run.requests()) == (ExitCode.DONE, False)


def test_a_ctrl_c_after_a_run_was_broken_off_changes_nothing() -> None:
    run = begun(lambda _: None)
    with pytest.raises(DiskLowError):
        to_the_end(run, fails)
    run.requests.receive(signal.SIGINT, None)
    assert not run.requests()


@pytest.mark.parametrize("trials", [False, True])
def test_a_ctrl_c_while_it_is_said_that_a_run_was_broken_off_does_not_hide_why(trials: bool) -> None:
    def show(_: events.Event) -> None:
        run.requests.receive(signal.SIGINT, None)
        run.requests.receive(signal.SIGINT, None)

    run = begun(show)
    run.requests.begun = trials
    with pytest.raises(DiskLowError):
        to_the_end(run, fails)


def test_where_the_end_cannot_be_written_either_the_first_error_is_the_one_that_is_raised() -> None:
    def full(_: events.Event) -> None:
        raise RunDirectoryError("can't write events.jsonl: No space left on device")

    with pytest.raises(DiskLowError, match="only 3 MiB are free"):
        to_the_end(begun(full), fails)


def fails() -> None:
    raise DiskLowError(SHORT)
