"""How a search's gain over the defaults may be told: which rule makes false claims, and which intervals hold.

The champion is the best of some plans on the same seeds on which it is compared with the defaults, so that a pair's own
5 % is more. Plans are made up here: normal values with one number for each seed, judged by Student's t, as the family
of comparisons judges a metric of which no images are known. `ranks.py` asks the ranking itself.

    python benchmarks/gain.py
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
from scipy.special import stdtr, stdtrit

from mnistlab.leaderboard.statistics import holm

RUNS = 20_000
SPREAD = 0.1  # points between seeds
ALPHA = 0.05
RULES = ("its own pair", "the question", "Bonferroni over the plans", "one of the family")
INTERVALS = ("of the pair", "of the question", "of the family")
TOLD = "told apart by ranks and sentence"


def main() -> None:
    """Print a table."""
    heads = [*(f"claimed by {rule}" for rule in RULES), TOLD, *(f"95 % {interval}" for interval in INTERVALS)]
    print(f"| plans, seeds, gain | {' | '.join(heads)} |")
    print("| --- |" + " ---: |" * len(heads))
    equal = [(plans, seeds, 0.0) for plans in (3, 5) for seeds in (3, 5, 10)]
    better = [(plans, seeds, gain) for plans, seeds in ((3, 5), (5, 5), (5, 10)) for gain in (0.2, 0.4)]
    for plans, seeds, gain in [*equal, *better]:
        found = simulated(plans, seeds, gain)
        cells = " | ".join(f"{100 * found[key] / RUNS:.1f} %" for key in (*RULES, TOLD, *INTERVALS))
        print(f"| {plans}, {seeds}, {gain:g} points | {cells} |")


def simulated(plans: int, seeds: int, gain: float) -> Counter[str]:
    """Count in how many of RUNS searches each rule claims a gain, and each interval holds the true one.

    All plans but the defaults are equal and `gain` points better.
    """
    rng, found = np.random.default_rng(1), Counter[str]()
    for _ in range(RUNS):
        values = rng.normal(0, SPREAD, (plans + 1, seeds))
        values[:-1] += gain  # the last plan is that of the defaults
        found.update(judged(values, int(values.mean(axis=1).argmax()), gain))
    return found


def judged(values: np.ndarray, best: int, gain: float) -> list[str]:
    """Return which rules claim a gain of plan `best`, whether any pair is told apart, and which intervals hold."""
    pairs = list(combinations(range(len(values)), 2))
    gaps = np.array([values[a] - values[b] for a, b in pairs])
    means, errors = gaps.mean(axis=1), gaps.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
    degrees = values.shape[1] - 1
    p = 2 * stdtr(degrees, -np.abs(means / errors))
    told = [one <= ALPHA for one in holm(p.tolist())]
    if best == len(values) - 1:  # the defaults have won: there is no gain to be claimed
        return [*INTERVALS, *[TOLD] * any(told)]
    mine = pairs.index((best, len(values) - 1))
    asked = min(ALPHA, 2 * ALPHA / (len(values) - 1))
    level = ALPHA / max(1, len(pairs) - sum(told))  # what a pair that is still tied would have to reach
    true = abs(means[mine] - gain)
    holds = [true <= -stdtrit(degrees, one / 2) * errors[mine] for one in (ALPHA, asked, level)]
    claims = (p[mine] <= ALPHA, p[mine] <= asked, p[mine] <= ALPHA / (len(values) - 1), told[mine])
    anything = p[mine] <= asked or any(so for pair, so in enumerate(told) if pair != mine)
    names = (*RULES, TOLD, *INTERVALS)
    return [name for name, so in zip(names, (*claims, anything, *holds), strict=True) if so]


if __name__ == "__main__":
    main()
