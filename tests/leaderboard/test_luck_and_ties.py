"""What is counted where a ranking speaks of luck and of ties."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mnistlab.leaderboard import rank, ties
from mnistlab.leaderboard.power import seeds_to_tell, smallest_difference
from mnistlab.store.results import Split
from tests.leaderboard.test_judgement import drawn
from tests.leaderboard.test_ranking import record, replicates, trial


def test_only_trials_that_used_their_budget_could_have_won():
    cut = [trial(3, state="pruned", epochs=2), trial(4, state="interrupted", epochs=3)]
    luck = rank(record(trial(1), trial(2), *cut, confirmed=replicates(1, 0.95))).luck
    assert luck is not None
    assert luck.tried == 2


@pytest.mark.parametrize(("needed", "more"), [(9, 4), (5, 0), (3, 0), (None, None)])
def test_a_tie_names_the_seeds_that_are_missing(monkeypatch: pytest.MonkeyPatch, needed: Any, more: Any):
    monkeypatch.setattr(ties, "seeds_to_tell", lambda *_, **__: needed)
    rng = np.random.default_rng(3)
    confirmed = [*drawn(rng, 1, 0.95, 5, 0.002), *drawn(rng, 2, 0.95, 5, 0.002)]
    found = [row.tie for row in rank(record(trial(1), trial(2), confirmed=confirmed)).rows if row.tie]
    assert [(one.seeds, one.more) for one in found] == [(5, more)]


def test_seeds_that_draw_their_own_splits_are_told_how_many_more_would_show_a_tenth_of_a_point():
    """What their splits have in common is part of Student's t: it is no more than t makes of it."""
    spread, overlap, level, reference = 0.0005, 0.2, 0.05, 0.001
    by_t = next(n for n in range(2, 100) if _chance(reference, spread * math.sqrt(1 / n + overlap), n, level) >= 0.8)
    assert seeds_to_tell(reference, spread, level, overlap=overlap) == by_t == 7
    found = smallest_difference(spread, 5, level, overlap=overlap)
    assert _chance(found, spread * math.sqrt(1 / 5 + overlap), 5, level) == pytest.approx(0.8, abs=0.01)


def _chance(difference: float, error: float, seeds: int, level: float) -> float:
    limit = stats.t.ppf(1 - level / 2, seeds - 1)
    return float(stats.nct.sf(limit, seeds - 1, difference / error))


def test_a_tie_of_own_splits_is_planned_by_their_overlap():
    rng = np.random.default_rng(3)
    split = Split(sha256="0" * 64, train=50_000, validation=10_000)
    confirmed = [replace(one, split=split) for name in (1, 2) for one in drawn(rng, name, 0.95, 5, 0.002)]
    board = rank(record(trial(1), trial(2), confirmed=confirmed))
    tie = next(row.tie for row in board.rows if row.tie)
    assert tie.own_splits
    gains = [
        a.metrics["val_accuracy"] - b.metrics["val_accuracy"] for a, b in zip(confirmed[:5], confirmed[5:], strict=True)
    ]
    level = next(
        level
        for level in (0.05, 0.025, 0.01)
        if tie.detectable
        == pytest.approx(smallest_difference(float(np.std(gains, ddof=1)), 5, level, overlap=0.2), rel=1e-6)
    )
    assert level <= 0.05
