"""A run that is gone on with shows what is true of it now, and one that has ended says why and what goes on with it."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from mnistlab import events as ev
from mnistlab.console import html
from mnistlab.console.dashboard.frame import frame
from mnistlab.console.dashboard.glyphs import ASCII
from mnistlab.console.dashboard.viewport import Look
from mnistlab.console.next_steps import left_undone
from mnistlab.console.plain import heartbeat, line
from mnistlab.console.state import ViewState, advance
from mnistlab.console.status import as_record, how_it_ended
from mnistlab.experiment.spec import parse_duration
from tests.console.conftest import run_started, stamp

RUN = Path("runs/cnn-1")
LOST = "Ray's raylet ended"


def resumed(**changes: Any) -> ev.RunResumed:
    about: dict[str, Any] = {"command": "mnistlab resume", "trials": 20, "parallel": 2, "devices": "2 CPUs"}
    return ev.RunResumed(**(about | {"counts": {"complete": 1, "pruned": 1, "failed": 1}} | changes))


def finished(code: int, outcome: str, seconds: float = 300.0) -> ev.RunFinished:
    return ev.RunFinished(outcome=outcome, exit_code=code, counts={"complete": 1}, seconds=seconds)


def after(recording: list[ev.Stamped], *more: ev.Event) -> ViewState:
    """The state after a recording and more events, one a second."""
    timed = [(one.t, one.event) for one in recording]
    return reduce(advance, stamp([*timed, *((200.0 + t, event) for t, event in enumerate(more))]), ViewState())


def text_of(state: ViewState, width: int = 160) -> str:
    return "\n".join(row.plain for row in frame(state, state.t, Look(width, 40, ASCII)))


AMENDED = resumed(amended={"model.lenet": {}}, config="0123456789ab", plugins={"mnistlab": "0.1.0", "more": "2.0"})


def test_an_amended_run_says_so_with_the_experiment_that_holds_now(recording):
    state = after(recording, AMENDED)
    text = text_of(state)
    assert "config 0123456789ab | amended once, 2026-11-22 19:03 UTC" in text
    assert "plugins mnistlab 0.1.0, more 2.0" in text
    assert "amended" in html.dashboard(state, state.t)
    twice = after(recording, AMENDED, resumed(), resumed(amended={"model.cnn": {}}, config="ba9876543210"))
    assert "config ba9876543210 | amended 2 times, last 2026-11-22 19:03 UTC" in text_of(twice)
    told = as_record(twice, twice.t, running=True)
    assert (told["config"], len(told["amended"])) == ("ba9876543210", 2)
    plain = after(recording, resumed())
    assert "amended" not in text_of(plain)
    assert plain.start is not None
    assert plain.start.config == run_started().config  # a stream of before tells no other one


def test_what_an_earlier_driver_had_to_say_is_not_said_again(recording):
    before, state = after(recording), after(recording, resumed())
    assert "warning: the time budget" in text_of(before)
    assert "warning" not in text_of(state)
    assert "x failed before the run went on: memory 1, nan 1" in text_of(state)
    assert "loss is nan" not in text_of(state)
    retried = after(recording, resumed(counts={"complete": 1, "pruned": 1}, again=("0002",)))
    assert (retried.failed, retried.failures) == (0, {})
    assert "failed" not in text_of(retried)


def test_the_confirmation_of_before_makes_way_for_what_runs(recording):
    begun = ev.TrialStarted(trial="0003", number=3, seed=4, label="mlp width=9", plan={})
    state = after(recording, resumed(), begun)
    assert "confirmation" not in text_of(state)
    assert "mlp width=9" in text_of(state)
    assert "confirmation" not in html.dashboard(state, state.t)
    stopped = after(recording, resumed(), begun, ev.StopAsked(signal="SIGINT"))
    assert "confirmation" not in text_of(stopped)
    # Cut off, it is what there is, and said to be old. At the end of all it holds where the experiment confirms:
    # nothing was missing. Where it was `mnistlab confirm` alone that did, other plans may be the best by now.
    cut = after(recording, resumed(), begun, finished(130, "interrupted"))
    assert "confirmation of before the search went on: 2 of 2 trainings" in text_of(cut)
    assert as_record(cut, cut.t, running=False)["confirmation"]["outdated"] is True
    by_hand = after(recording, resumed(), begun, finished(0, "done"))
    assert "confirmation of before the search went on: 2 of 2 trainings" in text_of(by_hand)
    own = [*stamp([(0.0, run_started(confirm_top=1, confirm_seeds=2))]), *recording[1:]]
    done = after(own, resumed(), begun, finished(0, "done"))
    assert "confirmation: 2 of 2 trainings on fresh seeds have ended" in text_of(done)
    again = after(recording, resumed(), begun, ev.ConfirmationStarted(trials=("0000",), seeds=3))
    assert "confirmation: 2 of 3 trainings on fresh seeds have ended" in text_of(again)


def test_who_has_left_a_race_stays_out_when_it_is_gone_on_with(recording):
    out = ev.PlanDropped(trial="0001", leader="0000", seeds=3, difference=0.1, low=0.1, high=0.1, confidence=0.9)
    race = (ev.ConfirmationStarted(trials=("0000", "0001"), seeds=4), out)
    assert after(recording, *race, resumed(), race[0]).dropped == ("0001",)
    assert after(recording, *race, ev.ConfirmationStarted(trials=("0000", "0001"), seeds=5)).dropped == ()


def test_a_race_that_is_gone_on_with_after_a_shorter_one_is_as_it_was(recording):
    """Who left it is out of it again, and what was trained in it beyond the shorter one counts again."""
    out = ev.PlanDropped(trial="0001", leader="0000", seeds=3, difference=0.1, low=0.1, high=0.1, confidence=0.9)
    longer = ev.ConfirmationStarted(trials=("0000", "0001"), seeds=10)
    sixth = ev.ReplicateFinished(trial="0000", replicate=6, seed=75, metrics={"val_accuracy": 0.99}, seconds=30.0)
    shorter = ev.ConfirmationStarted(trials=("0000", "0001"), seeds=5)
    between = after(recording, longer, out, sixth, shorter)
    assert (between.dropped, between.replicated) == (("0001",), 2)
    state = after(recording, longer, out, sixth, shorter, resumed(), longer)
    assert (state.dropped, state.trainings, state.replicated) == (("0001",), 10, 3)
    assert state.replicates[sixth.trial, 6].value == 0.99


def test_what_a_dead_driver_had_at_work_is_not_shown_while_another_one_starts(recording):
    state = after(recording[:6], ev.RunPreparing(run="cnn-1", step="starting Ray"))
    assert (state.phase, state.running) == ("starting", {})
    begun = ev.ReplicateStarted(trial="0000", replicate=2, seed=71)
    assert ("0000", 2) in after(recording[:14], begun).replicates
    state = after(recording[:14], begun, ev.RunPreparing(run="cnn-1", step="starting Ray"))
    assert {key: one.state for key, one in state.replicates.items()} == {("0000", 1): "done"}


def test_a_trial_that_has_lost_its_worker_waits(recording):
    lost = ev.TrialWaiting(trial="0001", epoch=1, reason="worker lost: gone")
    state = after(recording[:6], lost)
    text = text_of(state)
    assert "> 1 running | o 1 waiting for a worker" in text
    (row,) = [row for row in text.splitlines() if row.startswith("0001 ")]
    assert "waiting" in row
    assert "waiting" in html.dashboard(state, state.t)
    assert heartbeat(state) == "1 running (0000 epoch 2/8), 1 waiting for a worker, 0 of 16 finished"
    told = as_record(state, state.t, running=True)["trials"]["running"]
    assert [one["waiting"] for one in told] == [False, True]
    begun = ev.TrialStarted(trial="0001", number=1, seed=2, label="mlp", plan={}, attempt=2, epoch=1)
    back = after(recording[:6], lost, begun)
    assert (back.waiting, len(back.running)) == (0, 2)
    assert after(recording[:6], ev.TrialWaiting(trial="0099", epoch=1, reason="")) == after(recording[:6], ev.Event())


# --- the end ------------------------------------------------------------------------------------------------------


def test_a_run_that_was_broken_off_says_why_and_what_goes_on_with_it(recording):
    end = finished(75, f"{ev.BROKEN_OFF}: {LOST}")
    state = after(recording[:6], end)
    assert how_it_ended(state, RUN) == [
        f"Run over: broken off: {LOST}; 1 trial (1 complete) in 5m00s, exit code 75.",
        "Next: mnistlab resume runs/cnn-1",
    ]
    (said,) = stamp([(300.0, end)])
    told = line(said, state)
    assert told is not None
    assert told.endswith(f"run over: broken off: {LOST} (1 complete) in 5m00s; next: mnistlab resume runs/cnn-1")
    assert as_record(state, 300.0, running=False)["outcome"] == f"broken off: {LOST}"


AGAIN = "mnistlab retry 'my runs/1' --failed --set resources.max_parallel=1"  # the recording has a lack of memory


@pytest.mark.parametrize(
    ("code", "budget", "next_"),
    [
        (0, 0.0, [f"{AGAIN}"]),
        (0, 240.0, [f"{AGAIN}"]),  # it was not used up
        (
            0,
            150.0,
            [f"{AGAIN} --time-budget 5m"],
        ),  # not by the search, but there is none left
        (
            0,
            120.0,
            ["mnistlab resume 'my runs/1' --time-budget 6m", f"{AGAIN} --time-budget 6m"],
        ),
        (130, 0.0, ["mnistlab resume 'my runs/1'", f"{AGAIN}"]),
        (143, 0.0, ["mnistlab resume 'my runs/1'", f"{AGAIN}"]),
        (3, 150.0, ["mnistlab resume 'my runs/1'", f"{AGAIN} --time-budget 5m"]),
        (4, 0.0, [f"{AGAIN}"]),
    ],
)
def test_what_is_left_undone_has_its_command(recording, code: int, budget: float, next_: list[str]):
    stream = [*stamp([(0.0, run_started(time_budget=budget))]), *recording[1:]]
    state = after(stream, finished(code, "whatever"))
    assert left_undone(state, "my runs/1") == next_


def test_a_run_that_lacks_nothing_has_nothing_left_undone(recording):
    whole = [one for one in recording if not isinstance(one.event, ev.TrialFailed)]
    assert left_undone(after(whole)) == []
    assert how_it_ended(after(whole), RUN) == []
    assert left_undone(ViewState()) == []
    assert left_undone(after(whole[:5])) == ["mnistlab resume runs/cnn-1"]


@pytest.mark.parametrize(
    ("budget", "seconds", "said"),
    [
        (45.5, 46.0, "91s"),
        (90.0, 91.0, "3m"),
        (3600.0, 3700.0, "2h"),
        (3600.0, 5400.0, "2h"),
        (3600.0, 5401.0, "3h"),  # a confirmation took long: twice as much would leave next to nothing
        (0.3, 0.4, "1s"),
        (1_234_567.5, 1_234_568.0, "2469135s"),
    ],
)
def test_the_time_that_is_proposed_leaves_some_and_can_be_typed(budget: float, seconds: float, said: str) -> None:
    ended = ev.TrialFinished(trial="0000", epoch=1, metrics={}, seconds=1.0)
    timed = [(0.0, run_started(time_budget=budget)), (seconds, ended), (seconds, finished(0, "done"))]
    assert left_undone(reduce(advance, stamp(timed), ViewState())) == [
        f"mnistlab resume runs/cnn-1 --time-budget {said}"
    ]
    assert parse_duration(said) >= seconds + budget / 2


def test_time_that_the_confirmation_took_was_not_the_searchs() -> None:
    ended = ev.TrialFinished(trial="0000", epoch=1, metrics={}, seconds=1.0)
    failed = ev.TrialFailed(trial="0001", epoch=1, cause="worker", message="", log="")
    timed = [(0.0, run_started(time_budget=60.0)), (50.0, ended), (90.0, finished(0, "done"))]
    assert left_undone(reduce(advance, stamp(timed), ViewState())) == []  # its space was exhausted, not its time
    state = reduce(advance, stamp([timed[0], (50.0, failed), timed[2]]), ViewState())
    assert left_undone(state) == ["mnistlab retry runs/cnn-1 --failed --time-budget 2m"]


RETRY = "mnistlab retry runs/cnn-1 --failed"


@pytest.mark.parametrize(
    ("causes", "next_"),
    [
        (("nan", "nan"), []),
        (("nan", "plugin"), [RETRY]),
        (("worker",), [RETRY]),
        (("a-cause-of-later",), [RETRY]),
        (("memory", "memory"), [f"{RETRY} --set resources.max_parallel=1"]),
        (("timeout",), [f"{RETRY} --set search.trial_timeout=TIME  # with a longer TIME"]),
        (
            ("timeout", "hang", "worker"),
            [f"{RETRY} --set search.trial_timeout=TIME --set search.stall_timeout=TIME  # with a longer TIME"],
        ),
        (("version",), [f"{RETRY}  # with the plugins' versions of this run installed"]),
    ],
)
def test_nobody_is_told_to_try_again_what_would_diverge_again(causes: tuple[str, ...], next_: list[str]) -> None:
    failed = [ev.TrialFailed(trial=f"{n:04}", epoch=1, cause=c, message="", log="") for n, c in enumerate(causes)]
    timed = [(0.0, run_started()), *((1.0, one) for one in failed), (2.0, finished(0, "done"))]
    assert left_undone(reduce(advance, stamp(timed), ViewState())) == next_


MENDED = "mnistlab search FILE --plugin my_net.py  # mend it first: this run keeps the source that failed"


@pytest.mark.parametrize(
    ("failed", "next_"),
    [
        ([("my_net.py", "plugin")], [MENDED]),
        ([("my_net.py", "plugin"), ("my_net.py", "nan")], [MENDED]),
        ([("my_net.py", "plugin"), ("my_net.py", "worker")], [RETRY, MENDED]),
        ([("my_net.py", "plugin"), ("mnistlab-timm", "plugin")], [RETRY, MENDED]),
        ([("my_net.py", "worker")], [RETRY]),
    ],
)
@pytest.mark.parametrize("kind", ["model", "optimizer", "transforms"])
def test_nobody_is_told_to_try_a_plugin_file_again_whose_old_source_the_run_keeps(kind, failed, next_) -> None:
    events: list[ev.Event] = [run_started()]
    for n, (distribution, cause) in enumerate(failed):
        own = {"name": "mlp", "plugin": "mnistlab:mlp", "distribution": "mnistlab", "version": "1", "config": {}}
        plan = {"model": own, "optimizer": own, "transforms": [own], "training": {"epochs": 1}}
        plan[kind] = (
            [own | {"distribution": distribution}] if kind == "transforms" else own | {"distribution": distribution}
        )
        events += [
            ev.TrialStarted(trial=f"{n:04}", number=n, seed=n, label="", plan=plan),
            ev.TrialFailed(trial=f"{n:04}", epoch=0, cause=cause, message="boom", log=""),
        ]
    state = reduce(advance, stamp([*((1.0, one) for one in events), (2.0, finished(0, "done"))]), ViewState())
    assert left_undone(state) == next_


def test_a_budget_that_was_spent_on_the_start_is_told_a_larger_one_that_leaves_time_for_a_whole_trial() -> None:
    timed: list[tuple[float, ev.Event]] = [
        (4.0, run_started(time_budget=10.0)),
        (15.0, finished(1, "no trial succeeded")),
    ]
    assert left_undone(reduce(advance, stamp(timed), ViewState())) == ["mnistlab resume runs/cnn-1 --time-budget 40s"]
    begun = ev.TrialStarted(trial="0000", number=0, seed=1, label="", plan={})
    epoch = ev.TrialEpoch(trial="0000", epoch=1, epochs=8, metrics={"seconds": 20.0})
    cut = ev.TrialInterrupted(trial="0000", epoch=1, metrics={}, seconds=20.0, reason="time budget")
    timed[1:1] = [(8.0, begun), (28.0, epoch), (28.0, cut)]
    timed[-1] = (30.0, timed[-1][1])
    (said,) = left_undone(reduce(advance, stamp(timed), ViewState()))
    assert parse_duration(said.rpartition(" ")[2]) >= 30 + 4 + 8 * 20  # the start of a worker, and eight epochs
