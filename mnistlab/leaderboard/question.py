"""The question that is asked in advance: is the champion better than the plan of all defaults?

It has a risk of 5 % of its own, beside that of the family of all pairs. The champion was chosen among k plans by the
seeds that judge it, so that each of these may have been the one that is asked about. A false claim is one-sided, that a
plan is better which is not: by Bonferroni, k such claims have 5 % together if the two-sided p-value has to reach
2 * 5 % / k, and it is never laxer than the usual 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnistlab.leaderboard.entries import Entry
from mnistlab.leaderboard.racing import ALPHA


@dataclass(frozen=True)
class Question:
    """Whether the first plan of `pair` is better than the second, the defaults. They are named by their places.

    `best_of` is the number of plans of which the first one looks the best.
    """

    pair: tuple[int, int]
    best_of: int

    @property
    def level(self) -> float:
        """Return what the p-value of the pair, two-sided, has to reach."""
        return min(ALPHA, 2 * ALPHA / self.best_of)


def question_of(plans: Sequence[Entry]) -> Question | None:
    """Return what is asked of confirmed `plans`, the best standing first and then the best mean; None if nothing is.

    It is asked about the first plan, and the defaults of its own run. Nothing else that is told of the plans decides
    which plan that is, so that the answer can be given before their comparisons. A plan that has left a race is not
    asked about: when it left depended on its results.
    """
    first = plans[0] if plans else None
    if first is None or first.left or _is_default(first):
        return None
    own = (i for i, one in enumerate(plans) if one.record is first.record and _is_default(one) and not one.left)
    defaults = next(own, None)
    return None if defaults is None else Question((0, defaults), sum(_competes(one, first) for one in plans))


def _is_default(plan: Entry) -> bool:
    return plan.trial.trial == plan.record.baseline


def _competes(plan: Entry, first: Entry) -> bool:
    """Return whether a plan of any run might have been the one that is asked about.

    So might one that has left a race: the race has chosen among the plans by the same seeds.
    """
    return not _is_default(plan) and (plan.standing == first.standing or plan.left is not None)
