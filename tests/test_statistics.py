from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_rel

from mnistlab.statistics import Interval, mean_sd, paired_difference, paired_mean_difference, tie_groups, wilson


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
    assert not paired_mean_difference(list(a.mean(axis=1)), list(b.mean(axis=1))).tied
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


# --- ranks --------------------------------------------------------------------------------------------------------


def test_competition_ranks_leave_gaps():
    assert tie_groups([9, 9, 8, 8, 8, 7], lambda a, b: a == b) == (1, 1, 3, 3, 3, 6)


def test_a_chain_of_small_steps_is_compared_with_its_leader():
    assert tie_groups([10, 9, 8, 7, 6], lambda a, b: a - b <= 1) == (1, 1, 3, 3, 5)


def test_nothing_ranks_as_nothing():
    assert tie_groups([], lambda a, b: True) == ()
