"""Hyperband: as asha, over several brackets, each with a later first rung.

Ray's own HyperBand is synchronous: it waits for whole brackets, which starves the workers of a small machine.
"""

from __future__ import annotations

from ray.tune.schedulers import TrialScheduler

from mnistlab.tuning.schedulers import asha
from mnistlab.tuning.schedulers.common import Wanted


def build(wanted: Wanted) -> TrialScheduler:
    """Return asynchronous successive halving over all brackets that there is room for."""
    return asha.in_brackets(wanted, brackets)


def brackets(span: float, factor: int) -> int:
    """Return Hyperband's number of brackets, for so many times the grace: floor(log_factor(span)) + 1."""
    count = 1
    while factor**count <= span:
        count += 1
    return count
