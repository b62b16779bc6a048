"""The command from end to end: a search whose driver is killed, or asked to stop, is gone on with to its end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from mnistlab import events
from mnistlab.store import RunWriter, read_events, read_run
from mnistlab.store.jsonl import encode_file
from tests.cli.starting import check_whole, end, run_of, start, wait_for

pytestmark = pytest.mark.simulated


def test_a_killed_search_is_gone_on_with_and_says_what_to_type(home: Path) -> None:
    search = start(home, "search", "tiny.toml")
    wait_for(home, "trial_finished")
    search.send_signal(signal.SIGKILL)
    assert f"go on with `mnistlab resume {run_of(home).relative_to(home)}" in search.communicate()[1]
    ended = {one.trial: one for one in read_run(run_of(home)).trials}
    code, out, err = end(start(home, "resume", run_of(home).name))
    assert code == 0, err
    assert "going on with the run: " in err
    assert "leads with mean test accuracy" in out
    check_whole(home)
    assert ended.items() <= {one.trial: one for one in read_run(run_of(home)).trials}.items()


def test_once_it_is_over_nothing_is_left_to_do_and_nothing_is_written(finished: Path) -> None:
    before = (run_of(finished) / "events.jsonl").read_bytes()
    code, _, err = end(start(finished, "resume", run_of(finished).name))
    assert (code, (run_of(finished) / "events.jsonl").read_bytes()) == (0, before)
    assert "nothing is left to do: each of 2 trials has ended" in err


def test_a_search_that_was_asked_to_stop_says_how_it_goes_on_and_does(
    asked_to_stop: tuple[Path, str], interrupted: Path
) -> None:
    run = run_of(interrupted)
    assert f"Next: mnistlab resume {run.relative_to(interrupted)}" in asked_to_stop[1]
    code, _, err = end(start(interrupted, "resume", run.name, "--trials", "5"))
    assert code == 0, err
    check_whole(interrupted)
    (resumed,) = [s.event for s in read_events(run) if isinstance(s.event, events.RunResumed)]
    assert resumed.changes == {"search.trials": 5}
    assert resumed.again


def test_what_would_make_it_another_search_is_refused(finished: Path) -> None:
    run = run_of(finished)
    before = (run / "events.jsonl").read_bytes()
    for change in ("training.epochs=9", "model.mlp.depth=3", "search.metric=val_loss"):
        code, _, err = end(start(finished, "resume", run.name, "--set", change))
        assert code == 2
        assert f"--set {change}" in err
        assert "search.trials, search.time_budget, the two time-outs of a trial and resources can" in err
    code, _, err = end(start(finished, "retry", run.name))
    assert code == 2
    assert "say --failed" in err
    holder = RunWriter(run)
    try:
        code, _, err = end(start(finished, "resume", run.name, "--trials", "3"))
    finally:
        holder.close()
    assert code == 6
    assert f"is in use by process {os.getpid()}" in err
    assert f"mnistlab watch runs/{run.name}" in err
    assert (run / "events.jsonl").read_bytes() == before
    code, _, err = end(start(finished, "resume", "tiny-2020", "--trials", "3"))
    assert code == 2
    assert f"did you mean '{run.name}'?" in err


def test_a_run_that_died_just_before_its_end_gets_that_and_nothing_else(finished: Path) -> None:
    run = run_of(finished)
    lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    *_, before = [stamped.event for stamped in read_events(run)]
    assert isinstance(before, events.RunFinished)
    (run / "events.jsonl").write_bytes(b"".join(lines[:-1]))
    code, out, err = end(start(finished, "resume", ".", cwd=run))
    assert code == 0, err
    *_, last, stamped = read_events(run)
    over = stamped.event
    assert not isinstance(last.event, events.RunPreparing | events.RunResumed)
    assert isinstance(over, events.RunFinished)
    assert (over.outcome, over.exit_code, over.counts) == ("done", 0, before.counts)
    assert 0 <= over.seconds - last.t < 5  # the time in which nobody drove it is not the run's
    assert "the driver died before it could write the end of the run: it is written now; nothing is left to do" in err
    assert "leads with mean test accuracy" in out
    count = len(list(read_events(run)))
    code, _, err = end(start(finished, "resume", run.name))
    assert (code, len(list(read_events(run)))) == (0, count)
    assert "written now" not in err


def test_a_run_that_died_while_the_test_set_was_open_gets_its_scores(finished: Path) -> None:
    run = run_of(finished)
    # What SIGKILL leaves just after the ledger has said that the test set is open: results without scores, no end.
    ledger = (run / "test_ledger.jsonl").read_bytes().splitlines(keepends=True)
    (run / "test_ledger.jsonl").write_bytes(ledger[0])
    for path in run.glob("trials/*/replicates/*/result.json"):
        body = json.loads(path.read_bytes()) | {"test": None, "test_correct": ""}
        path.write_bytes(encode_file({key: value for key, value in body.items() if key != "crc"}))
    events_ = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    (run / "events.jsonl").write_bytes(b"".join(line for line in events_ if b'"type":"run_finished"' not in line))
    code, out, err = end(start(finished, "resume", run.name))
    assert code == 0, err
    assert all(one.test for one in read_run(run).replicates)
    assert "the test set was opened 2 times" in out
