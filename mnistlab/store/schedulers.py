"""What the program asks of a scheduler by its name, from the experiment file to a check of what it left in a run.

`mnistlab/tuning/schedulers/` has a module of the same name for each, which makes it. Here is plain data, on the lowest
floor that asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What sets a scheduler apart; without any, as one whose name nobody knows, nothing is taken for granted."""

    compares: bool = False  # trials with each other, by one metric
    retrains: bool = False  # each trial anew at each rung, where it then waits for its promotion
    changes_settings: bool = False  # while a trial runs: how it ends says nothing of the settings that were proposed
    copies_states: bool = False  # from trial to trial, through the run folder; their plans and seeds come along
    all_at_once: bool = False  # keeps all of its trials alive, side by side
    effect: str = ""  # on poor trials, in words; where there are none it prunes


SCHEDULERS: Mapping[str, Traits] = {
    "halving": Traits(compares=True, retrains=True, effect="the best at each rung are promoted"),
    "asha": Traits(compares=True),
    "hyperband": Traits(compares=True),
    "median": Traits(compares=True),
    "pbt": Traits(compares=True, changes_settings=True, copies_states=True, all_at_once=True),
    "none": Traits(effect="nothing is pruned"),
}
"""All of them by name, in the order in which messages list them."""


def traits_of(name: object) -> Traits:
    """Return the traits of a scheduler; of what is no scheduler's name, as a file may say, none."""
    return SCHEDULERS.get(name, Traits()) if isinstance(name, str) else Traits()
