"""The gain over the defaults is asked in advance, at its own level: ranks and sentence agree with the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnistlab.console.ranking import notes
from mnistlab.leaderboard import Gain, rank, rank_together
from mnistlab.leaderboard.family import Standings, standings
from mnistlab.leaderboard.gain import gain_text
from mnistlab.leaderboard.prose.verdict import verdict
from mnistlab.leaderboard.question import Question
from mnistlab.leaderboard.racing import difference
from mnistlab.leaderboard.statistics import Difference, Interval
from mnistlab.store.results import ReplicateResult, RunRecord
from tests.leaderboard.test_one_family import check_gain, check_order, check_rows, check_words, noisy, values
from tests.leaderboard.test_ranking import fail, record, replicates, trial

METRIC = "val_loss"


def paid(plans: Sequence[Sequence[ReplicateResult]], seeds: int, *left: Any, run: str = "a", **about: Any) -> RunRecord:
    """A run of these plans, of which 0000 is that of all defaults; `left` are the entries of what left a race."""
    names = [f"{n:04}" for n in range(len(plans))]
    entry = {"type": "planned", "trials": names, "seeds": seeds, "baseline": {"trial": "0000", "added": True}}
    trials, confirmed = [trial(n) for n in range(len(plans))], [one for plan in plans for one in plan]
    made = record(
        *trials, confirmed=confirmed, confirmations=(entry, *left), **{**about, "metric": METRIC, "metrics": [METRIC]}
    )
    return replace(made, path=f"runs/{run}", run={**made.run, "run": run})


def losses(table: Sequence[Sequence[float]]) -> list[list[ReplicateResult]]:
    return [values(n, METRIC, *row) for n, row in enumerate(table)]


def dropped(trial: str, leader: str, seeds: int) -> dict[str, Any]:
    return {"type": "dropped", "trial": trial, "leader": leader, "seeds": seeds, "confidence": 0.999}


# --- whatever the results are -------------------------------------------------------------------------------------


@st.composite
def runs(draw: st.DrawFn) -> list[RunRecord]:
    """One run or two, of some plans whose seeds are far apart or near, fail, were never trained, or left a race."""
    return [draw(one_run(name)) for name in "ab"[: draw(st.integers(1, 2))]]


@st.composite
def one_run(draw: st.DrawFn, name: str) -> RunRecord:
    plans, seeds = draw(st.integers(2, 7)), draw(st.sampled_from([1, 2, 3, 3, 4, 5, 9]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    apart, drifting = draw(st.sampled_from([0.0, 0.05, 0.2])), draw(st.sampled_from([0.0, 0.5]))
    failing, missing = draw(st.sampled_from([(0, 0), (0, 0), (0, 0), (0.1, 0), (0.1, 0.3)]))
    widest = draw(st.sampled_from([-0.5, -3]))
    means, spreads = rng.normal(1.0, apart, plans), 10 ** rng.uniform(widest - 2, widest, plans)
    later = rng.normal(0.0, drifting, plans)[:, None] * (np.arange(seeds) >= 1)  # the first seed may mislead
    made: list[list[ReplicateResult]] = []
    for mine in losses((rng.normal(means[:, None], spreads[:, None], (plans, seeds)) + later).tolist()):
        kept = [one for one in mine if rng.random() >= missing] or mine[:1]
        made.append([replace(one, cause="nan", metrics={}) if rng.random() < failing else one for one in kept])
    if cut := draw(st.booleans()):  # all lack seeds, and the last plan has but the first one
        made[-1] = made[-1][:1]
    left: list[Any] = []
    if seeds > 3 and draw(st.booleans()):
        leader, loser = rng.permutation(range(1, plans))[:2].tolist() if plans > 2 else (0, 1)
        made[loser] = made[loser][: seeds - 1]
        left = [dropped(f"{loser:04}", f"{leader:04}", len(made[loser]))]
    racing = {"experiment": {"confirm": {"racing": bool(left), "seeds": seeds}}}
    return paid(made, seeds + cut, *left, run=name, **racing)


@pytest.mark.simulated
@settings(max_examples=600, deadline=None)
@given(runs())
def test_ranks_and_sentence_agree_whatever_the_results_are(records: list[RunRecord]) -> None:
    board, judged = rank_together(records), standings(records, METRIC)
    check_order(judged.family)
    if board.champion is None or board.champion.state != "confirmed":
        assert board.gain is None
        return
    check_rows(board, judged.family)
    check_words(board)
    check_gain(board, judged)
    check_question(judged)


def check_question(judged: Standings) -> None:
    """It is answered by nothing but the p-value of its pair, and its interval holds 0 where no gain is claimed."""
    asked, found = judged.family.question, judged.found
    if asked is None:
        return
    first, defaults = (found[i] for i in asked.pair)
    best = min(one.standing for one in found if one.state == "confirmed")
    others = [one for one in found if one.state == "confirmed" and one.trial.trial != "0000"]
    assert asked.best_of == sum(one.standing == best or one.left is not None for one in others)
    assert (first.standing, first.record.path) == (best, defaults.record.path)
    assert first.value == min(one.value or 0 for one in found if one.standing == best and one.state == "confirmed")
    gap = difference(first.replicates, defaults.replicates, METRIC, 1 - min(0.05, 0.1 / asked.best_of))
    told = asked.pair[1] in judged.family.below[asked.pair[0]]
    assert told == (gap.interval.high < 0) == (gap.p <= min(0.05, 0.1 / asked.best_of) and gap.mean < 0)


# --- one case of each kind ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("plans", "level"), [(1, 0.05), (2, 0.05), (3, 0.1 / 3), (4, 0.025), (10, 0.01)])
def test_the_level_is_that_of_one_sided_claims_of_all_and_never_laxer_than_usual(plans: int, level: float) -> None:
    assert Question((0, 1), plans).level == pytest.approx(level)


def best_of(one: RunRecord) -> int:
    gain = rank(one).gain
    assert gain
    return gain.best_of


def test_whoever_might_have_been_the_champion_counts() -> None:
    table = [noisy(1.0 - 0.01 * n, 0.1) for n in range(5)]
    plans = losses(table)
    assert best_of(paid(plans, 5)) == 4
    assert best_of(paid([*plans[:3], fail(plans[3], 2), plans[4]], 5)) == 3  # that one ranks below, and can't be it
    raced = [*plans[:3], plans[3][:4], plans[4]]
    assert best_of(paid(raced, 5, dropped("0003", "0004", 4))) == 4  # it might have, but for its own results


def test_of_runs_that_are_ranked_together_the_plans_of_all_count() -> None:
    one, other = (paid(losses([noisy(1.0 - 0.01 * n, 0.1) for n in range(k)]), 5, run=f"{k}") for k in (3, 4))
    gain = rank_together([one, other]).gain
    assert gain
    assert gain.best_of == 5


def test_a_gain_is_claimed_that_the_family_of_all_pairs_would_miss() -> None:
    """Of three pairs Holm's method would ask for p = 0.017 first. What the sentence tells, the ranks tell too."""
    table = [noisy(1.00, 0.05), noisy(0.91, 0.005), noisy(0.92, 0.2)]
    board = rank(paid(losses(table), 5))
    assert board.gain
    assert board.gain.difference
    assert 0.05 / 3 < board.gain.difference.p < 0.05
    assert board.gain.kind == "gained"
    assert board.gain.difference.interval.low > 0
    assert [(row.trial, row.ranks) for row in board.rows] == [("0001", "1-2"), ("0002", "1-3"), ("0000", "2-3")]


