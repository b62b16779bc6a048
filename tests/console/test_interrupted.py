"""A trial that was cut short is called so in every view, and is not mistaken for one that the scheduler gave up."""

from __future__ import annotations

from functools import reduce

import pytest

from mnistlab import events as ev
from mnistlab.console.dashboard.frame import frame
from mnistlab.console.dashboard.glyphs import ASCII
from mnistlab.console.dashboard.viewport import Look
from mnistlab.console.plain import counts_text, line
from mnistlab.console.state import ViewState, advance
from mnistlab.console.status import as_record
from tests.console.conftest import metrics


@pytest.fixture
def cut(recording, stamped) -> list[ev.Stamped]:
    """Two trials run when Ctrl-C comes: one has reported an epoch, the other nothing yet."""
    label = "mlp width=64 · sgd lr=0.1"
    timed = [(one.t, one.event) for one in recording[:5]]
    timed += [
        (61.0, ev.StopAsked(signal="SIGINT")),
        (62.0, ev.TrialStarted(trial="0002", number=2, seed=3, label=label, plan={})),
        (63.0, ev.TrialPruned(trial="0001", epoch=1, metrics=metrics(0.9), seconds=61.5)),
        (64.0, ev.TrialInterrupted(trial="0000", epoch=2, metrics=metrics(0.98), seconds=63.0, reason="Ctrl-C")),
        (64.5, ev.TrialInterrupted(trial="0002", epoch=0, metrics={}, seconds=2.5, reason="Ctrl-C")),
    ]
    return stamped(timed)


def test_the_fold_counts_them_apart(cut):
    state = reduce(advance, cut, ViewState())
    assert (state.complete, state.pruned, state.interrupted, state.failed, state.finished) == (0, 1, 2, 0, 1)
    assert state.queued == 16 - 1 - 2
    assert state.running == {}
    assert [(one.trial, one.state, one.epoch) for one in state.recent][1:] == [
        ("0000", "interrupted", 2),
        ("0002", "interrupted", 0),
    ]


def test_the_second_signal_is_answered_at_once(cut, stamped):
    state = reduce(advance, cut, ViewState())
    (insisted,) = stamped([(65.0, ev.StopAsked(signal="SIGINT", at_once=True))])
    after = advance(state, insisted)
    assert line(insisted, after) == (
        "[ 1m05s] SIGINT: stopping at once; what runs is cut short, and what was written is kept"
    )
    shown = ["\n".join(row.plain for row in frame(one, 65.0, Look(120, 40, ASCII))) for one in (state, after)]
    assert ["Ctrl-C again stops at once" in text for text in shown] == [True, False]
    assert "stopping (SIGINT): at once: what runs is cut short" in shown[1]


def test_a_line_says_why(cut):
    state, said = ViewState(), []
    for stamped in cut:
        state = advance(state, stamped)
        said.append(line(stamped, state))
    assert said[-2:] == [
        "[ 1m04s] trial 0000 interrupted (Ctrl-C): val_accuracy 98.00 % after 2 epochs, 1m03s (1 of 16 finished)",
        "[ 1m04s] trial 0002 interrupted (Ctrl-C): val_accuracy - after 0 epochs, 2.5s (1 of 16 finished)",
    ]


@pytest.mark.parametrize("width", [60, 120])
def test_the_dashboard_counts_and_lists_them(cut, width):
    state = reduce(advance, cut, ViewState())
    text = "\n".join(row.plain for row in frame(state, 65.0, Look(width, 40, ASCII)))
    assert "v 1 pruned | = 2 interrupted" in text
    assert "0000   = interrupted" in text


def test_the_record_of_the_status_holds_the_count(cut):
    trials = as_record(reduce(advance, cut, ViewState()), 65.0, running=True)["trials"]
    assert (trials["pruned"], trials["interrupted"]) == (1, 2)


def test_the_end_counts_them():
    assert counts_text({"complete": 2, "interrupted": 3, "failed": 0}) == "2 complete, 3 interrupted"


@pytest.fixture
def gone_on(cut, stamped) -> list[ev.Stamped]:
    """The same run, ended and then gone on with: one trial is taken up after an epoch, one from its beginning."""
    timed = [(one.t, one.event) for one in cut]
    again = {"label": "mlp", "plan": {}, "seed": 1, "attempt": 2}
    timed += [
        (65.0, ev.RunInterrupted(reason="SIGINT")),
        (65.0, ev.RunFinished(outcome="interrupted", exit_code=130, counts={"pruned": 1}, seconds=65.0)),
        (66.0, ev.RunPreparing(run="quick-1", step="starting Ray")),
        (
            68.0,
            ev.RunResumed(
                command="mnistlab resume quick-1",
                trials=20,
                parallel=3,
                devices="3 CPUs",
                counts={"pruned": 1},
                again=("0000", "0002"),
                changes={"search.trials": 20},
                amended={"training.batch_size": [256, 512], "model.cnn": {"depth": 2}},
                record=2,
            ),
        ),
        (69.0, ev.TrialStarted(trial="0000", number=0, epoch=1, **again)),
        (69.2, ev.TrialStarted(trial="0002", number=2, **again)),
        (75.0, ev.TrialEpoch(trial="0000", epoch=2, epochs=8, metrics=metrics(0.97))),
    ]
    return stamped(timed)


def test_a_run_that_goes_on_counts_what_stays_and_shows_what_runs(gone_on):
    state = reduce(advance, gone_on, ViewState())
    assert (state.phase, state.end, state.stop_asked, state.interruption) == ("search", None, "", "")
    assert (state.pruned, state.interrupted, state.finished, state.total) == (1, 0, 1, 20)
    assert {name: one.epoch for name, one in state.running.items()} == {"0000": 2, "0002": 0}
    assert state.start is not None
    assert (state.start.parallel, state.start.devices) == (3, "3 CPUs")
    text = "\n".join(row.plain for row in frame(state, 76.0, Look(120, 40, ASCII)))
    assert "interrupted" not in text
    assert [one.trial for one in state.recent] == ["0001"]


def test_lines_say_what_goes_on_from_where(gone_on):
    state, said = ViewState(), []
    for stamped in gone_on:
        state = advance(state, stamped)
        said.append(line(stamped, state))
    assert said[-4:-1] == [
        "[ 1m08s] going on with the run: 1 pruned; 2 trials taken up again (0000 and 0002); up to 20 trials in all, "
        "3 at a time on 3 CPUs; search.trials = 20; more to choose from: training.batch_size: 256 and 512; "
        "more to choose from: [model.cnn]",
        "[ 1m09s] trial 0000 goes on after 1 epoch (attempt 2): mlp",
        "[ 1m09s] trial 0002 starts again (attempt 2): mlp",
    ]
