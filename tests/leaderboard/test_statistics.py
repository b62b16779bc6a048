from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_rel

from mnistlab.leaderboard.statistics import (
    Interval,
    expected_maximum,
    holm,
    mcnemar,
    mean_interval,
    mean_sd,
    p_best,
    paired_bootstrap,
    paired_difference,
    paired_mean_difference,
    selection_gap,
    tie_groups,
    wilson,
    winners_curse,
)


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (1, 10), (9960, 10_000), (10_000, 10_000), (1, 1)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_is_scipys_for_whole_counts(correct: int, n: int, confidence: float):
    expected = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    interval = wilson(correct, n, confidence)
    assert interval.low == pytest.approx(expected.low, abs=1e-12)
    assert interval.high == pytest.approx(expected.high, abs=1e-12)


def test_wilson_reproduces_the_published_row():
    interval = wilson(9_950, 10_000)
    assert (round(100 * interval.low, 2), round(100 * interval.high, 2)) == (99.34, 99.62)


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.floats(0, n), st.just(n))))
def test_wilson_takes_mean_counts_and_holds_the_proportion(case: tuple[float, int]):
    correct, n = case
    interval = wilson(correct, n)
    assert 0 <= interval.low <= correct / n + 1e-12
    assert correct / n - 1e-12 <= interval.high <= 1


@pytest.mark.parametrize(("correct", "n", "confidence"), [(1, 0, 0.95), (-1, 10, 0.95), (11, 10, 0.95), (1, 10, 1.0)])
def test_wilson_refuses_what_is_no_proportion(correct: float, n: int, confidence: float):
    with pytest.raises(ValueError, match="must hold"):
        wilson(correct, n, confidence)


def test_wilson_covers_what_it_says():
    rng = np.random.default_rng(1)
    hits = [0.97 in wilson(int(rng.binomial(1_000, 0.97)), 1_000) for _ in range(4_000)]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02)


def test_mean_sd_uses_n_minus_one_and_says_none_for_a_single_value():
    assert mean_sd([1.0, 2.0, 4.0]).sd == pytest.approx(np.std([1, 2, 4], ddof=1))
    assert mean_sd([0.5]).sd is None
    assert mean_sd([0.1] * 7).sd == pytest.approx(0.0)


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_mean_sd_refuses_what_has_no_mean(values: list[float]):
    with pytest.raises(ValueError, match="finite values"):
        mean_sd(values)


# --- the paired difference ----------------------------------------------------------------------------------------

IMAGES = 10_000


