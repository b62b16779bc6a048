"""The ensemble of a confirmation that is cut off, breaks or is gone on with: scored once, in its own opening."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mnistlab.events import Warned
from mnistlab.leaderboard import rank
from mnistlab.store import RunWriter
from mnistlab.store.jsonl import encode_line
from mnistlab.tuning import opening
from mnistlab.tuning.worker.ensemble import EnsembleAnswer
from mnistlab.tuning.worker.replicate import TestAnswer, TestTask
from tests.tuning import test_confirm_cut as cut
from tests.tuning.test_confirm_cut import TRIALS

pytestmark = pytest.mark.simulated
make_run = cut.make_run


class Died(BaseException):
    """The driver is gone."""


def die_at(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    """Have the driver die just before it writes the first entry of that type into the test ledger."""
    append = RunWriter.append_ledger

    def append_or_die(writer: RunWriter, said: Any) -> None:
        if said["type"] == entry:
            raise Died
        append(writer, said)

    monkeypatch.setattr(RunWriter, "append_ledger", append_or_die)


def test_an_ensemble_that_was_cut_off_is_evaluated_without_another_opening(make_run, monkeypatch) -> None:
    run = make_run("run")
    with monkeypatch.context() as patch:
        die_at(patch, "ensemble")
        with pytest.raises(Died):
            run.confirm(TRIALS[:1], top=1, seeds=3)
    assert run.ledger() == ["opened", *["evaluated"] * 3]
    assert (run.record.ensemble, run.record.ensemble_due) == (None, "0000")
    record = run.confirm(TRIALS[:1], top=1, seeds=3)
    assert run.ledger() == ["opened", *["evaluated"] * 3, "ensemble"]
    assert record.test_openings == 1
    assert record.ensemble
    assert (record.ensemble.replicates, record.ensemble.test) == ((1, 2, 3), cut.TOGETHER.test)
    assert run.confirm(TRIALS[:1], top=1, seeds=3) == record
    assert "tested together" in (run.path / "trials" / "0000" / "log.txt").read_text()


def test_what_was_cut_off_among_its_models_is_evaluated_whole_in_the_next_opening(make_run, monkeypatch) -> None:
    run = make_run("run")
    with monkeypatch.context() as patch:
        die_at(patch, "evaluated")
        with pytest.raises(Died):
            run.confirm(TRIALS[:1], top=1, seeds=2)
    record = run.confirm(TRIALS[:1], top=1, seeds=2)
    assert run.ledger() == ["opened", "opened", "evaluated", "evaluated", "ensemble"]
    assert (record.test_openings, record.ensemble_due) == (2, "")


def test_an_ensemble_that_breaks_is_said_and_not_tried_again(make_run, monkeypatch) -> None:
    run = make_run("run")
    broken = EnsembleAnswer(cause="plugin", message="no")
    with monkeypatch.context() as patch:
        patch.setattr("tests.tuning.test_confirm_cut.TOGETHER", broken)
        record = run.confirm(TRIALS[:1], top=1, seeds=2)
    assert (record.ensemble, record.ensemble_due) == (None, "")
    assert run.ledger()[-1] == "ensemble_failed"
    assert [one.message for one in run.of(Warned)] == ["the seeds of trial 0000 could not be evaluated together: no"]
    assert run.confirm(TRIALS[:1], top=1, seeds=2) == record
    more = run.confirm(TRIALS[:1], top=1, seeds=3)  # more seeds are another ensemble
    assert more.ensemble
    assert more.ensemble.replicates == (1, 2, 3)


def test_a_seed_whose_weights_are_gone_costs_the_ensemble_and_not_the_run(make_run) -> None:
    run = make_run("run")
    run.confirm(TRIALS[:1], top=1, seeds=2)
    (run.path / "trials/0000/replicates/1/weights.safetensors").unlink()
    record = run.confirm(TRIALS[:1], top=1, seeds=3)
    assert all(one.test for one in record.replicates)
    assert run.ledger()[-1] == "ensemble_failed"
    assert "could not be evaluated together: can't read" in run.of(Warned)[-1].message
    assert record.ensemble
    assert record.ensemble.replicates == (1, 2)  # what was scored before stays


def test_a_model_that_broke_on_the_test_set_is_no_member(make_run, monkeypatch) -> None:
    def run_but_one(search: Any, function: Any, tasks: Any, **about: Any) -> Iterator[Any]:
        for task, answer in cut.run_tasks(search, function, tasks, **about):
            broken = isinstance(task, TestTask) and task.replicate.replicate == 2
            yield task, TestAnswer(cause="plugin", message="no") if broken else answer

    run = make_run("run")
    monkeypatch.setattr(opening, "run_tasks", run_but_one)
    record = run.confirm(TRIALS[:1], top=1, seeds=3)
    assert record.ensemble
    assert record.ensemble.replicates == (1, 3)


def test_the_ensemble_is_that_of_the_plan_which_validation_chose(make_run) -> None:
    run = make_run("run")
    record = run.confirm(TRIALS, top=3, seeds=2, metric="val_accuracy")
    assert record.ensemble
    assert record.ensemble.trial == rank(record).champion.trial == "0000"


def test_a_run_of_before_there_were_any_has_none(make_run) -> None:
    run = make_run("run")
    run.confirm(TRIALS[:1], top=1, seeds=2)
    lines = (run.path / "test_ledger.jsonl").read_bytes().splitlines(keepends=True)
    old = [{key: value for key, value in one.items() if key != "ensemble"} for one in read_lines_of(lines)]
    (run.path / "test_ledger.jsonl").write_bytes(b"".join(map(encode_line, old)))
    record = run.confirm(TRIALS[:1], top=1, seeds=2)
    assert (record.ensemble, record.ensemble_due, record.test_openings) == (None, "", 1)
    assert run.confirm(TRIALS[:1], top=1, seeds=3).ensemble.replicates == (1, 2, 3)


def read_lines_of(lines: list[bytes]) -> list[dict[str, Any]]:
    """The entries of a ledger as earlier versions wrote it."""
    entries = [dict(json.loads(line)) for line in lines]
    return [{k: v for k, v in one.items() if k != "crc"} for one in entries if one["type"] != "ensemble"]
