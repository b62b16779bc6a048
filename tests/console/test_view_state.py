from __future__ import annotations

from functools import reduce

from mnistlab import events as ev
from mnistlab.console import html
from mnistlab.console.dashboard.frame import frame
from mnistlab.console.dashboard.glyphs import ASCII
from mnistlab.console.dashboard.tables import confirmation_text
from mnistlab.console.dashboard.viewport import Look
from mnistlab.console.state import LEADERS, WARNINGS, ViewState, advance
from mnistlab.console.status import as_record


def fold(recording: list[ev.Stamped]) -> ViewState:
    return reduce(advance, recording, ViewState())


def test_the_fold_of_a_whole_run(recording):
    state = fold(recording)
    assert (state.phase, state.t, state.running) == ("over", 173.0, {})
    assert (state.complete, state.pruned, state.failed, state.finished, state.total) == (1, 1, 1, 3, 16)
    assert state.best is not None
    assert (state.best.trial, state.best.value) == ("0000", 0.9912)
    assert state.failures == {"nan": 1, "memory": 1}
    assert {key: (one.state, one.value) for key, one in state.replicates.items()} == {
        ("0000", 1): ("done", 0.99),
        ("0000", 2): ("failed", None),
    }
    assert [(one.trial, one.state) for one in state.recent] == [
        ("0001", "pruned"),
        ("0002", "failed"),
        ("0000", "complete"),
    ]
    assert state.warnings == ("the time budget is nearly used up",)
    assert (state.openings, state.interruption) == (1, "Ctrl-C")
    assert state.label("0000") == "cnn depth=3 · adamw lr=0.003"


def test_a_running_trial_shows_its_last_epoch(recording):
    state = fold(recording[:6])
    running = state.running["0000"]
    assert (running.epoch, running.epochs, running.value, running.started) == (2, 8, 0.98, 1.0)
    assert running.images_per_second == 12_345.6


def test_a_fold_changes_no_earlier_state(recording):
    before = fold(recording[:3])
    seen = dict(before.running)
    advance(before, recording[3])
    assert before.running == seen
    assert before.running["0000"].epoch == 0


def test_unknown_events_and_unknown_trials_change_nothing_but_the_time(recording, stamped):
    class Novel(ev.Event):
        type = "novel"

    state = fold(recording[:3])
    later = stamped([(9.0, Novel()), (10.0, ev.TrialEpoch(trial="7777", epoch=1, epochs=2, metrics={}))])
    after = reduce(advance, later, state)
    assert after.running == state.running
    assert after.t == 10.0


def test_memory_does_not_grow_with_the_number_of_trials(recording, stamped):
    timed = []
    for i in range(500):
        name = f"{i:04}"
        timed.append((1.0, ev.TrialStarted(trial=name, number=i, seed=i, label=name, plan={})))
        timed.append((2.0, ev.TrialFinished(trial=name, epoch=1, metrics={"val_accuracy": i / 500}, seconds=1.0)))
        timed.append((2.0, ev.Warned(message=name)))
    state = reduce(advance, stamped(timed), fold(recording[:1]))
    assert (state.complete, len(state.running), len(state.leaders)) == (500, 0, LEADERS)
    assert (len(state.warnings), state.warned) == (WARNINGS, 500)
    assert state.label("0499") == "0499"  # a leader's label is kept for the confirmation
    assert state.label("0001") == ""


def test_leaders_of_a_minimised_metric_are_the_small_ones(recording, stamped):
    start = ev.RunStarted(**{**vars(recording[0].event), "metric": "val_loss"})
    finished = [ev.TrialFinished(trial=str(i), epoch=1, metrics={"val_loss": float(i)}, seconds=1.0) for i in (2, 1, 3)]
    state = fold(stamped([(0.0, start), *((1.0, event) for event in finished)]))
    assert [scored.trial for scored in state.leaders] == ["1", "2", "3"]


def test_a_run_that_is_gone_on_with_is_no_longer_over_and_knows_what_it_had(recording, stamped):
    over = fold(recording)
    again = [
        (174.0, ev.RunPreparing(run="cnn-1", step="starting Ray")),
        (175.0, ev.ConfirmationStarted(trials=("0000", "0001"), seeds=3)),
    ]
    preparing, confirming = (reduce(advance, stamped(again[:n]), over) for n in (1, 2))
    assert (preparing.phase, preparing.end, preparing.interruption) == ("starting", None, "")
    assert (confirming.phase, confirming.seeds, confirming.trainings) == ("confirmation", 3, 6)
    assert {key: one.state for key, one in confirming.replicates.items()} == {
        ("0000", 1): "done",
        ("0000", 2): "failed",
    }
    assert confirming.best == over.best
    fewer = reduce(advance, stamped([(175.0, ev.ConfirmationStarted(trials=("0000",), seeds=1))]), over)
    assert list(fewer.replicates) == [("0000", 1)]


def test_a_plan_that_leaves_the_race_is_waited_for_no_longer(stamped):
    done = [ev.ReplicateFinished(trial="b", replicate=n, seed=n, metrics={}, seconds=1.0) for n in (1, 2, 3)]
    about = {"leader": "a", "seeds": 3, "difference": 0.1, "low": 0.05, "high": 0.15, "confidence": 0.99}
    start = ev.ConfirmationStarted(trials=("a", "b"), seeds=5)
    state = fold(stamped([(float(t), event) for t, event in enumerate([start, *done])]))
    assert state.trainings == 10
    assert reduce(advance, stamped([(9.0, ev.PlanDropped(trial="b", **about))]), state).trainings == 8


def test_who_left_the_race_and_who_is_trained_again_is_shown(recording, stamped):
    confirmation: list[ev.Event] = [
        ev.ConfirmationStarted(trials=("0000", "0001"), seeds=4),
        *(
            ev.ReplicateFinished(trial=t, replicate=n, seed=n, metrics={"val_accuracy": v}, seconds=1.0)
            for t, v in (("0000", 0.99), ("0001", 0.9))
            for n in (1, 2, 3)
        ),
        ev.PlanDropped(trial="0001", leader="0000", seeds=3, difference=0.09, low=0.08, high=0.1, confidence=0.95),
        ev.RefitStarted(trial="0000", seed=9),
    ]
    state = reduce(advance, stamped([(175.0, event) for event in confirmation]), fold(recording))
    text = "\n".join(line.plain for line in frame(state, 176.0, Look(120, 40, ASCII)))
    assert "6 of 7 trainings on fresh seeds have ended; out of the race: 0001; 0000 is being trained" in text
    (row,) = [line for line in text.splitlines() if line.startswith("0001 ") and "90.00" in line and "out" in line]
    assert row.split("out")[0].count("90.00") == 4  # the mean and three seeds: equal values give no interval
    assert "90.00 % [not known]" in row
    assert as_record(state, 176.0, running=True)["confirmation"] == {
        "plans": ["0000", "0001"],
        "seeds": 4,
        "baseline": None,
        "ended": 6,
        "dropped": ["0001"],
        "refit": "0000",
        "outdated": False,
    }
    assert "out of the race: 0001" in html.dashboard(state, 176.0)
    after = advance(state, stamped([(177.0, ev.RefitFinished(trial="0000", seed=9, metrics={}, seconds=2.0))])[0])
    assert "0000 was trained on validation images too" in confirmation_text(after)
