"""An interval that says nothing is never shown as certainty: small counts, equal values, single seeds."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from mnistlab.console.dashboard.tables import mean_text
from mnistlab.leaderboard.intervals import UNKNOWN, Difference, Interval
from mnistlab.leaderboard.statistics import (
    exact_difference,
    mean_interval,
    on_other_images,
    paired_bootstrap,
    paired_difference,
    paired_mean_difference,
    selection_gap,
    wilson,
)
from mnistlab.util.text import range_text

pytestmark = pytest.mark.simulated

COUNTS = [*itertools.product(range(4), repeat=3)]  # of right answers of three seeds, out of `IMAGES`
IMAGES = 40


def says_what_it_knows(found: Difference) -> bool:
    """Return whether a difference claims no certainty: an interval of some width that fits its p-value, or none."""
    if found.interval == UNKNOWN:
        return found.p == 1.0 and found.tied
    width = found.interval.high - found.interval.low
    agrees = found.tied == (found.p >= 0.05) or found.p == pytest.approx(0.05, rel=0.05)
    return width > 0 and found.mean in found.interval and 0 < found.p <= 1 and agrees


def test_three_counts_against_three_others_are_never_certain():
    for ours, theirs in itertools.product(COUNTS, repeat=2):
        a, b = ([count / IMAGES for count in side] for side in (ours, theirs))
        found = paired_mean_difference(a, b)
        gains = {x - y for x, y in zip(ours, theirs, strict=True)}
        assert says_what_it_knows(found)
        assert (found.interval == UNKNOWN) == (len(gains) == 1)
        assert found.mean == pytest.approx(sum(x - y for x, y in zip(ours, theirs, strict=True)) / 3 / IMAGES)


@pytest.mark.parametrize("value", [0.9954, 1 / 3, 1e-12, -7.25, 1e9, 0.0])
@pytest.mark.parametrize("seeds", [2, 3, 7, 10])
@pytest.mark.parametrize("gain", [0.0, 0.1, -0.003])
def test_equal_differences_say_nothing_however_they_are_rounded(value: float, seeds: int, gain: float):
    rng = np.random.default_rng(3)
    b = value + abs(value) * rng.random(seeds)
    found = paired_mean_difference([float(x + gain) for x in b], [float(x) for x in b])
    assert (found.interval, found.p) == (UNKNOWN, 1.0)
    assert mean_interval([value] * seeds) is None


@given(st.data())
def test_outcomes_of_few_seeds_and_images_are_never_certain(data: st.DataObject):
    seeds, images = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    bits = st.lists(st.booleans(), min_size=seeds * images, max_size=seeds * images)
    a, b = (np.array(data.draw(bits)).reshape(seeds, images) for _ in range(2))
    found, turned = paired_difference(a, b), paired_difference(b, a)
    assert says_what_it_knows(found)
    assert (found.interval == UNKNOWN) == (seeds == 1)
    assert (turned.mean, turned.p) == (-found.mean, pytest.approx(found.p))
    assert says_what_it_knows(selection_gap(a, b))
    resampled = paired_bootstrap(a, b, np.random.default_rng(0), resamples=50)
    assert resampled.interval == UNKNOWN or resampled.interval.low < resampled.interval.high
    as_numbers = paired_difference(a.astype(np.float32), b.astype(np.float32))
    same = seeds > 1 and bool((a != b).any())
    assert as_numbers == (found if same else Difference(found.mean, UNKNOWN, images=images))
    json.dumps([found.mean, found.p, turned.p], allow_nan=False)


@pytest.mark.parametrize("images", range(1, 30))
def test_images_that_all_speak_alike_are_judged_about_as_the_sign_test_does(images: int):
    right, wrong = np.ones((3, images), bool), np.zeros((3, images), bool)
    exact = binomtest(images, images).pvalue
    found = paired_difference(right, wrong)
    assert found.p > 0.5 * min(exact, 1e-3)
    assert found.tied == (images <= 5)
    numbers = paired_difference(np.full((3, images), 0.9), np.full((3, images), 0.5))
    assert numbers.p == pytest.approx(found.p)


def test_two_plans_with_the_same_numbers_are_tied():
    losses = np.random.default_rng(5).exponential(size=(3, 200)).astype(np.float32)
    assert paired_difference(losses, losses) == Difference(0.0, UNKNOWN, 1.0, 200)
    assert paired_mean_difference([0.5, 0.6], [0.5, 0.6]) == Difference(0.0, UNKNOWN, 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad: float):
    losses = np.ones((2, 3))
    losses[1, 1] = bad
    with pytest.raises(ValueError, match="finite"):
        paired_difference(losses, np.ones((2, 3)))
    with pytest.raises(ValueError, match="finite"):
        paired_mean_difference([1.0, bad], [1.0, 1.0])
    with pytest.raises(ValueError, match="finite"):
        mean_interval([1.0, bad])


def test_a_property_of_the_plan_is_known_exactly():
    assert exact_difference([900.0] * 3, [1000.0] * 3) == Difference(-100.0, Interval(-100.0, -100.0), 0.0)
    assert exact_difference([900.0] * 3, [900.0] * 3) == Difference(0.0, Interval(0.0, 0.0), 1.0)
    assert exact_difference([900.0], [1000.0] * 3) == Difference(-100.0, Interval(-100.0, -100.0), 0.0)
    assert exact_difference([900.0, 901.0, 900.0], [1000.0] * 3) is None
    assert exact_difference([], []) is None


# --- one plan -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("right", [0, 1, 20, 39, 40])
@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_seeds_that_agree_leave_what_other_images_would_change(right: int, seeds: int):
    share = right / IMAGES
    images = wilson(right, IMAGES)
    found = mean_interval([share] * seeds, on_images=images)
    if seeds == 1:
        assert found is None
    else:
        assert found
        assert (found.low, found.high) == pytest.approx((images.low, images.high))
        assert found.low < found.high


def test_seeds_and_images_are_joined_by_the_root_of_their_squares():
    values = [0.90, 0.92, 0.94]
    seeds, images = mean_interval(values), wilson(0.92 * IMAGES, IMAGES)
    both = mean_interval(values, on_images=images)
    assert seeds
    assert both
    assert both.high - 0.92 == pytest.approx(math.hypot(seeds.high - 0.92, images.high - 0.92))
    assert 0.92 - both.low == pytest.approx(math.hypot(0.92 - seeds.low, 0.92 - images.low))


def test_images_with_one_value_and_single_images_say_nothing_of_others():
    assert on_other_images(0.3, 0.0, 100) is None
    assert on_other_images(0.3, 0.2, 1) is None
    sample = np.random.default_rng(7).exponential(size=50)
    found = on_other_images(float(sample.mean()), float(sample.std()), 50)
    assert found
    assert found.high - found.low == pytest.approx(2 * 1.959964 * sample.std(ddof=1) / math.sqrt(50))


def test_the_mean_of_a_plan_is_covered_over_other_seeds_and_images():
    rng, hits = np.random.default_rng(9), []
    for _ in range(1_000):
        hard = rng.normal(0, 0.6, size=300)
        losses = 0.5 + rng.normal(0, 0.03, size=(4, 1)) + hard + rng.normal(0, 0.4, size=(4, 300))
        spread = float(np.sqrt((losses.std(axis=1) ** 2).mean()))
        images = on_other_images(float(losses.mean()), spread, 300)
        found = mean_interval([float(value) for value in losses.mean(axis=1)], on_images=images)
        hits.append(found is not None and 0.5 in found)
    assert np.mean(hits) >= 0.94


# --- how it is shown ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "low", "high", "shown"),
    [
        ("val_accuracy", 0.988, 0.9902, "98.80, 99.02"),
        ("val_accuracy", 0.99541, 0.99543, "99.53, 99.55"),
        ("val_accuracy", 0.99999, 1.0, "99.99, 100.00"),
        ("val_loss", 0.0421001, 0.0421004, "0.04209, 0.04211"),
        ("parameters", 12.1, 12.3, "11, 13"),
    ],
)
def test_no_interval_is_shown_with_width_zero(metric: str, low: float, high: float, shown: str):
    assert range_text(metric, low, high, most=1.0 if metric == "val_accuracy" else math.inf) == shown


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([], "-"),
        ([0.9954], "99.54 %"),
        ([0.9954] * 3, "99.54 % [not known]"),
        ([0.9954, 0.9956, 0.9955], "99.55 [99.53, 99.57] %"),
        ([0.99541, 0.99542, 0.99541], "99.54 [99.53, 99.55] %"),
    ],
)
def test_the_live_mean_shows_an_interval_or_that_it_is_not_known(values: list[float], shown: str):
    assert mean_text("val_accuracy", values) == shown


def test_the_live_mean_of_a_property_of_the_plan_needs_no_interval():
    assert "[" not in mean_text("parameters", [900.0] * 3)


@given(st.fractions(0, 1, max_denominator=10_000), st.fractions(0, Fraction(1, 1000)))
def test_ends_that_differ_are_shown_as_two(low: Fraction, width: Fraction):
    if width:
        first, second = range_text("val_loss", float(low), float(low + width)).split(", ")
        assert first != second
