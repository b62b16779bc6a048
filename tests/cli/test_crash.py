"""The command from end to end: a search whose driver dies in the middle of a write, twice, loses nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from mnistlab.store import durable, read_run
from mnistlab.store.fsck import check, repair
from tests.cli.starting import check_whole, end, run_of, start

pytestmark = pytest.mark.simulated


def dies_at(point: str, home: Path, *arguments: str) -> None:
    code, _, err = end(start(home, *arguments, **{durable.CRASH_AT: point}))
    assert code == -signal.SIGKILL, err


def test_a_driver_that_dies_between_a_result_and_its_event_and_then_in_an_event_loses_nothing(home: Path) -> None:
    # The third rename is that of a second result.
    dies_at("after-replace:3", home, "search", "tiny.toml")
    run = run_of(home)
    (found,) = check(run).findings
    assert (found.level, found.mend) == ("note", "tell")
    (told,) = repair(run)
    assert "tells the end of trial" in told
    ended = {one.trial: one for one in read_run(run).trials}
    assert len(ended) == 2
    dies_at("mid-write:8", home, "resume", run.name)
    report = check(run)
    assert report.sound, report.findings
    assert [one.mend for one in report.findings] == ["tail"]
    code, _, err = end(start(home, "resume", run.name))
    assert code == 0, err
    check_whole(home)
    assert check(run).findings == ()
    assert ended.items() <= {one.trial: one for one in read_run(run).trials}.items()
