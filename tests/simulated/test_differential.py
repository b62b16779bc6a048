"""A search that is cut, wherever and however, decides and finds what it would have without the cut."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.simulated.checks import Promises, outcome
from tests.simulated.driving import Drives, Fault, drawn_case

SHORT, LONG = 12, 100
SEEDS = [*range(SHORT), *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(SHORT, LONG))]


def faults(seed: int, events: int) -> list[Fault]:
    """Up to three, anywhere in a run of so many events."""
    draw = random.Random(seed)
    kinds = ["stop", "kill", "power"]
    return [Fault(draw.choice(kinds), draw.randint(1, events), draw=draw.random()) for _ in range(draw.randint(1, 3))]


@pytest.mark.parametrize("seed", SEEDS)
def test_one_worker_finds_the_same_as_without_the_cuts(tmp_path: Path, seed: int) -> None:
    case = drawn_case(seed)
    whole = Drives(tmp_path / "whole", case)
    told = whole.to_the_end().told
    cut = Drives(tmp_path / "cut", case)
    promises, cuts = Promises(cut), 0
    for fault in faults(seed, len(told)):
        promises.before()
        driven = cut.go(fault)
        cuts += driven.code not in {0, 1, 4}
        assert promises.broken(driven, power=fault.kind == "power") == [], fault
    promises.before()
    assert promises.broken(cut.to_the_end()) == []
    assert outcome(cut.path) == outcome(whole.path)
    assert cuts, "no fault has hit anything"
