"""A run has one driver and any number of readers, and none of them ever sees half of something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.simulated.controller import World
from tests.simulated.driving import Case
from tests.simulated.together import two_resumes, watched_search

pytestmark = pytest.mark.simulated

SHORT, LONG = 1, 20
ROUNDS = [*range(SHORT), *(pytest.param(number, marks=pytest.mark.chaos) for number in range(SHORT, LONG))]
CASE = Case("random", "asha", trials=12, epochs=6, parallel=2)


@pytest.mark.parametrize("number", ROUNDS)
def test_a_search_among_readers_and_second_drivers(tmp_path: Path, number: int) -> None:
    found = watched_search(tmp_path / "run", replace(CASE, seed=number, world=World(number, failing=0.15)))
    assert found.broken == []
    assert found.looks >= 2
    assert found.refused >= 2


@pytest.mark.parametrize("number", ROUNDS)
def test_of_two_who_go_on_with_a_run_one_is_refused(tmp_path: Path, number: int) -> None:
    case = replace(CASE, seed=number, world=World(number, failing=0.15))
    found = two_resumes(tmp_path / "run", case, at=10 + 2 * number)
    assert found.broken == []
    assert found.refused == 1
