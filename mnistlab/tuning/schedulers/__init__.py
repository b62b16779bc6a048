"""The schedulers, who save the time of poor trials: a module for each, under the name that experiments give it.

A module has a `build`, which makes what Ray Tune asks about each report. What else the program has to know of a
scheduler are its traits in `mnistlab/store/schedulers.py`. No module here proposes or trains anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from ray.tune.schedulers import TrialScheduler

from mnistlab.store.schedulers import SCHEDULERS
from mnistlab.tuning.schedulers.common import Wanted

BUILDERS: Mapping[str, Callable[[Wanted], TrialScheduler]] = {
    name: import_module(f"{__name__}.{name}").build for name in SCHEDULERS
}


def scheduler(wanted: Wanted) -> TrialScheduler:
    """Return the scheduler that the experiment names, told of the past of its run."""
    return BUILDERS[wanted.spec.search.scheduler](wanted)
