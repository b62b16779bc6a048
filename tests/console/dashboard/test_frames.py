"""What a frame says, and that it fits: whatever the size, whatever the text."""

from __future__ import annotations

from functools import reduce

import pytest
from rich.cells import cell_len

from mnistlab import events as ev
from mnistlab.console.dashboard.eta import Estimate
from mnistlab.console.dashboard.frame import frame as lines_of
from mnistlab.console.dashboard.glyphs import ASCII, UNICODE, signs_for
from mnistlab.console.dashboard.viewport import Look
from mnistlab.console.state import ViewState, advance

SIZES = [(width, height) for width in (40, 60, 80, 120, 200) for height in (8, 24, 60)]


def frame(
    recording: list[ev.Stamped],
    width: int,
    height: int,
    now: float = 100.0,
    plain: bool = False,
    eta: Estimate | None = None,
) -> list[str]:
    state = reduce(advance, recording, ViewState())
    return [line.plain for line in lines_of(state, now, Look(width, height, ASCII if plain else UNICODE), eta)]


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
    assert frame(recording[:6], 80, 12, now=70.0) == [
        "cnn-1 · mnist · tpe, asha · seed 0 · 2 CPUs · runs/cnn-1",
        "────────────────  searching 0/16 · 1m10s · ETA -",
        "▸ 2 running · ○ 14 queued",
        "trial  plan                             epoch  val_accuracy  curve       elapsed",
        "0000   cnn depth=3 · adamw lr=0.003       2/8       98.00 %  ▁█            1m09s",
        "0001   mlp width=64 · sgd lr=0.1          1/8       90.00 %  ▄             1m08s",
        "search: tpe proposes, asha prunes",
        "Ctrl-C: stop after the running epochs; mnistlab resume goes on; twice: at once",
    ]


def test_before_the_search_begins_a_frame_tells_what_is_prepared(stamped, recording):
    preparing = stamped([(1.0, ev.RunPreparing(run="cnn-1", step="starting Ray"))])
    assert frame(preparing, 80, 24, now=3.0) == ["mnistlab: starting Ray, 3.0s"]
    assert "starting 2 workers: loading torch and the data takes some seconds" in frame(recording[:1], 80, 24)


def test_a_frame_tells_the_confirmation_failures_and_warnings(recording):
    lines = frame(recording[:-3], 120, 24)
    text = "\n".join(lines)
    assert "confirmation: 2 of 2 trainings on fresh seeds have ended" in text
    assert any(line.startswith("0000   99.00 %") and "✗ fail" in line for line in lines)
    assert (
        "✗ failed: memory 1, nan 1; last: trial 0000 replicate 2: out of memory; log runs/cnn-1/trials/0000/log.txt"
        in text
    )
    assert "! warning: the time budget is nearly used up" in text
    assert "confirming 3/16" in text
    assert "✗ 1 failed · ✓ 1 complete · ↓ 1 pruned" in text
    assert "best 99.12 %  trial 0000  cnn depth=3 · adamw lr=0.003  found at 2m00s, after 3 trials" in text


def test_what_a_run_has_found_stays_when_it_is_over(recording):
    lines = frame(recording, 120, 30)
    assert any(line.startswith("0000   99.00 %") for line in lines)
    assert "over 3/16 · 2m53s" in "\n".join(lines)


def test_the_mean_of_a_plan_has_its_interval(recording, stamped):
    timed = [(one.t, one.event) for one in recording[:13]]
    for number, accuracy in ((1, 0.99), (2, 0.992)):
        metrics = {"val_accuracy": accuracy}
        timed.append(
            (140.0, ev.ReplicateFinished(trial="0000", replicate=number, seed=7, metrics=metrics, seconds=1.0))
        )
    # Student's t with one degree of freedom: 12.706 * 0.1414 / sqrt(2) = 1.27, and no accuracy is above 100 %
    assert any(line.startswith("0000   99.10 [97.83, 100.00] %") for line in frame(stamped(timed), 120, 24))


def test_a_tall_frame_tells_what_ended_last(recording):
    lines = frame(recording[:11], 100, 40, now=121.0)
    ended = lines[lines.index("ended last") + 1 :][:3]
    assert [line.split()[:3] for line in ended] == [
        ["0000", "✓", "complete"],
        ["0002", "✗", "failed"],
        ["0001", "↓", "pruned"],
    ]
    assert "ended last" not in frame(recording[:11], 100, 12, now=121.0)


def test_the_rungs_of_the_scheduler_are_told_in_words(recording, stamped):
    timed = [(one.t, one.event) for one in recording[:4]]
    timed.append((31.0, ev.RungDecided(bracket=0, epoch=1, reached=9, kept=3, cutoff=0.987)))
    text = "\n".join(frame(stamped(timed), 120, 24))
    assert "epoch 1: kept 3 of 9, cutoff 98.70 %" in text
    timed.append((31.0, ev.RungDecided(bracket=1, epoch=3, reached=2, kept=1, cutoff=0.99)))
    assert "bracket 1, epoch 3: kept 1 of 2, cutoff 99.00 %" in "\n".join(frame(stamped(timed), 200, 24))


