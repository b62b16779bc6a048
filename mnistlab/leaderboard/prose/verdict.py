"""What a ranking comes to, in one sentence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from mnistlab.leaderboard import Leaderboard, Row
from mnistlab.leaderboard.gain import gain_text
from mnistlab.leaderboard.statistics import Interval, MeanSd
from mnistlab.leaderboard.ties import seen_text, weakest
from mnistlab.util.text import counted, listed, metric_text, runs_before_text, shortened


def verdict(board: Leaderboard) -> str:
    """Return what searching gained, where that is known, and one honest sentence on who won."""
    gained = [gain_text(board.metric, board.gain)] if board.gain else []
    return " ".join([*gained, _winner(board)])


def _winner(board: Leaderboard) -> str:
    """Return in a sentence who won, by how much, tied with whom, and how often the test set was opened."""
    if board.champion is None:
        return _nothing_succeeded(board)
    winner = board.champion
    opened = f"{_openings(board)}{_before(board)}"
    who = f"trial {board.name(winner)} ({shortened(f'{winner.model} {winner.settings}'.strip(), 80)})"
    if winner.state == "complete":
        value = metric_text(board.metric, winner.validation.mean if winner.validation else None)
        luck = "one training that no fresh seed has confirmed, so part of it may be luck"
        standing = f"{_standing(board, winner)} {board.metric} {value}"
        return f"On {board.dataset}, {who} {standing}: {luck}; {opened}."
    return f"On {board.dataset}, {who} {_score(board, winner)}{_together(board)}; {_ties(board)}; {opened}."


def _standing(board: Leaderboard, winner: Row) -> str:
    """Return how an unconfirmed champion stands to those that share its rank: with equal values nobody is ahead."""
    others = sum(row.rank == winner.rank for row in board.rows) - 1
    return f"shares the first rank with {counted(others, 'other')}, each with" if others else "is ahead with"


def interval_text(interval: Interval) -> str:
    """Return an interval of accuracies in per cent, for example `99.47-99.71 %`."""
    return f"{100 * interval.low:.2f}-{100 * interval.high:.2f} %"


def _score(board: Leaderboard, winner: Row) -> str:
    if winner.test is None:
        means = winner.validation or MeanSd(math.nan, None, 0)
        return f"leads with mean {board.metric} {metric_text(board.metric, means.mean)} over {_seeds(winner, means)}"
    means, interval = winner.test.accuracy, winner.test.interval
    spread = f"95 % interval {interval_text(interval)} for {counted(winner.test.images, 'image')}"
    value = metric_text("test_accuracy", means.mean)
    return f"leads with mean test accuracy {value} over {_seeds(winner, means)} ({spread})"


def _together(board: Leaderboard) -> str:
    """Return what the champion's seeds have scored together, "" where nobody has asked them."""
    if board.ensemble is None:
        return ""
    count, score = len(board.ensemble.replicates), metric_text("test_accuracy", board.ensemble.test.accuracy)
    return f"; together, its {count} seeds: {score} on test, at {count} times the cost of a prediction"


def _seeds(winner: Row, means: MeanSd) -> str:
    planned = (winner.validation.n if winner.validation else 0) + winner.lost + winner.untried
    return counted(means.n, "fresh seed") if means.n >= planned else f"{means.n} of {counted(planned, 'fresh seed')}"


def _ties(board: Leaderboard) -> str:
    """Return what the metric says of the champion and its rivals; those that lack seeds may be the better ones.

    Training losses, times and parameters are not measured on validation images.
    """
    rivals = sum(row.state == "confirmed" for row in board.rows) - 1
    if not rivals:
        return "no other plan was confirmed"
    said: list[str] = []
    if board.tied:
        said.append(f"it is tied with {_trials(board.tied)}{_seen(board)}")
    if board.better:
        lack = "lacks" if len(board.better) == 1 else "lack"
        said.append(f"{_trials(board.better)} did better on the seeds they share, but {lack} seeds")
    if board.lacking:
        may = "lacks seeds and may be as good" if len(board.lacking) == 1 else "lack seeds and may be as good"
        said.append(f"{_trials(board.lacking)} {may}")
    if not said:
        said.append(f"it is ahead of {_others(rivals)} by more than noise")
    where = "on validation" if board.metric.startswith("val_") else f"by {board.metric}"
    narrowed = " (other seeds, the same images)" * board.seeds_only
    return f"{where}{narrowed} " + ", and ".join(said)


def _seen(board: Leaderboard) -> str:
    """Return in brackets how large a difference from the champion could have been seen, of the tie that shows least."""
    tie = weakest([row.tie for row in board.rows if row.tie and board.champion and row.rank == board.champion.rank])
    return f" ({seen_text(board.metric, tie)})" if tie else ""


def _trials(names: Sequence[str]) -> str:
    return ("trial " if len(names) == 1 else "trials ") + listed(names)


def _others(rivals: int) -> str:
    return "the other confirmed plan" if rivals == 1 else f"the {rivals} other confirmed plans"


def _openings(board: Leaderboard) -> str:
    if board.test_openings == 0:
        return "the test set has not been opened"
    if board.test_openings == 1:
        return "the test set was opened once"
    if board.openings and max(board.openings) == 1:
        each = "by each run" if min(board.openings) else f"by {board.test_openings} of {len(board.openings)} runs"
        return f"the test set was opened {board.test_openings} times, once {each}"
    return f"the test set was opened {board.test_openings} times, so its numbers are no longer untouched by choice"


def _before(board: Leaderboard) -> str:
    return f"; {runs_before_text(board.runs_before)}" if board.runs_before else ""


def _nothing_succeeded(board: Leaderboard) -> str:
    if not board.rows:
        return "No trial has ended yet: there is no champion."
    counts = Counter(row.state for row in board.rows)
    causes = ", ".join(f"{cause} {count}" for cause, count in sorted(board.failures.items()))
    early = [f"{counts[state]} {state}" for state in ("pruned", "interrupted") if counts[state]]
    failed = [f"{counts['failed']} failed ({causes})"] * bool(counts["failed"])
    reason = "No trial has used its full budget" if early else "No trial succeeded"
    return f"{reason}: {listed(early + failed)}; there is no champion."
