"""A run in which no trial succeeded says why, at its end and in every command that shows it afterwards."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from mnistlab import events
from mnistlab.store import RunWriter, create_run
from tests.cli.test_leaderboard import RUN
from tests.conftest import RunCli
from tests.console.conftest import run_started

WHY = "no trial succeeded: the time budget of 10s ran out while the workers were starting"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose time budget was spent before any trial began."""
    path = create_run(tmp_path / "runs", "hasty", datetime(2026, 11, 22, tzinfo=UTC))
    writer = RunWriter(path)
    writer.write_run({"run": path.name, **RUN})
    writer.append(run_started(time_budget=0.001))  # the run that the test writes takes a moment only
    writer.append(events.RunFinished(outcome=WHY, exit_code=1, counts={}, seconds=16.0))
    writer.close()
    return path


@pytest.mark.parametrize("command", ["leaderboard", "status"])
def test_why_nothing_succeeded_and_what_to_do_is_printed(command: str, run: Path, run_here: RunCli) -> None:
    said = run_here(command, run, COLUMNS="250").out
    assert WHY in said
    assert f"Next: mnistlab resume {run} --time-budget " in said
