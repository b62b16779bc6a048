"""How the end of a run is written: in words that say why, whatever ended it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mnistlab import events
from mnistlab.driving import Drive, ticker, to_the_end
from mnistlab.errors import ExitCode
from mnistlab.signals import Requests
from mnistlab.tuning.disk import DiskLowError
from mnistlab.tuning.pulse import ClusterLostError

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
        (4, ExitCode.NO_TRIAL_SUCCEEDED, "no trial succeeded"),
    ],
)
def test_a_run_in_which_the_same_thing_goes_wrong_ends_with_a_code_of_its_own(
    failed: int, code: ExitCode, outcome: str
) -> None:
    told = list[events.Event]()
    trials = [SimpleNamespace(state="failed", cause="plugin")] * failed
    writer = SimpleNamespace(seconds=3.0)
    run = SimpleNamespace(requests=Requests(), emit=told.append, trials=trials, writer=writer, searching=True)
    end = to_the_end(cast("Drive", run), lambda: None)
    assert told == [end]
    assert (end.outcome, end.exit_code, end.counts) == (outcome, code, {"failed": failed})


def test_each_turn_of_a_drivers_loop_flushes_what_has_waited(tmp_path: Path) -> None:
    flushed = list[int]()
    writer = SimpleNamespace(path=tmp_path, flush_what_waits=lambda: flushed.append(1))
    run = SimpleNamespace(requests=Requests(), emit=lambda _: None, writer=writer)
    tick = ticker(cast("Drive", run))
    tick()
    tick()
    assert flushed == [1, 1]
