"""Drivers are killed at random moments and at every point of writing; what was acknowledged is there in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnistlab import durable
from tests.simulated.campaigns import killed_at_point, random_kills

SHORT, LONG, KILLS = 5, 50, 4  # runs, and how often each is killed
RUNS = [*range(SHORT), *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(SHORT, LONG))]
FIRST = [1, *(pytest.param(first, marks=pytest.mark.chaos) for first in (4, 7, 10))]
ONCE = {"before-truncate", "after-truncate"}  # a driver that finds its stream whole cuts only its lock


@pytest.mark.parametrize("seed", RUNS)
def test_a_run_that_is_killed_at_random_moments_loses_nothing(tmp_path: Path, seed: int) -> None:
    tally = random_kills(tmp_path / "run", seed, KILLS)
    assert tally.broken == []
    assert tally.faults == KILLS


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("point", durable.POINTS)
def test_a_run_that_is_killed_at_a_point_of_writing_comes_to_the_same_end(
    tmp_path: Path, point: str, first: int
) -> None:
    tally = killed_at_point(tmp_path, point, first)
    assert tally.broken == []
    assert tally.faults >= (first == 1) * (1 if point in ONCE else 3)


@pytest.mark.parametrize(
    "point", ["after-replace", *(pytest.param(one, marks=pytest.mark.chaos) for one in durable.POINTS)]
)
def test_so_it_does_where_the_power_fails_with_it(tmp_path: Path, point: str) -> None:
    tally = killed_at_point(tmp_path, point, unflushed=0.0)
    assert tally.broken == []
