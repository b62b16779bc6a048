from __future__ import annotations

import itertools

import pytest

from mnistlab import events as ev
from mnistlab.console.lines import Lines
from mnistlab.console.plain import line
from mnistlab.console.state import ViewState, advance


def lines(recording: list[ev.Stamped]) -> list[str]:
    said, state = [], ViewState()
    for stamped in recording:
        state = advance(state, stamped)
        said.append(line(stamped, state))
    return [text for text in said if text is not None]


def test_the_lines_of_a_whole_run(recording):
    assert lines(recording) == [
        "[  0.0s] run cnn-1: up to 16 trials of 8 epochs on mnist, 2 at a time on 2 CPUs (tpe, asha, seed 0); "
        "plugins -; files in runs/cnn-1",
        "[  1.0s] trial 0000 started: cnn depth=3 · adamw lr=0.003",
        "[  1.5s] trial 0001 started: mlp width=64 · sgd lr=0.1",
        "[ 1m01s] 2 running (0000 epoch 2/8, 0001 epoch 0/8), 0 of 16 finished",
        "[ 1m03s] trial 0001 pruned: val_accuracy 90.00 % after 1 epoch, 1m02s (1 of 16 finished)",
        "[ 1m04s] trial 0002 started: cnn depth=9 · sgd lr=9",
        "[ 1m30s] trial 0002 failed (nan) after 0 epochs: loss is nan; log: runs/cnn-1/trials/0002/log.txt "
        "(2 of 16 finished)",
        "[ 2m00s] trial 0000 complete: val_accuracy 99.12 % after 8 epochs, 1m59s (3 of 16 finished)",
        "[ 2m00s] best so far: trial 0000, val_accuracy 99.12 %, cnn depth=3 · adamw lr=0.003",
        "[ 2m01s] warning: the time budget is nearly used up",
        "[ 2m10s] confirmation: 1 plan (0000) on 2 fresh seeds each",
        "[ 2m40s] trial 0000 replicate 1: val_accuracy 99.00 % in 30s (1 of 2 trained)",
        "[ 2m50s] trial 0000 replicate 2 failed (memory): out of memory",
        "[ 2m51s] test set opened to evaluate 1 model of 0000 (opening 1 of this run)",
        "[ 2m52s] interrupted: Ctrl-C",
        "[ 2m53s] run over: done (1 complete, 1 pruned, 1 failed) in 2m53s",
    ]


@pytest.mark.parametrize(
    "often",
    [
        ev.TrialEpoch(trial="0000", epoch=1, epochs=8, metrics={}),
        ev.Resources(cpu=0.5),
        ev.ReplicateEpoch(trial="0000", replicate=1, epoch=1, epochs=8, metrics={}),
    ],
)
def test_what_happens_often_is_a_heartbeat_within_each_minute(recording, stamped, often):
    seldom = [(stamp.t, stamp.event) for stamp in recording[:2]]
    stream = stamped([*seldom, *((float(t), often) for t in range(2, 200, 5))])
    state, told = ViewState(), []
    for one in stream:
        state = advance(state, one)
        told += [one.t] * (line(one, state) is not None)
    silences = [later - earlier for earlier, later in itertools.pairwise(told)]
    assert max(silences) < 60
    assert len(told) == 2 + 3  # one heartbeat a minute, not a line for each


def test_a_heartbeat_tells_what_is_at_work_and_how_much_more(recording, stamped):
    timed = [(stamp.t, stamp.event) for stamp in recording[:1]]
    timed += [(1.0, ev.TrialStarted(trial=f"{i:04}", number=i, seed=i, label="", plan={})) for i in range(6)]
    timed.append((200.0, ev.Resources(cpu=0.5)))
    assert lines(stamped(timed))[-1] == (
        "[ 3m20s] 6 running (0000 epoch 0/8, 0001 epoch 0/8, 0002 epoch 0/8, 0003 epoch 0/8, +2 more), 0 of 16 finished"
    )


def test_the_confirmation_has_heartbeats_too(recording, stamped):
    timed = [(stamp.t, stamp.event) for stamp in recording[:13]]
    timed.append((131.0, ev.ReplicateStarted(trial="0000", replicate=1, seed=7)))
    timed.append((200.0, ev.ReplicateEpoch(trial="0000", replicate=1, epoch=3, epochs=8, metrics={})))
    assert lines(stamped(timed))[-1] == (
        "[ 3m20s] 1 running (0000 replicate 1 epoch 3/8), 3 of 16 finished, best 99.12 %"
    )


def test_the_heartbeat_tells_the_best(recording, stamped):
    epoch = (200.0, ev.TrialEpoch(trial="0009", epoch=1, epochs=8, metrics={}))
    said = lines(stamped([(stamp.t, stamp.event) for stamp in recording[:11]] + [epoch]))
    assert said[-1] == "[ 3m20s] 0 running, 3 of 16 finished, best 99.12 %"


def test_hostile_text_stays_text_on_one_line(crowd):
    for text in lines(crowd):
        assert text.isprintable()
    assert lines(crowd)[0].endswith(
        "FALLBACK DATA: [/red]\\x1b]0;x\\x07\\n\\u202eevil ([/red]\\x1b]0;x\\x07\\n\\u202eevil)"
    )


def test_a_wait_in_which_nothing_happens_has_signs_of_life(stamped, recording):
    said, now = [], [100.0]
    lines = Lines(said.append, lambda: now[0])
    (preparing,) = stamped([(2.0, ev.RunPreparing(run="cnn-1", step="finding the images of mnist"))])
    lines.handle(preparing)
    for _ in range(130):
        now[0] += 1.0
        lines.turn()
    assert said == [
        "[  2.0s] finding the images of mnist",
        "[   57s] still finding the images of mnist",
        "[ 1m52s] still finding the images of mnist",
    ]
    for one in recording:
        lines.handle(one)
    now[0] += 500.0
    said.clear()
    lines.turn()
    assert said == []  # it is over
