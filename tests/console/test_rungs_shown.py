"""Trials that wait at a rung and are promoted: what lines, counts and the ranking say of them."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import pytest

from mnistlab import events as ev
from mnistlab.console.dashboard.frame import frame
from mnistlab.console.dashboard.glyphs import ASCII
from mnistlab.console.dashboard.viewport import Look
from mnistlab.console.plain import heartbeat, line
from mnistlab.console.state import ViewState, advance
from mnistlab.leaderboard import rank
from mnistlab.store.results import RungResult, RunRecord, TrialResult
from tests.console.conftest import metrics, run_started, stamp

START = run_started(algorithm="auto", scheduler="halving", rungs=(0.5, 2.0, 8.0))
FIRST = ev.TrialStarted(trial="0000", number=0, seed=1, label="cnn", plan={}, budget=0.5)
WAITS = ev.TrialPaused(trial="0000", rung=0, budget=0.5, metrics=metrics(0.97), seconds=9.0)
SECOND = ev.TrialStarted(
    trial="0000", number=0, seed=1, label="cnn", plan={}, attempt=2, rung=1, budget=2.0, waited="paused"
)
TOP = ev.TrialStarted(trial="0000", number=0, seed=1, label="cnn", plan={}, attempt=3, rung=2, waited="paused")
PRUNED = ev.TrialPruned(trial="0000", epoch=1, metrics=metrics(0.97), seconds=9.0)


def told(*happened: ev.Event) -> tuple[ViewState, str]:
    """Return the state after events, and the line of the last of them."""
    stamped = stamp([(float(t), event) for t, event in enumerate(happened)])
    state = reduce(advance, stamped, ViewState())
    return state, line(stamped[-1], state) or ""


def test_lines_say_where_a_trial_waits_and_how_far_it_is_promoted():
    assert "trial 0000 waits at rung 0: val_accuracy 97.00 % after 0.5 epochs, 9.0s" in told(START, FIRST, WAITS)[1]
    assert "trial 0000 promoted to 2 epochs: cnn" in told(START, FIRST, WAITS, SECOND)[1]
    assert "trial 0000 promoted to 8 epochs: cnn" in told(START, FIRST, WAITS, TOP)[1]
    assert "halving at 0.5, 2 and 8 epochs" in told(START)[1]
    pruned = "trial 0000 pruned: val_accuracy 97.00 % after 0.5 epochs, 9.0s"
    assert pruned in told(START, FIRST, WAITS, replace(PRUNED, epochs=0.5))[1]
    assert "after 1 epoch, 9.0s" in told(START, FIRST, WAITS, PRUNED)[1]  # an older stream


@pytest.mark.parametrize(
    ("happened", "running", "paused", "pruned", "queued"),
    [
        ((FIRST,), 1, 0, 0, 15),
        ((FIRST, WAITS), 0, 1, 0, 15),
        ((FIRST, WAITS, SECOND), 1, 0, 0, 15),
        ((FIRST, WAITS, PRUNED), 0, 0, 1, 15),
        ((FIRST, WAITS, SECOND, SECOND), 1, 0, 0, 15),
    ],
)
def test_a_trial_that_waits_is_neither_running_nor_queued_nor_over(happened, running, paused, pruned, queued):
    state, _ = told(START, *happened)
    assert (len(state.running), state.paused, state.pruned, state.queued) == (running, paused, pruned, queued)


def test_a_trial_of_an_earlier_driver_that_is_promoted_is_no_longer_pruned():
    resumed = ev.RunResumed(command="", trials=16, parallel=2, devices="2 CPUs", counts={"pruned": 1, "paused": 2})
    promoted = ev.TrialStarted(trial="0000", number=0, seed=1, label="cnn", plan={}, rung=1, waited="pruned")
    state, _ = told(START, FIRST, WAITS, PRUNED, resumed, promoted)
    assert (state.pruned, state.paused, len(state.running)) == (0, 2, 1)
    again = ev.TrialStarted(trial="0003", number=3, seed=1, label="cnn", plan={}, attempt=2, rung=1)  # had been running
    assert told(START, FIRST, WAITS, PRUNED, resumed, again)[0].paused == 2


def test_heartbeat_and_dashboard_count_those_that_wait():
    state, _ = told(START, FIRST, WAITS)
    assert "1 waiting at a rung" in heartbeat(state)
    shown = "\n".join(text.plain for text in frame(state, 10.0, Look(120, 40, ASCII)))
    assert "1 waiting at a rung" in shown
    assert "the best at each rung are promoted" in shown
    assert "halving at 0.5, 2 and 8 epochs" in shown


def test_the_ranking_says_half_an_epoch_where_it_was_half():
    def waited(number: int, budget: float) -> TrialResult:
        rung = RungResult(rung=0, budget=budget, metrics=metrics(0.9), seconds=1.0)
        plan = {"training": {"epochs": 8}}
        return TrialResult(
            trial=f"{number:04}", number=number, state="pruned", seed=0, plan=plan, label="", history=(metrics(0.9),),
            metrics=metrics(0.9), budget=budget, rungs=(rung,),
        )  # fmt: skip

    run = {"run": "x", "metric": "val_accuracy", "metrics": ["val_accuracy"], "rule": "", "dataset": {"name": "mnist"}}
    board = rank(RunRecord(path="runs/x", run=run, trials=(waited(0, 0.5), waited(1, 1.0)), replicates=()))
    assert [(row.trial, row.epochs * row.part, row.budget) for row in board.rows] == [("0001", 1, 8), ("0000", 0.5, 8)]
