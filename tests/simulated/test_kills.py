"""Drivers are killed at random moments and at every point of writing; what was acknowledged is there in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnistlab.store import durable
from tests.simulated.campaigns import at_an_end, at_the_start, killed_at, killed_at_point, random_kills

pytestmark = pytest.mark.simulated

SHORT, LONG, KILLS = 1, 50, 4  # runs, and how often each is killed
RUNS = [*range(SHORT), *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(SHORT, LONG))]
PAIRS = [(durable.MID_WRITE,), *((f"before-{one}", f"after-{one}") for one in durable.OPERATIONS)]
ONCE = {"before-truncate", "after-truncate"}  # a driver that finds its stream whole cuts only its lock


@pytest.mark.parametrize("seed", RUNS)
def test_a_run_that_is_killed_at_random_moments_loses_nothing(tmp_path: Path, seed: int) -> None:
    tally = random_kills(tmp_path / "run", seed, KILLS)
    assert tally.broken == []
    assert tally.faults == KILLS


@pytest.mark.parametrize("points", PAIRS, ids=lambda points: points[-1])
def test_a_run_that_is_killed_before_and_after_an_operation_comes_to_the_same_end(
    tmp_path: Path, points: tuple[str, ...]
) -> None:
    """Once where a driver prepares, once where a trial ends."""
    *before, after = points
    last = at_the_start(after) if after in ONCE else at_an_end(after, 2)
    tally = killed_at(tmp_path, [*map(at_the_start, before), last])
    assert tally.broken == []
    assert tally.faults == len(points)


def test_no_point_of_writing_is_left_out() -> None:
    assert sorted(point for points in PAIRS for point in points) == sorted(durable.POINTS)


@pytest.mark.chaos
@pytest.mark.parametrize("first", [1, 4, 7, 10])
@pytest.mark.parametrize("point", durable.POINTS)
def test_so_it_does_at_any_of_three_passings(tmp_path: Path, point: str, first: int) -> None:
    tally = killed_at_point(tmp_path, point, first)
    assert tally.broken == []
    assert tally.faults >= (first == 1) * (1 if point in ONCE else 3)


def test_so_it_does_where_the_power_fails_with_it(tmp_path: Path) -> None:
    tally = killed_at(tmp_path, [at_an_end("after-replace", number, unflushed=0.0) for number in (1, 3)])
    assert tally.broken == []
    assert tally.faults == 2


@pytest.mark.chaos
@pytest.mark.parametrize("point", durable.POINTS)
def test_so_it_does_where_the_power_fails_at_any_point(tmp_path: Path, point: str) -> None:
    tally = killed_at_point(tmp_path, point, unflushed=0.0)
    assert tally.broken == []
