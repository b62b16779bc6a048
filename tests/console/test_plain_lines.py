from __future__ import annotations

from mnistlab import events as ev
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
        "files in runs/cnn-1",
        "[  1.0s] trial 0000 started: cnn depth=3 · adamw lr=0.003",
        "[  1.5s] trial 0001 started: mlp width=64 · sgd lr=0.1",
        "[ 1m01s] 2 running, 0 of 16 finished, 1m01s",
        "[ 1m03s] trial 0001 pruned: val_accuracy 90.00 % after 1 epoch, 1m02s (1 of 16 finished)",
        "[ 1m04s] trial 0002 started: cnn depth=9 · sgd lr=9",
        "[ 1m30s] trial 0002 failed (nan) after 0 epochs: loss is nan; log: trials/0002/log.txt (2 of 16 finished)",
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


def test_epochs_are_a_heartbeat_once_a_minute(recording, stamped):
    epochs = [(float(t), ev.TrialEpoch(trial="0000", epoch=1, epochs=8, metrics={})) for t in range(2, 200)]
    said = lines(stamped([(stamp.t, stamp.event) for stamp in recording[:2]] + epochs))
    assert [text for text in said if "running" in text] == [
        f"[ {minute}m00s] 1 running, 0 of 16 finished, {minute}m00s" for minute in (1, 2, 3)
    ]


def test_the_heartbeat_tells_the_best(recording, stamped):
    epoch = (200.0, ev.TrialEpoch(trial="0009", epoch=1, epochs=8, metrics={}))
    said = lines(stamped([(stamp.t, stamp.event) for stamp in recording[:11]] + [epoch]))
    assert said[-1] == "[ 3m20s] 0 running, 3 of 16 finished, best 99.12 %, 3m20s"


def test_hostile_text_stays_text_on_one_line(crowd):
    for text in lines(crowd):
        assert text.isprintable()
    assert lines(crowd)[0].endswith(
        "FALLBACK DATA: [/red]\\x1b]0;x\\x07\\n\\u202eevil ([/red]\\x1b]0;x\\x07\\n\\u202eevil)"
    )
