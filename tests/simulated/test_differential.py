"""A search that is cut, wherever and however, decides and finds what it would have without the cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulated.campaigns import cut_and_compared

SHORT, LONG = 12, 100
SEEDS = [*range(SHORT), *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(SHORT, LONG))]


@pytest.mark.parametrize("seed", SEEDS)
def test_one_worker_finds_the_same_as_without_the_cuts(tmp_path: Path, seed: int) -> None:
    tally = cut_and_compared(tmp_path, seed)
    assert tally.broken == []
    assert tally.faults > 0
