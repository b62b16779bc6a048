"""What is said below a ranking of luck, of the labels of the test set, and of how the times were taken."""

from __future__ import annotations

from mnistlab.leaderboard import Leaderboard, Luck
from mnistlab.leaderboard.prose.verdict import interval_text
from mnistlab.util.text import ACCURACIES, counted, listed, metric_text


def luck_notes(board: Leaderboard) -> list[str]:
    """Return the notes that the numbers of this ranking call for."""
    luck = board.luck
    chosen = _chosen(board.metric, luck) if luck else []
    return [*_claim(board), *chosen, *(_gap(luck) if luck else []), *_clean(board), *_devices(board)]


def _claim(board: Leaderboard) -> list[str]:
    """Return what narrows the claims of a ranking whose metric is not known of each image."""
    if not board.seeds_only:
        return []
    return [
        f"The values of {board.metric} for each image are not kept of all these trainings. Where they are missing, "
        f"shared ranks and intervals of {board.metric} cover other seeds only: other images may give another order."
    ]


def _chosen(metric: str, luck: Luck) -> list[str]:
    """Return by how much the search's own score flattered the champion, and how much of that was to be expected."""
    if luck.curse is None or luck.tried < 2:
        return []
    text = (
        f"Luck: the best of {luck.tried} equal plans would look {_points(metric, luck.curse)} better than it is "
        f"({luck.tried} trials used their full budget; standard deviation between seeds "
        f"{_points(metric, luck.spread or 0.0)})"
    )
    if luck.drop is None:
        return [f"{text}."]
    word = "above" if luck.drop >= 0 else "below"
    return [f"{text}; the champion's score in the search was {_points(metric, abs(luck.drop))} {word} its mean since."]


def _gap(luck: Luck) -> list[str]:
    """Return the selection gap, with its interval where there are several seeds."""
    if luck.gap is None:
        return []
    text = f"Validation minus test accuracy of the champion: {100 * luck.gap.mean:+.2f} points"
    low, high = luck.gap.interval.low, luck.gap.interval.high
    if not luck.gap.interval.known:
        return [f"{text}, of one seed."]
    word = "within noise of 0" if luck.gap.tied else "more than noise"
    return [f"{text} (95 % interval {100 * low:+.2f} to {100 * high:+.2f}), {word}."]


def _clean(board: Leaderboard) -> list[str]:
    """Return the second figure of a test set some of whose labels are known to be doubtful."""
    row = board.champion
    if row is None or row.test is None or row.test_clean is None:
        return []
    clean = row.test_clean
    doubtful = counted(row.test.images - clean.images, "test image")
    estimate = f"95 % interval {interval_text(clean.interval)} for {counted(clean.images, 'image')}"
    return [
        f"clean %: without the {doubtful} whose labels people do not confirm (arXiv:2103.14749). The champion's mean "
        f"test accuracy is then {metric_text('test_accuracy', clean.accuracy.mean)} ({estimate}); it ranks nothing."
    ]


def _devices(board: Leaderboard) -> list[str]:
    devices = sorted({row.cost.device for row in board.rows if row.cost})
    if not devices:
        return []
    return [f"Latency: median milliseconds of a prediction, while other trainings may have run, on {listed(devices)}."]


def _points(metric: str, value: float) -> str:
    return f"{100 * value:.2f} points" if metric in ACCURACIES else f"{value:.4g}"
