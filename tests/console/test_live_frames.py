from __future__ import annotations

from functools import reduce

import pytest
from rich.cells import cell_len

from mnistlab import events as ev
from mnistlab.console.frame import Look
from mnistlab.console.frame import frame as lines_of
from mnistlab.console.signs import ASCII, UNICODE
from mnistlab.console.state import ViewState, advance

SIZES = [(width, height) for width in (60, 80, 120, 200) for height in (10, 24, 60)]


def frame(recording: list[ev.Stamped], width: int, height: int, now: float = 100.0, plain: bool = False) -> list[str]:
    state = reduce(advance, recording, ViewState())
    signs = ASCII if plain else UNICODE
    return [line.plain for line in lines_of(state, now, Look(width, height, signs))]


@pytest.mark.parametrize(("width", "height"), [*SIZES, (20, 3), (40, 5), (60, 1)])
@pytest.mark.parametrize("upto", [0, 1, 2, 60, 81, 200])
def test_a_frame_never_leaves_the_terminal(crowd, width, height, upto):
    lines = frame(crowd[:upto], width, height)
    assert 1 <= len(lines) <= max(1, height - 1)
    assert max(cell_len(text) for text in lines) <= width


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_confirmation_never_leaves_the_terminal(crowd, stamped, width, height):
    trials = tuple(f"{i:04}" for i in range(30))
    timed = [(stamp.t, stamp.event) for stamp in crowd]
    timed.append((6.0, ev.ConfirmationStarted(trials=trials, seeds=30)))
    timed.append((7.0, ev.ReplicateFinished(trial="0003", replicate=1, seed=9, metrics={}, seconds=1.0)))
    timed.append((8.0, ev.RunInterrupted(reason="Ctrl-C")))
    lines = frame(stamped(timed), width, height)
    assert len(lines) <= height - 1
    assert max(cell_len(text) for text in lines) <= width


def test_a_frame_tells_what_runs(recording):
    assert [text.rstrip() for text in frame(recording[:6], 80, 24, now=70.0)] == [
        "cnn-1  mnist, tpe, asha, seed 0, 2 CPUs",
        "                  searching, 0/16 finished, 1m10s, 2 running",
        "trial   plan                                        epoch  val_accuracy  elapsed",
        "0000    cnn depth=3 · adamw lr=0.003  ━━╸           2/8       98.00 %    1m09s".replace(
            "━━╸           2/8", "━━╸             2/8"
        ),
        "0001    mlp width=64 · sgd lr=0.1     ━               1/8       90.00 %    1m08s",
    ]


def test_a_frame_tells_the_confirmation_failures_and_warnings(recording):
    text = "\n".join(frame(recording, 120, 24))
    assert "confirmation: 2 of 2 trainings on fresh seeds" in text
    assert "0000     99.00 %    failed  cnn depth=3 · adamw lr=0.003" in text
    assert "failed: memory 1, nan 1; last: trial 0000 replicate 2: out of memory" in text
    assert "warning: the time budget is nearly used up" in text
    assert "over, 3/16 finished, 2m53s, 1 complete, 1 pruned, 1 failed" in text


def test_what_does_not_fit_is_counted(crowd):
    shown = [text for text in frame(crowd, 120, 14) if text.startswith("00")]
    hidden = [text for text in frame(crowd, 120, 14) if "more running" in text]
    assert hidden == [f"+{34 - len(shown)} more running"]
    assert len(shown) > 3


def test_columns_go_where_the_terminal_is_narrow(crowd):
    head = {width: next(t for t in frame(crowd, width, 24) if t.startswith("trial")) for width in (50, 60, 120)}
    assert "elapsed" not in head[50]
    assert "elapsed" in head[60]
    assert "images/s" not in head[60]
    assert "images/s" in head[120]


def test_hostile_text_is_inert(crowd):
    text = "\n".join(frame(crowd, 200, 60, force_terminal=True))
    assert "\x1b]0;" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "[/red]\\x1b]0;x\\x07\\n\\u202eevil" in text


def test_the_clock_moves_between_events(recording):
    early, late = (frame(recording[:3], 80, 24, now=now) for now in (5.0, 8.0))
    assert "4.0s" in early[-2]
    assert "7.0s" in late[-2]
