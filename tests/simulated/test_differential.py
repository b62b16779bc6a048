"""A search that is cut, wherever and however, decides and finds what it would have without the cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulated.campaigns import cut_and_compared

pytestmark = pytest.mark.simulated

# Each way to cut, with the power and without it, and with plans that fail, for every algorithm but two:
# random is that of test_kills, gp takes as long as all the others together.
SHORT, LONG = {0, 7, 9, 15, 19}, 100
SEEDS = [pytest.param(seed, marks=[] if seed in SHORT else pytest.mark.chaos) for seed in range(LONG)]


@pytest.mark.parametrize("seed", SEEDS)
def test_one_worker_finds_the_same_as_without_the_cuts(tmp_path: Path, seed: int) -> None:
    tally = cut_and_compared(tmp_path, seed)
    assert tally.broken == []
    assert tally.faults > 0
