"""What is counted where a ranking speaks of luck and of ties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mnistlab.leaderboard import rank, ties
from tests.test_judgement import drawn
from tests.test_leaderboard import record, replicates, trial


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
