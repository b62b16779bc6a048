"""What is said of the champion's models together: a line of its own, because an ensemble ranks with no single model."""

from __future__ import annotations

from mnistlab.leaderboard import Leaderboard
from mnistlab.leaderboard.prose.verdict import interval_text
from mnistlab.leaderboard.statistics import wilson
from mnistlab.store.results import Cost
from mnistlab.util.text import counted, metric_text


def ensemble_notes(board: Leaderboard) -> list[str]:
    """Return what the ensemble has scored and what a prediction of it takes, or nothing where there is none."""
    one, champion = board.ensemble, board.champion
    if one is None or champion is None:
        return []
    members, images = len(one.replicates), counted(one.test.images, "image")
    interval = interval_text(wilson(one.test.correct, one.test.images))
    validation = (
        f"val_accuracy {metric_text('val_accuracy', one.val_accuracy)}"
        if one.val_accuracy is not None
        else "no validation accuracy, because its models have no validation images in common"
    )
    return [
        f"Ensemble of the {members} seeds of trial {board.name(champion)}, not ranked: test accuracy "
        f"{metric_text('test_accuracy', one.test.accuracy)} (95 % interval {interval} for {images}), {validation}; "
        f"a prediction costs {members} times that of one model{_latency(members, champion.cost)}."
    ]


def _latency(members: int, cost: Cost | None) -> str:
    """Return in brackets how long an image takes: one model is asked after the other."""
    if cost is None:
        return ""
    return f" ({1000 * members * cost.latency_1:.3g} ms in place of {1000 * cost.latency_1:.3g} ms for one image)"
