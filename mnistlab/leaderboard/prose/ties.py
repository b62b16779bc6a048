"""What a ranking says of its ranks: what a shared one means, which ranks a plan may have, what a tie could show."""

from __future__ import annotations

from mnistlab.leaderboard import Leaderboard, Row
from mnistlab.leaderboard.ties import tie_text, weakest
from mnistlab.util.text import counted

SHARED = (
    "n= marks a shared rank: of the confirmed plans that share it none is surely better than another, by paired "
    "comparisons over {} of all pairs together (95 %, Holm's correction); other trials share a rank where their values "
    "are equal."
)
RANGES = (
    "Range: the ranks that a confirmed plan may have, from 1 + the number of plans that are surely better to the "
    "number of confirmed plans less those that are surely worse; all ranges hold together with {} %."
)


def rank_notes(board: Leaderboard) -> list[str]:
    """Return the notes that the ranks of this ranking call for."""
    over = "seeds" if board.seeds_only else "seeds and images"
    shared = [SHARED.format(over)] * any(row.rank.endswith("=") for row in board.rows)
    asked = any(row.baseline and row.state == "confirmed" for row in board.rows)  # a gain has a risk of its own
    ranges = [RANGES.format(90 if asked else 95)] * any(row.ranks for row in board.rows)
    return [*shared, *ranges, *tie_notes(board)]


def tie_notes(board: Leaderboard) -> list[str]:
    """Return for each rank that confirmed plans share what its ties could have shown, by the one that shows least."""
    by_rank: dict[str, list[Row]] = {}
    for row in board.rows:
        if row.tie is not None:
            by_rank.setdefault(row.rank, []).append(row)
    return [_tie_note(board, rank, rows) for rank, rows in by_rank.items()]


def _tie_note(board: Leaderboard, rank: str, rows: list[Row]) -> str:
    tie = weakest([row.tie for row in rows if row.tie])
    plans = counted(len(rows) + 1, "confirmed plan")
    return f"Tie at {rank} of {plans}: {tie_text(board.metric, tie) if tie else ''}."