def test_what_is_claimed_of_the_gain_leaves_their_whole_risk_to_the_other_pairs_and_no_more() -> None:
    """Two pairs are left of three, so that the smaller p has to reach 0.025."""
    for spread in (0.045, 0.035):
        table = [noisy(1.00, 0.001), noisy(0.90, 0.004), noisy(0.91, spread)]
        judged = standings([paid(losses(table), 5)], METRIC)
        p = difference(judged.found[1].replicates, judged.found[2].replicates, METRIC).p
        assert (p <= 0.025) == (spread < 0.04)
        assert 0.01 < p < 0.05
        assert len(judged.family.below[0]) == 1
        assert len(judged.family.below[1]) == (p <= 0.025)


def test_a_gain_that_is_not_claimed_is_told_by_no_rank() -> None:
    """The four plans are so unlike that Holm's method would come to the last pair, and ask for p = 0.05 only."""
    table = [noisy(0.50, 0.001), noisy(0.45, 0.024), noisy(5.0, 0.002), noisy(6.0, 0.003), noisy(7.0, 0.004)]
    board = rank(paid(losses(table), 5))
    assert board.gain
    assert board.gain.difference
    assert 0.025 < board.gain.difference.p < 0.05
    assert (board.gain.kind, board.gain.difference.tied) == ("tied", True)
    assert [row.rank for row in board.rows] == ["1=", "1=", "3", "4", "5"]


