"""Who is promoted, and at which budgets: the rungs at which trials are trained anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistlab.experiment import loader
from mnistlab.tuning.schedulers.halving import Ladder, Rung, budgets, finalists, numbered, rungs_of
from tests.simulated.driving import registry

RUNGS = numbered([1.0, 4.0, 16.0])
FILE = """
name = "x"
[data]
dataset = "digits"
[model.mlp]
[training]
epochs = 8
batch_size = {batch}
[search]
"""


def rungs(tmp_path: Path, images: int, search: str, batch: str) -> list[float]:
    file = tmp_path / "x.toml"
    file.write_text(FILE.format(batch=batch) + search)
    found = loader.load(file, (), registry())
    return [rung.budget for rung in rungs_of(found.spec, found.space, images)]


# --- budgets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "search", "batch", "wanted"),
    [
        (50_000, "trials = 64", "64", [0.5, 2, 8]),  # 45 steps are far less than half an epoch
        (50_000, "trials = 24", "64", [0.5, 8]),  # from 2 epochs all that got there would go up
        (2_000, "trials = 64", "64", [2, 8]),
        (2_000, "trials = 64", "{ low = 16, high = 256 }", [2, 8]),  # in the middle of the range, on a log scale
        (2_000, "trials = 64", "[256, 16, 64]", [2, 8]),  # options stand in any order
        (1_297, "trials = 64", "64", [3, 8]),
        (500, "trials = 64", "64", [8]),  # 45 steps are nearly all there are
        (50_000, "trials = 3", "64", [8]),  # all would be trained in full
        (500, "trials = 64\nmin_budget = 1", "64", [1, 3, 8]),
        (50_000, "trials = 64\nmin_budget = 0.25\nreduction_factor = 2", "64", [0.25, 0.5, 1, 2, 4, 8]),
        (50_000, 'trials = 64\nscheduler = "asha"', "64", []),
    ],
)
def test_rungs_follow_from_images_trials_and_batch(tmp_path, images, search, batch, wanted):
    assert rungs(tmp_path, images, search, batch) == wanted


@given(st.integers(1, 1000), st.integers(2, 8), st.floats(0.01, 1000))
def test_budgets_rise_to_the_full_one_and_are_whole_epochs_or_halves(epochs, factor, smallest):
    found = budgets(epochs, factor, smallest)
    assert found == sorted(set(found))
    assert found[-1] == epochs
    assert all(budget.is_integer() or (1 / budget).is_integer() for budget in found)


@given(st.integers(1, 10_000))
def test_finalists_are_few_of_many_and_all_of_few(trials):
    assert 1 <= finalists(trials) <= trials
    assert finalists(trials) <= 2 + trials**0.5


@pytest.mark.parametrize(
    ("trials", "workers", "wanted"),
    [(64, 1, 9), (64, 2, 10), (64, 8, 16), (64, 32, 32), (64, 100, 32), (24, 2, 6), (24, 8, 8), (5, 8, 4), (3, 8, 3)],
)
def test_finalists_keep_all_workers_busy_to_the_end_but_are_not_more_than_the_better_half(trials, workers, wanted):
    assert finalists(trials, workers) == wanted


def test_at_the_end_idle_workers_train_those_that_wait():
    made = Ladder(RUNGS, factor=4, workers=8)
    for number in range(64):
        made.waits(f"{number}", 1, number / 64)
    promoted = []
    while (due := made.next(more=False, live=[2] * len(promoted))) is not None:
        promoted.append(due[0])
        made.goes_up(due[0], 2)
    assert promoted == [f"{number}" for number in reversed(range(48, 64))]


# --- who is promoted ----------------------------------------------------------------------------------------------


def ladder(*values: float, rung: int = 0) -> Ladder:
    made = Ladder(RUNGS, factor=4)
    for number, value in enumerate(values):
        made.waits(f"{number}", rung, value)
    return made


def test_the_best_of_four_goes_up_and_no_other():
    made = ladder(0.1, 0.4, 0.3)
    assert made.next(more=True, live=()) is None
    made.waits("3", 0, 0.2)
    assert made.next(more=True, live=()) == ("1", Rung(1, 4.0))
    made.goes_up("1", 1)
    assert made.next(more=True, live=[1]) is None


def test_a_trial_that_waits_is_promoted_when_it_turns_out_to_be_among_the_best():
    made = ladder(0.9, 0.8, 0.1, 0.1)
    made.goes_up("0", 1)
    for number in range(4, 8):
        made.waits(f"{number}", 0, 0.1)
    assert made.next(more=True, live=()) == ("1", Rung(1, 4.0))


def test_higher_rungs_go_first():
    made = ladder(0.1, 0.2, 0.3, 0.4)
    for number in "abcd":
        made.waits(number, 1, 0.5)
    assert made.next(more=True, live=()) == ("a", Rung(2, 16.0, last=True))


def test_at_the_end_more_are_trained_in_full_once_nobody_is_below():
    made = ladder(0.1, 0.2, 0.3, 0.4, rung=1)
    made.goes_up("3", 2)
    assert made.next(more=True, live=[2]) is None
    assert made.next(more=False, live=[0, 2]) is None  # one that is below may turn out better
    promoted = []
    while (due := made.next(more=False, live=[2])) is not None:
        promoted.append(due[0])
        made.goes_up(due[0], 2)
    assert ["3", *promoted] == ["3", "2", "1"]
    assert len(promoted) + 1 == finalists(4)


def test_a_trial_that_fails_leaves_its_place_to_the_next_best():
    made = ladder(0.1, 0.2, 0.3, 0.4, rung=1)
    promoted = []
    while (due := made.next(more=False, live=())) is not None:
        promoted.append(due[0])
        made.goes_up(due[0], 2)
        made.fails(due[0])
    assert promoted == ["3", "2", "1", "0"]


def test_at_the_end_a_trial_that_is_due_below_is_trained_before_more_of_a_higher_rung():
    """A better one may be among them: 16 trials wait at the first of three rungs, with one worker."""
    made, order = Ladder(RUNGS, factor=4), list[tuple[str, int]]()
    for number in range(16):
        made.waits(f"{number}", 0, number / 16)
    while (due := made.next(more=False, live=())) is not None:
        name, rung = due
        made.goes_up(name, rung.number)
        order.append((name, rung.number))
        if not rung.last:
            made.waits(name, rung.number, {"11": 2.0}.get(name, int(name) / 16))
    below = [name for name, rung in order if rung == 1]
    assert below == ["15", "14", "13", "12", "11"]
    full = [name for name, rung in order if rung == 2]
    assert full[0] == "15"  # the best of the first four at its rung
    assert full[1] == "11"
    assert order.index(("11", 2)) > order.index(("11", 1))


def test_what_is_told_of_a_rung():
    made = ladder(0.1, 0.4, 0.3, 0.2)
    assert made.told(0) == (4, 0, 0.4)
    made.goes_up("1", 1)
    made.goes_up("2", 1)
    assert made.told(0) == (4, 2, 0.3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 9), st.randoms(use_true_random=False))
def test_every_order_ends_with_the_best_by_each_rung_promoted(values, workers, draw):
    """Whatever comes when, the finalists of each rung are its best, and each is trained once at each rung."""
    made, waiting = Ladder(RUNGS, 4, workers), list(enumerate(values))
    live, trained = list[tuple[str, int]](), dict[str, list[int]]()
    while True:
        due = made.next(more=bool(waiting), live=[rung for _, rung in live])
        if due:
            made.goes_up(due[0], due[1].number)
            live.append((due[0], due[1].number))
        elif waiting and len(live) < workers:
            live.append((str(waiting.pop()[0]), 0))
        elif live:
            name, rung = live.pop(draw.randrange(len(live)))
            trained.setdefault(name, []).append(rung)
            if rung < 2:
                made.waits(name, rung, values[int(name)])
        else:
            break
    assert all(rungs == list(range(len(rungs))) for rungs in trained.values())
    full = [name for name, rungs in trained.items() if 2 in rungs]
    ranked = sorted(values, reverse=True)
    assert len(full) >= finalists(sum(1 in rungs for rungs in trained.values()), workers)
    assert max(values[int(name)] for name in full) == ranked[0]
