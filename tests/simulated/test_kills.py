"""Drivers are killed at random moments and at every point of writing; what was acknowledged is there in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnistlab import durable
from tests.simulated.campaigns import killed_at_point, random_kills

SHORT, LONG, KILLS = 5, 50, 4  # runs, and how often each is killed
RUNS = [*range(SHORT), *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(SHORT, LONG))]
PASSINGS = [3, pytest.param(6, marks=pytest.mark.chaos)]
ONCE = {"before-truncate", "after-truncate"}  # a driver that finds its stream whole cuts only its lock


@pytest.mark.parametrize("seed", RUNS)
def test_a_run_that_is_killed_at_random_moments_loses_nothing(tmp_path: Path, seed: int) -> None:
    tally = random_kills(tmp_path / "run", seed, KILLS)
    assert tally.broken == []
    assert tally.faults == KILLS


@pytest.mark.parametrize("passings", PASSINGS)
@pytest.mark.parametrize("point", durable.POINTS)
def test_a_run_that_is_killed_at_a_point_of_writing_comes_to_the_same_end(
    tmp_path: Path, point: str, passings: int
) -> None:
    tally = killed_at_point(tmp_path, point, passings)
    assert tally.broken == []
    assert tally.faults >= (1 if point in ONCE else 3)
