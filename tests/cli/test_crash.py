"""The command from end to end: a search whose driver dies in the middle of a write, twice, loses nothing."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from mnistlab import durable
from mnistlab.fsck import check, repair
from mnistlab.store import read_run
from tests.cli.test_resume import check_whole, end, home, of_ours, run_of, start

__all__ = ["home"]  # a fixture

pytestmark = pytest.mark.e2e


def dies_at(point: str, home: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    with monkeypatch.context() as patch:
        patch.setenv(durable.CRASH_AT, point)
        code, _, err = end(start(home, *arguments))
    assert code == -signal.SIGKILL, err
    deadline = time.monotonic() + 60
    while of_ours(home):  # a Ray whose driver has died goes by itself
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_driver_that_dies_between_a_result_and_its_event_and_then_in_an_event_loses_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One trial at a time: which ones end is then known. The third rename is that of a second result.
    dies_at("after-replace:3", home, monkeypatch, "search", "tiny.toml", "--set", "resources.max_parallel=1")
    run = run_of(home)
    (found,) = check(run).findings
    assert (found.level, found.mend) == ("note", "tell")
    (told,) = repair(run)
    assert "tells the end of trial" in told
    ended = {one.trial: one for one in read_run(run).trials}
    assert len(ended) == 2
    dies_at("mid-write:8", home, monkeypatch, "resume", run.name)
    report = check(run)
    assert report.sound, report.findings
    assert [one.mend for one in report.findings] == ["tail"]
    code, _, err = end(start(home, "resume", run.name))
    assert code == 0, err
    check_whole(home)
    assert check(run).findings == ()
    assert ended.items() <= {one.trial: one for one in read_run(run).trials}.items()