def test_no_chain_of_plans_tells_a_gain_that_the_question_does_not() -> None:
    """The champion is told from the second plan and that from the defaults; it shares one seed with these."""
    first, second = values(1, METRIC, *noisy(0.1, 0.001, 9)), values(2, METRIC, *noisy(0.2, 0.0017, 9))
    one = paid([values(0, METRIC, *noisy(0.3, 0.0023, 9))[4:], first[:5], second], 5)
    board = rank(one)
    assert board.gain
    assert (board.rows[0].trial, board.gain.kind) == ("0001", "unknown")
    assert {row.trial: row.rank_low for row in board.rows} == {"0001": 1, "0002": 2, "0000": 1}


def test_where_another_plan_is_surely_better_the_family_decides_about_that_one() -> None:
    """All lack seeds and share one, with which the second plan was lucky: it has the best mean, and is surely worse."""
    sure, lucky, defaults = noisy(0.50, 0.001, 9), noisy(0.60, 0.001, 9), noisy(0.80, 0.003, 9)
    lucky[0] = 0.4
    lacking = [values(0, METRIC, *defaults), values(1, METRIC, *sure), values(2, METRIC, *lucky)]
    far = values(3, METRIC, 0.9)
    board = rank(paid([*lacking, far], 10))
    assert board.gain
    assert (board.rows[0].trial, board.gain.kind, board.gain.best_of) == ("0001", "gained", 0)
    assert "95 % interval, corrected for all pairs: " in gain_text(METRIC, board.gain)


def test_an_interval_says_for_what_it_is_corrected() -> None:
    gap = Difference(0.2, Interval(0.08, 0.34), 0.01, 1_000)
    said = {n: gain_text("val_loss", Gain("gained", "0000", 5, gap, best_of=n)) for n in (0, 1, 2, 3)}
    start = "Searching gained 0.2 in val_loss over the defaults (95 % interval"
    assert said[1] == said[2] == f"{start} 0.08 to 0.34)."
    assert said[3] == f"{start}, corrected for the best of 3: 0.08 to 0.34)."
    assert said[0] == f"{start}, corrected for all pairs: 0.08 to 0.34)."


def test_where_only_another_plan_is_surely_better_the_sentence_says_so() -> None:
    """The champion's seeds are far apart; the second plan's are not."""
    board = rank(paid(losses([noisy(1.0, 0.001), noisy(0.8, 0.3), noisy(0.9, 0.0012)]), 5))
    assert [row.trial for row in board.rows] == ["0001", "0002", "0000"]
    better = "but 1 other plan of the search is surely better. On mnist"
    assert verdict(board).startswith(f"5 shared seeds can't tell the champion from the defaults, {better}")


