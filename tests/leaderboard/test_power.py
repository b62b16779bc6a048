"""How large a difference can be seen: against scipy's noncentral t, trainings that were measured, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import nct, t

from mnistlab.leaderboard.power import MOST, POWER, chance_to_tell, images_suffice, seeds_to_tell, smallest_difference
from mnistlab.leaderboard.statistics import paired_difference, paired_mean_difference
from mnistlab.leaderboard.ties import Tie, seen_text, size_text, tie_text

TOP_3 = 0.05 / 3  # the level of one of three pairs


@pytest.mark.parametrize("seeds", [2, 3, 5, 9, 30])
@pytest.mark.parametrize("level", [0.05, TOP_3, 0.05 / 45])
@pytest.mark.parametrize("size", [0.0, 0.5, 1.5, 4.0])
def test_the_power_is_that_of_the_noncentral_t(seeds: int, level: float, size: float) -> None:
    limit, shift = t.isf(level / 2, seeds - 1), size * np.sqrt(seeds)
    other_side = np.nan_to_num(nct.cdf(-limit, seeds - 1, shift))  # NaN where it is nearly 0
    exact = nct.sf(limit, seeds - 1, shift) + other_side
    assert chance_to_tell(size, 1.0, seeds, level) == pytest.approx(exact, abs=2e-4)
    assert chance_to_tell(-0.3 * size, 0.3, seeds, level) == pytest.approx(exact, abs=2e-4)


def test_two_similar_nets_are_told_apart_as_often_as_real_trainings_say() -> None:
    """Differences of real trainings of two similar cnns have a deviation of 0.05 to 0.07 points between seeds."""
    assert chance_to_tell(0.1, 0.07, 5, TOP_3) == pytest.approx(0.39, abs=0.01)
    assert chance_to_tell(0.1, 0.05, 5, TOP_3) == pytest.approx(0.68, abs=0.01)
    assert chance_to_tell(0.1, 0.07, 9, TOP_3) >= 0.8
    assert seeds_to_tell(0.1, 0.07, TOP_3) == 9
    assert seeds_to_tell(0.1, 0.05, TOP_3) == 6


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
@pytest.mark.parametrize("level", [0.05, 0.05 / 45_000])
def test_the_smallest_difference_is_seen_with_the_power_asked_for(seeds: int, level: float) -> None:
    found = smallest_difference(0.06, seeds, level)
    assert chance_to_tell(found, 0.06, seeds, level) == pytest.approx(POWER, abs=1e-6)
    assert seeds_to_tell(found * 1.000_001, 0.06, level) == seeds


def test_simulated_comparisons_see_the_smallest_difference_in_four_of_five_cases() -> None:
    rng, seeds = np.random.default_rng(3), 5
    gap = smallest_difference(0.06, seeds, TOP_3)
    drawn = rng.normal(gap, 0.06, (3000, seeds))
    seen = [paired_mean_difference(list(row), [0.0] * seeds).p <= TOP_3 for row in drawn]
    assert np.mean(seen) == pytest.approx(POWER, abs=0.03)


@pytest.mark.parametrize("own", [0.0, 0.01, 0.03])
def test_images_that_one_plan_finds_hard_are_part_of_what_can_be_seen(own: float) -> None:
    """Two plans, each with errors of its own on a share of the images: more seeds do not lower that part."""
    rng, seeds, images, spread, level = np.random.default_rng(5), 5, 2000, 0.002, 0.05
    noise = np.sqrt(2 * own * (1 - own) / images)
    between = np.sqrt(2 * (spread**2 + 0.02 * 0.98 / images))
    gap = smallest_difference(between, seeds, level, images=noise)

    def outcomes(errors: float) -> np.ndarray:
        rate = np.clip(rng.normal(errors, spread, (seeds, 1)), 0, 1)
        return ~((rng.random(images) < own) | (rng.random((seeds, images)) < rate))

    seen = [paired_difference(outcomes(0.02), outcomes(0.02 + gap)).p <= level for _ in range(400)]
    assert POWER - 0.12 <= np.mean(seen) <= POWER + 0.12


def test_no_number_of_seeds_makes_up_for_images() -> None:
    assert seeds_to_tell(0.1, 0.06, 0.05, images=0.05) is None
    assert not images_suffice(0.1, 0.05, images=0.05)
    assert images_suffice(0.1, 0.05, images=0.01)
    assert seeds_to_tell(0.1, 0.06, 0.05, images=0.01) is not None
    assert seeds_to_tell(0.1, 5.0, 0.05) is None
    assert seeds_to_tell(0.1, 0.06, 0.05, one_image=0.2) is None
    assert not images_suffice(0.1, 0.05, images=0.0, one_image=0.2)
    assert smallest_difference(5.0, MOST, 0.05) > 0.1


def test_more_seeds_a_smaller_spread_and_fewer_comparisons_see_more() -> None:
    assert smallest_difference(1, 6, 0.05) < smallest_difference(1, 5, 0.05) < smallest_difference(1, 5, 0.01)
    assert smallest_difference(0.5, 5, 0.05) == pytest.approx(smallest_difference(1, 5, 0.05) / 2)


@pytest.mark.parametrize(
    ("seeds", "spread", "level"), [(1, 1.0, 0.05), (5, 0.0, 0.05), (5, float("nan"), 0.05), (5, 1.0, 0.0)]
)
def test_what_says_nothing_is_refused(seeds: int, spread: float, level: float) -> None:
    with pytest.raises(ValueError, match="must hold"):
        chance_to_tell(0.1, spread, seeds, level)
    with pytest.raises(ValueError, match="must hold"):
        smallest_difference(spread, seeds, level)


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("val_accuracy", 0.00163, "0.16 points"),
        ("val_accuracy", 0.123, "12 points"),
        ("val_accuracy", 0.998, "100 points"),
        ("seconds", 1234.0, "1,200"),
        ("val_loss", 0.0000341, "3.4e-05"),
    ],
)
def test_a_difference_is_shown_with_two_digits_and_as_people_write_it(metric: str, value: float, shown: str) -> None:
    assert size_text(metric, value) == shown


def test_no_accuracy_differs_by_more_than_all_of_it() -> None:
    text = tie_text("val_accuracy", Tie(seeds=3, detectable=1.5, reference=0.001, more=None))
    assert text.startswith(
        "3 seeds could hardly show any difference (80 % power); one of 0.1 points would take more than"
    )
    assert seen_text("seconds", Tie(3, 1.5, None, None)) == "3 seeds could show a difference of about 1.5"