def outcomes(
    rng: np.random.Generator, *, seeds: int, sd: float, error: float = 0.005, edge: float = 0.0, own: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Two plans, a better than b by `edge`. `sd` is the spread of a plan's accuracy between seeds.

    The share `own` of a plan's errors are its own, made with every seed; the others hit other images each time.
    """
    right = []
    for rate in (error - edge, error):
        always = rng.random(IMAGES) < own * rate
        shifted = np.clip((1 - own) * rate + rng.normal(0, sd, size=seeds), 0, 1)
        wrong = np.broadcast_to(always, (seeds, IMAGES)).copy()
        for row, chance in zip(wrong, shifted, strict=True):
            row[rng.integers(IMAGES, size=rng.binomial(IMAGES, chance))] = True
        right.append(~wrong)
    return right[0], right[1]


@pytest.mark.parametrize("own", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sd", [0.0, 0.000_5, 0.002])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_plans_are_rarely_told_apart(seeds: int, sd: float, own: float):
    rng = np.random.default_rng(17)
    told = sum(not paired_difference(*outcomes(rng, seeds=seeds, sd=sd, own=own)).tied for _ in range(400))
    # 5 % is 20, with a standard deviation of 4.4. A two-way bootstrap tells up to 23 % apart where few seeds differ,
    # Student's interval of the seeds alone 95 % where each plan errs on images of its own.
    assert told <= 28


@pytest.mark.parametrize("own", [0.0, 0.5, 1.0])
def test_a_clear_difference_is_found_with_its_sign(own: float):
    rng = np.random.default_rng(19)
    drawn = [outcomes(rng, seeds=5, sd=0.000_5, error=0.01, edge=0.005, own=own) for _ in range(40)]
    assert sum(paired_difference(a, b).interval.low > 0 for a, b in drawn) >= 36
    assert sum(paired_difference(b, a).interval.high < 0 for a, b in drawn) >= 36


def test_the_difference_is_covered_where_there_is_one():
    rng = np.random.default_rng(21)
    drawn = [outcomes(rng, seeds=3, sd=0.001, error=0.02, edge=0.006) for _ in range(250)]
    assert np.mean([0.006 in paired_difference(a, b).interval for a, b in drawn]) >= 0.93


def test_on_independent_images_the_interval_is_students_over_the_seeds():
    a, b = outcomes(np.random.default_rng(23), seeds=5, sd=0.005, error=0.05, own=0.0)
    expected = paired_mean_difference(list(a.mean(axis=1)), list(b.mean(axis=1))).interval
    found = paired_difference(a, b).interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=0.02)


def test_seeds_that_err_alike_leave_the_images_interval():
    a, b = (np.repeat(x[:1], 4, axis=0) for x in outcomes(np.random.default_rng(25), seeds=2, sd=0.0))
    gain = a[0].astype(float) - b[0]
    reach = 1.959964 * gain.std(ddof=1) / math.sqrt(IMAGES) + 1 / IMAGES
    found = paired_difference(a, b)
    assert (found.interval.low, found.interval.high) == pytest.approx((gain.mean() - reach, gain.mean() + reach))


def test_two_seeds_that_agree_by_chance_are_not_believed():
    a, b = np.ones((2, 2, 250), dtype=bool)
    b[0, 0] = b[1, 1] = False  # one more error with each seed, on another image: no spread between the seeds
    assert paired_difference(a, b).tied


def test_a_wider_confidence_is_a_wider_interval():
    a, b = outcomes(np.random.default_rng(27), seeds=3, sd=0.001)
    narrow, wide = (paired_difference(a, b, confidence=level).interval for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("images", [1, 1_000])
def test_one_seed_tells_nothing_of_others(images: int):
    found = paired_difference(np.ones((1, images), bool), np.zeros((1, images), bool))
    assert (found.mean, found.tied) == (1.0, True)
    assert found.interval == Interval(-math.inf, math.inf)


def test_one_image_tells_nothing_of_others():
    assert paired_difference(np.ones((4, 1), bool), np.zeros((4, 1), bool)).tied


def test_plans_that_answer_alike_are_tied():
    a, _ = outcomes(np.random.default_rng(9), seeds=3, sd=0.0)
    assert paired_difference(a, a).interval == Interval(-1 / IMAGES, 1 / IMAGES)
    assert paired_difference(a, a).tied


@pytest.mark.parametrize(("images", "tied"), [(5, True), (7, False)])
def test_a_handful_of_images_is_judged_as_mcnemar_judges_it(images: int, tied: bool):
    a, b = np.ones((2, 5, IMAGES), dtype=bool)
    b[:, :images] = False  # in all of the five seeds: exactly, 5 to 0 has p = 0.06 and 7 to 0 has p = 0.02
    assert paired_difference(a, b).tied == tied


def test_five_seeds_of_ten_thousand_images_take_little_time():
    rng = np.random.default_rng(15)
    a, b = rng.random((2, 5, 10_000)) < 0.995
    started = time.process_time()
    paired_difference(a, b)
    assert time.process_time() - started < 1.0  # about 1 ms; generous, because this is no benchmark


@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((3,), (3,)), ((0, 3), (0, 3)), ((2, 0), (2, 0))])
def test_paired_difference_refuses_other_shapes(shapes: tuple[tuple[int, ...], tuple[int, ...]]):
    with pytest.raises(ValueError, match="one shape"):
        paired_difference(np.zeros(shapes[0], bool), np.zeros(shapes[1], bool))


def test_paired_mean_difference_is_students():
    a, b = [0.1, 0.2, 0.35, 0.3], [0.05, 0.25, 0.2, 0.1]
    expected = ttest_rel(a, b).confidence_interval(0.95)
    found = paired_mean_difference(a, b)
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("values", [[], [0.5]])
def test_fewer_than_two_pairs_can_tell_nothing(values: list[float]):
    assert paired_mean_difference(values, [v - 0.4 for v in values]).tied


def test_p_is_where_the_interval_just_reaches_nothing():
    a, b = outcomes(np.random.default_rng(29), seeds=4, sd=0.000_5, error=0.01, edge=0.004)
    p = paired_difference(a, b).p
    assert 0.000_01 < p < 0.2
    assert paired_difference(a, b, confidence=1 - 1.02 * p).interval.low > 0
    assert paired_difference(a, b, confidence=1 - 0.98 * p).tied


def test_p_of_paired_means_is_students():
    a, b = [0.1, 0.2, 0.35, 0.3], [0.05, 0.25, 0.2, 0.1]
    assert paired_mean_difference(a, b).p == pytest.approx(ttest_rel(a, b).pvalue)


def test_plans_that_answer_alike_have_no_evidence_against_each_other():
    a, _ = outcomes(np.random.default_rng(31), seeds=3, sd=0.001)
    assert paired_difference(a, a).p == 1.0
    assert paired_mean_difference([0.5, 0.6], [0.5, 0.6]).p == 1.0


def test_the_interval_of_a_mean_covers_what_it_says():
    rng = np.random.default_rng(33)
    drawn = rng.normal(0.99, 0.001, size=(4_000, 5))
    assert np.mean([0.99 in interval for v in drawn if (interval := mean_interval(list(v)))]) == pytest.approx(
        0.95, abs=0.015
    )


# --- the bootstrap ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [80, pytest.param(200, marks=pytest.mark.chaos)])
def test_the_bootstrap_covers_where_seeds_are_many_and_errors_are_the_plans_own(count: int):
    rng = np.random.default_rng(35)
    drawn = (outcomes(rng, seeds=20, sd=0.0, edge=0.002, own=1.0) for _ in range(count))
    hits = [0.002 in paired_bootstrap(a, b, rng, resamples=300).interval for a, b in drawn]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("count", [25, pytest.param(60, marks=pytest.mark.chaos)])
def test_the_bootstrap_covers_too_much_where_errors_are_single_accidents(count: int):
    rng = np.random.default_rng(36)
    drawn = (outcomes(rng, seeds=10, sd=0.000_5, edge=0.001, own=0.5) for _ in range(count))
    assert np.mean([0.001 in paired_bootstrap(a, b, rng, resamples=200).interval for a, b in drawn]) >= 0.95


def test_the_bootstrap_is_the_difference_and_the_same_for_the_same_generator():
    a, b = outcomes(np.random.default_rng(37), seeds=5, sd=0.001, edge=0.004)
    first, again = (paired_bootstrap(a, b, np.random.default_rng(1)) for _ in range(2))
    assert first == again
    assert first.mean == pytest.approx(a.mean() - b.mean())
    assert first.interval.low > 0
    assert first.p < 0.05


def test_the_bootstrap_goes_in_blocks(monkeypatch):
    a, b = outcomes(np.random.default_rng(39), seeds=3, sd=0.001)
    told = int((a != b).any(axis=0).sum()) + 1
    monkeypatch.setattr("mnistlab.leaderboard.paired.BLOCK", 7 * told)  # 7 resamples at once
    sizes: list[int] = []

    class Watched:
        def __init__(self) -> None:
            self.rng = np.random.default_rng(0)

        def multinomial(self, n, chances, size):
            sizes.append(size * len(chances))
            return self.rng.multinomial(n, chances, size=size)

    paired_bootstrap(a, b, Watched(), resamples=100)
    assert max(sizes) <= 7 * told
    assert len(sizes) == 2 * 15


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_bootstrap_of_what_can_not_be_resampled_has_no_interval(seeds: int):
    a, b = outcomes(np.random.default_rng(41), seeds=3, sd=0.001)
    found = paired_bootstrap(a[:seeds], (b if seeds == 1 else a)[:seeds], np.random.default_rng(0))
    assert (found.interval, found.p) == (Interval(-math.inf, math.inf), 1.0)


# --- McNemar and Holm ---------------------------------------------------------------------------------------------


def discordant(only_a: int, only_b: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.ones((2, 1_000), dtype=bool)
    b[:only_a], a[only_a : only_a + only_b] = False, False
    return a, b


@pytest.mark.parametrize(("wins", "losses"), [(6, 0), (9, 1), (12, 3), (15, 5), (21, 9), (33, 17)])
def test_mcnemar_needs_what_the_published_table_says(wins: int, losses: int):
    assert mcnemar(*discordant(wins, losses)).p < 0.05
    assert mcnemar(*discordant(losses, wins)).p < 0.05
    assert mcnemar(*discordant(wins - 1, losses + 1)).p >= 0.05


def test_mcnemar_is_the_exact_binomial_test():
    found = mcnemar(*discordant(14, 5))
    assert (found.only_a, found.only_b) == (14, 5)
    assert found.p == pytest.approx(binomtest(14, 19).pvalue)
    assert mcnemar(*discordant(0, 0)).p == 1.0


def test_mcnemar_refuses_other_shapes():
    with pytest.raises(ValueError, match="one shape"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


def test_holm_by_hand():
    # sorted: 0.01 * 4 = 0.04; 0.02 * 3 = 0.06; 0.03 * 2 = 0.06; 0.2 * 1 = 0.2
    assert holm([0.03, 0.2, 0.01, 0.02]) == pytest.approx((0.06, 0.2, 0.04, 0.06))
    # a later one is never below an earlier one: 0.02 * 2 = 0.04, then 0.021 * 1 counts as 0.04
    assert holm([0.02, 0.021]) == pytest.approx((0.04, 0.04))
    assert holm([0.5, 0.6]) == (1.0, 1.0)
    assert holm([]) == ()


def test_holm_counts_comparisons_that_told_nothing():
    assert holm([0.01, 0.02], 6) == pytest.approx(holm([0.01, 0.02, 1, 1, 1, 1])[:2])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_makes_a_claim_stronger_and_keeps_the_order(values: list[float]):
    corrected = holm(values)
    assert all(p <= c <= 1 for p, c in zip(values, corrected, strict=True))
    pairs = sorted(zip(values, corrected, strict=True))
    assert [c for _, c in pairs] == sorted(corrected)


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match="0 to 1"):
        holm([0.5, 1.5])


# --- luck ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "expected"), [(1, 0), (5, 1.16), (10, 1.54), (30, 2.04), (100, 2.51), (300, 2.88)])
def test_the_expected_maximum_is_that_of_the_published_table(n: int, expected: float):
    assert expected_maximum(n) == pytest.approx(expected, abs=0.005)


def test_the_expected_maximum_is_exact_where_there_is_a_formula():
    assert expected_maximum(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-9)
    assert expected_maximum(3) == pytest.approx(1.5 / math.sqrt(math.pi), abs=1e-9)
    assert expected_maximum(10**9) == pytest.approx(6.0, abs=0.2)
    with pytest.raises(ValueError, match="n >= 1"):
        expected_maximum(0)


def test_the_winners_curse_is_what_a_simulation_of_equal_plans_finds():
    drawn = np.random.default_rng(43).normal(0, 0.000_5, size=(20_000, 24)).max(axis=1)
    assert winners_curse(24, 0.000_5) == pytest.approx(drawn.mean(), rel=0.02)


def test_the_chance_to_be_best_is_shared_by_equals_and_sums_to_one():
    rng = np.random.default_rng(45)
    equal = rng.normal(0.99, 0.001, size=5)
    found = p_best(np.array([equal, equal, equal - 0.01]), rng)
    assert found == (0.5, 0.5, 0.0)
    mixed = p_best(rng.normal(0.99, 0.001, size=(4, 6)), rng)
    assert sum(mixed) == pytest.approx(1.0)
    assert all(0 <= share <= 1 for share in mixed)


@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.zeros(3), np.array([[1.0, math.nan]])])
def test_the_chance_to_be_best_needs_finite_values(values: np.ndarray):
    with pytest.raises(ValueError, match="finite values"):
        p_best(values, np.random.default_rng(0))


def gap_outcomes(rng: np.random.Generator, seeds: int, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of one plan on validation and test images, the former better by `gap`."""
    shift = rng.normal(0, 0.002, size=(seeds, 1))
    parts = []
    for rate, images in ((0.02, 3_000), (0.02 + gap, 4_000)):
        hard = rng.gamma(0.3, 1 / 0.3, size=images)
        parts.append(rng.random((seeds, images)) >= np.clip((rate + shift) * hard, 0, 1))
    return parts[0], parts[1]


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize("count", [120, pytest.param(400, marks=pytest.mark.chaos)])
def test_the_selection_gap_is_covered(count: int, seeds: int):
    rng = np.random.default_rng(47)
    truth = float(np.mean([v.mean() - t.mean() for v, t in (gap_outcomes(rng, 5, 0.005) for _ in range(600))]))
    hits = [truth in selection_gap(*gap_outcomes(rng, seeds, 0.005)).interval for _ in range(count)]
    assert np.mean(hits) >= 0.93  # the images' part is an upper bound: it may cover more


def test_the_selection_gap_of_one_seed_is_a_number_without_an_interval():
    found = selection_gap(np.ones((1, 10), bool), np.zeros((1, 20), bool))
    assert (found.mean, found.interval.low, found.interval.high) == (1.0, -math.inf, math.inf)
    with pytest.raises(ValueError, match="same seeds"):
        selection_gap(np.ones((1, 10), bool), np.zeros((2, 20), bool))


# --- ranks --------------------------------------------------------------------------------------------------------


def test_competition_ranks_leave_gaps():
    assert tie_groups([9, 9, 8, 8, 8, 7], lambda a, b: a == b) == (1, 1, 3, 3, 3, 6)


def test_a_chain_of_small_steps_is_compared_with_its_leader():
    assert tie_groups([10, 9, 8, 7, 6], lambda a, b: a - b <= 1) == (1, 1, 3, 3, 5)


def test_nothing_ranks_as_nothing():
    assert tie_groups([], lambda a, b: True) == ()