def test_the_ranges_hold_with_what_both_risks_leave() -> None:
    one = paid(losses([noisy(1.0 - 0.01 * n, 0.1) for n in range(3)]), 5)
    bare = replace(one, confirmations=({"type": "planned", "trials": ["0000", "0001", "0002"], "seeds": 5},))
    for run, sure in ((one, "90 %"), (bare, "95 %")):
        (note,) = (text for text in notes(rank(run)) if text.startswith("Range: "))
        assert note.endswith(f"all ranges hold together with {sure}.")


def test_a_tie_with_the_defaults_could_have_shown_what_the_sentence_says() -> None:
    board = rank(paid(losses([noisy(1.0, 0.1), noisy(0.98, 0.11), noisy(0.97, 0.13)]), 5))
    assert board.gain
    assert board.gain.kind == "tied"
    (tie,) = (row.tie for row in board.rows if row.baseline)
    assert tie
    assert tie.detectable == board.gain.detectable


# --- how often it is wrong, and how often it tells ----------------------------------------------------------------


def told(plans: int, gain: float, seeds: int = 5, searches: int = 400) -> tuple[float, float]:
    """Return how often a gain is told, and how often that or any pair of the ranks, of plans that are else equal."""
    rng, gained, anything = np.random.default_rng(1), 0, 0
    for _ in range(searches):
        table = rng.normal(0.0, 0.1, (plans + 1, seeds))
        table[1:] -= gain
        judged = standings([paid(losses(table.tolist()), seeds)], METRIC)
        family = judged.family
        gained += any(judged.found[i].trial.trial == "0000" for i in family.below[0])
        anything += any(family.above)
    return gained / searches, anything / searches


@pytest.mark.simulated
@pytest.mark.parametrize(("plans", "seeds"), [(3, 3), (3, 10), (5, 5)])
def test_of_equal_plans_few_gains_are_told_and_few_pairs(plans: int, seeds: int) -> None:
    gained, anything = told(plans, 0.0, seeds)
    assert gained <= 0.05 + 0.02  # 0.02 is two standard errors of what was counted
    assert gained <= anything <= 0.10


@pytest.mark.simulated
def test_most_gains_of_two_deviations_between_seeds_are_told() -> None:
    assert told(3, 0.2)[0] > 0.65


def test_defaults_that_left_a_race_tell_nothing_but_what_the_race_has() -> None:
    plans = losses([noisy(1.0, 0.01)[:4], noisy(0.8, 0.01), noisy(0.7, 0.01)])
    for leader, kind in (("0002", "gained"), ("0001", "unknown")):
        board = rank(paid(plans, 5, dropped("0000", leader, 4)))
        assert board.gain
        assert (board.gain.kind, board.gain.best_of) == (kind, 0), leader


def test_a_champion_that_left_a_race_is_not_asked_about() -> None:
    """All others have lost a seed; whom it lost to is not on the record of an older version."""
    plans = losses([noisy(1.0, 0.01), noisy(0.8, 0.01)[:4], noisy(0.7, 0.01)])
    older = {"type": "dropped", "trial": "0001"}
    board = rank(paid([fail(plans[0], 2), plans[1], fail(plans[2], 2)], 5, older))
    assert board.gain
    assert (board.rows[0].trial, board.gain.kind, board.gain.best_of) == ("0001", "unknown", 0)
    assert not any(row.rank_low and row.rank_low > 1 for row in board.rows if row.baseline)


def test_accuracies_are_asked_about_image_by_image() -> None:
    one = record(
        *(trial(n) for n in (1, 2)),
        confirmed=replicates(1, 0.80) + replicates(2, 0.95),
        confirmations=({"type": "planned", "trials": ["0001"], "seeds": 5, "baseline": {"trial": "0001"}},),
    )
    gain = rank(one).gain
    assert gain
    assert gain.difference
    assert (gain.kind, gain.best_of, gain.difference.images) == ("gained", 1, 1_000)
