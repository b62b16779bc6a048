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


# --- the paired bootstrap -----------------------------------------------------------------------------------------


def outcomes(rng: np.random.Generator, seeds: int, images: int, edge: float) -> tuple[np.ndarray, np.ndarray]:
    """Two plans on images of differing difficulty, seeds of differing luck, a better than b by `edge` on average."""
    difficulty = rng.beta(12, 2, size=images)
    luck = rng.normal(0, 0.02, size=(2, seeds, 1))
    chance = np.clip(difficulty * 0.9 + luck, 0, 1)
    chance[0] = np.clip(chance[0] + edge, 0, 1)
    drawn = rng.random((2, seeds, images)) < chance
    return drawn[0], drawn[1]


def test_paired_difference_matches_a_bootstrap_written_out():
    rng = np.random.default_rng(3)
    a, b = outcomes(rng, 4, 300, 0.03)
    means = []
    for _ in range(4_000):
        rows, columns = rng.integers(0, 4, size=4), rng.integers(0, 300, size=300)
        means.append(a[np.ix_(rows, columns)].mean() - b[np.ix_(rows, columns)].mean())
    low, high = np.quantile(means, [0.025, 0.975])
    found = paired_difference(a, b, resamples=4_000)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert found.interval.low == pytest.approx(low, abs=0.004)
    assert found.interval.high == pytest.approx(high, abs=0.004)


def test_paired_difference_covers_the_true_difference():
    rng = np.random.default_rng(5)
    hits = [0.04 in paired_difference(*outcomes(rng, 5, 200, 0.04), resamples=400, seed=i).interval for i in range(300)]
    assert np.mean(hits) >= 0.90


def test_paired_difference_finds_a_difference_and_its_sign():
    rng = np.random.default_rng(7)
    a, b = outcomes(rng, 5, 2_000, 0.1)
    assert paired_difference(a, b).interval.low > 0
    assert paired_difference(b, a).interval.high < 0
    assert not paired_difference(a, b).tied


def test_plans_that_answer_alike_are_tied():
    a, _ = outcomes(np.random.default_rng(9), 3, 100, 0.0)
    assert paired_difference(a, a).interval == Interval(0.0, 0.0)
    assert paired_difference(a, a).tied


def test_paired_difference_is_seeded():
    a, b = outcomes(np.random.default_rng(11), 3, 100, 0.02)
    assert paired_difference(a, b, seed=4) == paired_difference(a, b, seed=4)
    assert paired_difference(a, b, seed=4) != paired_difference(a, b, seed=5)


def test_many_patterns_are_resampled_in_chunks(monkeypatch: pytest.MonkeyPatch):
    a, b = outcomes(np.random.default_rng(13), 8, 400, 0.02)
    whole = paired_difference(a, b)
    monkeypatch.setattr("mnistlab.statistics.CELLS", 10_000)
    chunked = paired_difference(a, b)
    assert chunked.mean == whole.mean
    assert chunked.interval.low == pytest.approx(whole.interval.low, abs=0.003)
    assert chunked.interval.high == pytest.approx(whole.interval.high, abs=0.003)


def test_five_seeds_of_ten_thousand_images_take_little_time():
    rng = np.random.default_rng(15)
    a, b = rng.random((2, 5, 10_000)) < 0.995
    started = time.process_time()
    paired_difference(a, b)
    assert time.process_time() - started < 2.0  # about 0.02 s; generous, because this is no benchmark


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
