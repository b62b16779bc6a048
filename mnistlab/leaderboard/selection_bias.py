"""What luck has to do with a champion: the chance to be the best, the selection gap, the expected winner's curse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mnistlab.leaderboard.entries import Entry, value_of
from mnistlab.leaderboard.racing import bits, own_splits
from mnistlab.leaderboard.statistics import Difference, p_best, selection_gap, winners_curse
from mnistlab.leaderboard.ties import pooled_spread
from mnistlab.store.metric import Metric

SEED = 20_250_101  # of the resampling: the same results always give the same chances


@dataclass(frozen=True)
class Luck:
    """How much of a champion's score may be luck.

    `tried` trials could have won: `candidates` says which. `spread` is the standard deviation of the metric between
    seeds of one plan, pooled over the confirmed plans, and `curse` by how much the best of as many *equal* plans would
    look better than it is. `drop` is by how much the champion's score in the search was better than its mean over fresh
    seeds. `gap` is its validation minus its test accuracy. What is not known is None.
    """

    tried: int
    spread: float | None
    curse: float | None
    drop: float | None
    gap: Difference | None


def luck_of(found: Sequence[Entry], metric: str) -> Luck:
    """Return what is known of the luck of the first of `found`, which is not empty."""
    tried = len(candidates(found, metric))
    spread, champion = pooled_spread([entry.replicates for entry in found], metric), found[0]
    full = champion.state == "confirmed" and champion.trial.state == "complete"  # else the search has not scored it
    scored, mean = value_of(champion.trial, metric) if full else None, champion.value
    return Luck(
        tried=tried,
        spread=spread,
        curse=None if spread is None or not tried else winners_curse(tried, spread),
        drop=None if scored is None or mean is None else Metric(metric).worth(scored - mean),
        gap=_gap(champion, metric),
    )


def candidates(found: Sequence[Entry], metric: str) -> list[Entry]:
    """Return the trials that the best was chosen from: those that used their full budget and have a value.

    A trial that was pruned, interrupted or failed could not be chosen, however lucky. A repeat counts: its plan goes
    by the better of its trainings, so a second seed is a second draw.
    """
    return [entry for entry in found if entry.trial.state == "complete" and value_of(entry.trial, metric) is not None]


def chances(found: Sequence[Entry], metric: str) -> Mapping[int, float]:
    """Return for each confirmed entry with the first one's standing the chance that its mean is the best of them.

    Over the seeds that all of them share, resampled; nothing where they share fewer than two.
    """
    if not found or found[0].state != "confirmed":
        return {}
    peers = [i for i, e in enumerate(found) if e.state == "confirmed" and e.standing == found[0].standing]
    values = [{r.seed: v for r in found[i].replicates if (v := value_of(r, metric)) is not None} for i in peers]
    seeds = sorted(set[int].intersection(*(set(mine) for mine in values)))
    if len(seeds) < 2:
        return {}
    worth = Metric(metric).worth
    table = np.array([[worth(mine[seed]) for seed in seeds] for mine in values], dtype=np.float64)
    return dict(zip(peers, p_best(table, np.random.default_rng(SEED)), strict=True))


def _gap(champion: Entry, metric: str) -> Difference | None:
    pairs = [(r.val_correct, r.test_correct) for r in champion.replicates if r.val_correct and r.test_correct]
    lengths = {(len(val), len(test)) for val, test in pairs}
    if metric != "val_accuracy" or len(lengths) != 1:
        return None
    own = own_splits(champion.replicates).get("overlap")
    return selection_gap(bits([val for val, _ in pairs]), bits([test for _, test in pairs]), overlap=own)
