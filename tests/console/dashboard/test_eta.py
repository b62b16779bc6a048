"""The estimate against what really came: on recorded runs, and on made-up ones whose end is known."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, reduce
from pathlib import Path
from statistics import median

import pytest

from mnistlab import events as ev
from mnistlab.console.dashboard.eta import STEADY, Estimate, SteadyEstimate, estimate
from mnistlab.console.state import ViewState, advance
from mnistlab.store import read_lines

RECORDINGS = sorted((Path(__file__).parents[2] / "recordings").glob("*.jsonl"))


@cache
def stream(path: Path) -> tuple[ev.Stamped, ...]:
    return tuple(filter(None, map(ev.from_json, read_lines(path))))


def state_at(recorded: tuple[ev.Stamped, ...] | list[ev.Stamped], at: float) -> ViewState:
    return reduce(advance, (one for one in recorded if one.t <= at), ViewState())


def error(path: Path, share: float) -> float | None:
    """How far the median estimate after `share` of a run is off, as a share of the time that was really left."""
    end = stream(path)[-1].t
    found = estimate(state_at(stream(path), share * end), share * end)
    return None if found is None else abs(found.median - end) / (end * (1 - share))


@pytest.mark.parametrize(("share", "limit"), [(0.25, 0.25), (0.5, 0.25)])
def test_the_median_error_on_recorded_runs(share: float, limit: float) -> None:
    errors = {path.stem: error(path, share) for path in RECORDINGS}
    known = [value for value in errors.values() if value is not None]
    assert len(known) > len(errors) / 2, errors
    assert median(known) < limit, errors


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_an_estimate_is_a_range_that_lies_ahead_and_is_the_same_each_time(path: Path) -> None:
    end = stream(path)[-1].t
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        state, now = state_at(stream(path), share * end), share * end
        found = estimate(state, now)
        assert found == estimate(state, now)
        if found is not None:
            assert now <= found.median <= found.late
            assert found.basis.startswith("from ")


def trial(number: int, began: float, took: float) -> list[tuple[float, ev.Event]]:
    name, metrics = f"{number:04}", {"val_accuracy": 0.9, "seconds": took}
    return [
        (began, ev.TrialStarted(trial=name, number=number, seed=0, label="", plan={})),
        (began + took, ev.TrialFinished(trial=name, epoch=1, metrics=metrics, seconds=took)),
    ]


@pytest.fixture
def even(recording, stamped):
    """Ten seconds a trial, two at a time, forty in all, no confirmation; twenty of them have ended after 100 s."""
    start = replace(recording[0].event, trials=40, epochs=1, parallel=2)
    timed = [(0.0, start)]
    for number in range(20):
        timed += trial(number, number // 2 * 10.0, 10.0)
    return start, stamped(sorted(timed, key=lambda one: one[0]))


def test_an_even_queue_is_simulated_exactly(even) -> None:
    _, recorded = even
    found = estimate(state_at(recorded, 100.0), 100.0)
    assert found is not None
    assert found.median == found.late == pytest.approx(200.0)  # twenty trials left, two at a time
    assert found.basis == "from 20 ended trainings"


def test_the_time_budget_is_a_limit(even, stamped) -> None:
    start, recorded = even
    timed = [(one.t, one.event) for one in recorded[1:]]
    limited = stamped([(0.0, replace(start, time_budget=150.0)), *timed])
    found = estimate(state_at(limited, 100.0), 100.0)
    assert found is not None
    assert found.late == pytest.approx(150.0)


def test_the_confirmation_and_the_start_of_its_workers_come_on_top(even, stamped) -> None:
    start, recorded = even
    timed = [(one.t + 6.0, one.event) for one in recorded[1:]]  # the first worker took six seconds to start
    planned = stamped([(0.0, replace(start, confirm_top=2, confirm_seeds=3)), *timed])
    found = estimate(state_at(planned, 106.0), 106.0)
    assert found is not None
    assert found.median == pytest.approx(206.0 + 6.0 + 30.0)  # six trainings of ten seconds, two at a time


def test_the_confirmation_may_have_more_workers_than_the_search(even, stamped) -> None:
    start, recorded = even
    timed = [(one.t, one.event) for one in recorded[1:]]

    def seconds(replicates: int) -> float:
        first = replace(start, confirm_top=2, confirm_seeds=4, parallel_replicates=replicates)
        found = estimate(state_at(stamped([(0.0, first), *timed]), 100.0), 100.0)
        assert found is not None
        return found.median

    assert seconds(0) - seconds(8) == pytest.approx(30.0)  # four rounds of ten seconds, or one


def test_a_running_trial_goes_on_at_its_own_pace(even, stamped) -> None:
    start, recorded = even
    timed = [(one.t, one.event) for one in recorded[1:]]
    slow = ev.TrialStarted(trial="9999", number=99, seed=0, label="", plan={})
    epoch = ev.TrialEpoch(trial="9999", epoch=1, epochs=4, metrics={"val_accuracy": 0.5, "seconds": 25.0})
    first = (0.0, replace(start, trials=21))
    recorded = stamped([first, *timed, (100.0, slow), (125.0, epoch)])
    found = estimate(state_at(recorded, 130.0), 130.0)
    assert found is not None
    assert found.median == pytest.approx(125.0 + 3 * 25.0)


def test_a_confirmation_that_runs_is_told_by_its_own_trainings(even, stamped) -> None:
    start, recorded = even
    timed = [(0.0, start), *((one.t, one.event) for one in recorded[1:])]
    timed.append((100.0, ev.ConfirmationStarted(trials=("0000",), seeds=3)))
    epoch = {"val_accuracy": 0.9, "seconds": 30.0}
    for number in (1, 2):
        timed.append((100.0, ev.ReplicateStarted(trial="0000", replicate=number, seed=number)))
        timed.append((130.0, ev.ReplicateEpoch(trial="0000", replicate=number, epoch=1, epochs=1, metrics=epoch)))
        timed.append((130.0, ev.ReplicateFinished(trial="0000", replicate=number, seed=1, metrics=epoch, seconds=30.0)))
    found = estimate(state_at(stamped(timed), 130.0), 130.0)
    assert found is not None
    assert found.median == pytest.approx(160.0)
    assert found.basis == "from 22 ended trainings"


def test_nothing_is_said_before_there_is_a_ground_for_it(even, recording, stamped) -> None:
    _, recorded = even
    assert estimate(ViewState(), 3.0) is None
    assert estimate(state_at(recorded, 9.0), 9.0) is None
    assert estimate(state_at(recorded, 10.0), 10.0) is None  # two have ended
    assert estimate(state_at(recorded, 20.0), 20.0) is not None
    epoch = ev.TrialEpoch(trial="0002", epoch=1, epochs=9, metrics={"seconds": 3.0})
    timed = [(one.t, one.event) for one in recorded if one.t <= 10.0]
    assert estimate(state_at(stamped([*timed, (13.0, epoch)]), 13.0), 13.0) is not None  # and one tells its pace
    over = reduce(advance, recording, ViewState())
    assert estimate(over, over.t) is None


def test_a_live_view_keeps_an_estimate_for_a_while(even) -> None:
    _, recorded = even
    steady, state = SteadyEstimate(), state_at(recorded, 100.0)
    first = steady.at(state, 100.0)
    assert isinstance(first, Estimate)
    assert steady.at(state, 100.0 + STEADY / 2) is first
    assert steady.at(state, 100.0 + STEADY * 1.1) is not first
    assert steady.at(state_at(recorded, 50.0), 100.0 + STEADY * 1.2) != first  # another number of ended trials


def test_promotions_to_come_are_part_of_the_queue(recording, stamped) -> None:
    """Sixteen trials of 10 s at the first rung, then five of them for 40 s: 360 s, one after the other."""
    rungs = {"scheduler": "halving", "rungs": (2.0, 8.0), "trainings": (16, 5)}
    start = replace(recording[0].event, trials=16, epochs=8, parallel=1, confirm_top=0, time_budget=0.0, **rungs)
    timed: list[tuple[float, ev.Event]] = [(0.0, start)]
    for number in range(16):
        name, began, about = f"{number:04}", 10.0 * number, {"number": number, "seed": 0, "label": "", "plan": {}}
        paused = ev.TrialPaused(trial=name, rung=0, budget=2.0, metrics={"val_accuracy": 0.9}, seconds=10.0)
        timed += [(began, ev.TrialStarted(trial=name, budget=2.0, **about)), (began + 10, paused)]
    for number in range(5):
        name, began, about = f"{number:04}", 160 + 40.0 * number, {"number": number, "seed": 0, "label": "", "plan": {}}
        promoted = ev.RungDecided(bracket=0, epoch=2, reached=16, kept=number + 1, cutoff=0.9)
        ended = ev.TrialFinished(trial=name, epoch=8, metrics={"val_accuracy": 0.9}, seconds=50.0)
        timed += [(began, promoted), (began, ev.TrialStarted(trial=name, rung=1, waited="paused", **about))]
        timed += [(began + 40, ended)]
    whole = stamped(timed)
    for now in (30.0, 155.0, 160.0, 201.0, 300.0):
        found = estimate(state_at(whole, now), now)
        assert found is not None
        assert found.median == pytest.approx(360.0), now