def test_what_the_machine_does_not_tell_is_a_dash(recording, stamped):
    gpus = ({"index": 0, "use": 0.5, "memory_used": 1 << 30, "memory_total": 4 << 30}, {"index": 1})
    seen = ev.Resources(cpu=0.25, memory_used=2 << 30, memory_total=8 << 30, disk_free=None, gpus=gpus)
    text = "\n".join(frame([*recording[:4], *stamped([(40.0, seen)])], 120, 24))
    assert (
        "machine: cpu 25 % · memory 2.0 of 8.0 GiB · gpu0 50 %, 1.0/4.0 GiB · gpu1 -, -/- GiB · disk - GiB free"
    ) in text


def test_many_devices_take_more_lines_where_there_is_room(recording, stamped):
    gpus = tuple({"index": i, "use": 0.5, "memory_used": 1 << 30, "memory_total": 4 << 30} for i in range(8))
    stream = [*recording[:4], *stamped([(40.0, ev.Resources(cpu=1.0, gpus=gpus))])]
    text = "\n".join(frame(stream, 80, 40))
    assert all(f"gpu{i} 50 %" in text for i in range(8))
    assert sum("gpu" in line for line in frame(stream, 80, 12)) == 1


def test_the_time_that_is_left_is_a_range_with_its_basis(recording):
    eta = Estimate(median=130.0, late=160.0, basis="from 3 ended trainings")
    assert "ETA 30s to 1m00s · from 3 ended trainings" in "\n".join(frame(recording[:6], 120, 24, 100.0, eta=eta))
    assert "ETA 30s to 1m00s" in "\n".join(frame(recording[:6], 60, 24, 100.0, eta=eta))
    assert "ETA 0.0s to 10s" in "\n".join(frame(recording[:6], 80, 24, 150.0, eta=eta))


def test_that_a_stop_was_asked_for_is_told_until_the_run_is_over(recording, stamped):
    timed = [(one.t, one.event) for one in recording[:4]]
    timed.append((40.0, ev.StopAsked(signal="SIGINT")))
    assert "stopping (SIGINT): what runs may end its epoch" in "\n".join(frame(stamped(timed), 120, 24))
    timed.append((41.0, ev.RunFinished(outcome="interrupted", exit_code=130, counts={}, seconds=41.0)))
    assert "stopping" not in "\n".join(frame(stamped(timed), 120, 24))


def test_a_training_on_a_fresh_seed_is_not_said_to_end_its_epoch(recording, stamped):
    timed = [(one.t, one.event) for one in recording[:4]]
    timed.append((40.0, ev.ConfirmationStarted(trials=("0000",), seeds=2)))
    timed.append((41.0, ev.ReplicateStarted(trial="0000", replicate=1, seed=7)))
    timed.append((42.0, ev.StopAsked(signal="SIGINT")))
    said = "stopping (SIGINT): what trains on a fresh seed is cut short, and begins anew with `resume`"
    assert said in "\n".join(frame(stamped(timed), 160, 24))


def test_what_does_not_fit_is_counted(crowd):
    lines = frame(crowd, 120, 16)
    running = lines[[line.startswith("trial ") for line in lines].index(True) + 1 :]
    shown = [text for text in running if text.startswith("00")]
    assert f"+{34 - len(shown)} more running" in lines
    assert len(shown) >= 2


def test_columns_go_where_the_terminal_is_narrow(crowd):
    head = {width: next(t for t in frame(crowd, width, 24) if t.startswith("trial ")) for width in (40, 60, 80, 120)}
    for column, least in (("elapsed", 60), ("curve", 80), ("images/s", 120)):
        assert {width: column in text for width, text in head.items()} == {width: width >= least for width in head}


def test_hostile_text_is_inert(crowd):
    text = "\n".join(frame(crowd, 200, 60))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "[/red]\\x1b]0;x\\x07\\n\\u202eevil" in text


def test_ascii_terminals_get_ascii(recording, crowd):
    for stream in (recording, crowd):
        assert "\n".join(frame(stream, 120, 60, plain=True)).isascii()
    assert "x 1 failed | + 1 complete | v 1 pruned" in "\n".join(frame(recording, 120, 60, plain=True))


@pytest.mark.parametrize(
    ("encoding", "signs"), [("utf-8", UNICODE), ("ascii", ASCII), ("latin-1", ASCII), (None, ASCII), ("x-y", ASCII)]
)
def test_signs_are_those_that_the_stream_can_carry(encoding, signs):
    assert signs_for(encoding) == signs


def test_the_clock_moves_between_events(recording):
    early, late = (frame(recording[:3], 80, 24, now=now) for now in (5.0, 8.0))
    assert any(line.endswith("4.0s") for line in early)
    assert any(line.endswith("7.0s") for line in late)
