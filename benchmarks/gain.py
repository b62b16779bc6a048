"""How a search's gain over the defaults may be told: which rule makes false claims, and which intervals hold.

The champion is the best of some plans on the same seeds on which it is compared with the defaults, so that a pair's own
5 % is more. Plans are made up here: normal values with one number for each seed, judged by Student's t, as the family
of comparisons judges a metric of which no images are known.

    python benchmarks/gain.py
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
from scipy.special import stdtr, stdtrit

from mnistlab.statistics import holm

RUNS = 20_000
SPREAD = 0.1  # points between seeds
ALPHA = 0.05
RULES = ("its own pair", "Bonferroni over the plans", "one of the family")


def main() -> None:
    """Print a table."""
    print("| plans, seeds, gain | claimed by " + " | claimed by ".join(RULES) + " | 95 % of the pair | of the family |")
    print("| --- |" + " ---: |" * 5)
    for plans, seeds, gain in [
        (3, 3, 0.0),
        (3, 5, 0.0),
        (3, 10, 0.0),
        (5, 5, 0.0),
        (3, 5, 0.2),
        (3, 5, 0.4),
        (5, 10, 0.2),
    ]:
        found = simulated(plans, seeds, gain)
        cells = " | ".join(f"{100 * found[key] / RUNS:.1f} %" for key in (*RULES, "pair holds", "family holds"))
        print(f"| {plans}, {seeds}, {gain:g} points | {cells} |")


def simulated(plans: int, seeds: int, gain: float) -> Counter[str]:
    """Count in how many of RUNS searches each rule claims a gain, and each interval holds the true one.

    All plans but the defaults are equal and `gain` points better.
    """
    rng, found = np.random.default_rng(1), Counter[str]()
    for _ in range(RUNS):
        values = rng.normal(0, SPREAD, (plans + 1, seeds))
        values[:-1] += gain  # the last plan is that of the defaults
        best = int(values.mean(axis=1).argmax())
        if best == plans:
            found["pair holds"] += 1  # nothing is claimed
            found["family holds"] += 1
            continue
        found.update(judged(values, best, gain))
    return found


def judged(values: np.ndarray, best: int, gain: float) -> list[str]:
    """Return which rules claim a gain of plan `best`, and which intervals hold the true one."""
    pairs = list(combinations(range(len(values)), 2))
    gaps = np.array([values[a] - values[b] for a, b in pairs])
    means, errors = gaps.mean(axis=1), gaps.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
    degrees = values.shape[1] - 1
    p = 2 * stdtr(degrees, -np.abs(means / errors))
    told = [one <= ALPHA for one in holm(p.tolist())]
    mine = pairs.index((best, len(values) - 1))
    level = ALPHA / max(1, len(pairs) - sum(told))  # what a pair that is still tied would have to reach
    reach = [-stdtrit(degrees, one / 2) * errors[mine] for one in (ALPHA, level)]
    true = abs(means[mine] - gain)
    claims = (p[mine] <= ALPHA, p[mine] <= ALPHA / (len(values) - 1), told[mine], true <= reach[0], true <= reach[1])
    return [name for name, holds in zip((*RULES, "pair holds", "family holds"), claims, strict=True) if holds]


if __name__ == "__main__":
    main()
