"""From the results of runs to ranked rows, comparisons and what luck has to do with them: no torch, no Ray.

`rank` judges one run, `rank_together` several that can be compared; `compare` pairs two trials.
"""

from __future__ import annotations

from mnistlab.leaderboard.entries import UNRANKED
from mnistlab.leaderboard.gain import Gain
from mnistlab.leaderboard.ranking import Leaderboard, Luck, group, rank, rank_together
from mnistlab.leaderboard.rows import Row, TestEstimate, pareto

__all__ = ["UNRANKED", "Gain", "Leaderboard", "Luck", "Row", "TestEstimate", "group", "pareto", "rank", "rank_together"]
