"""One comparable value for each trial that ended, whether or not the scheduler let it use its full budget.

A validation accuracy of 0.95 after one epoch is better than one of 0.95 after nine, so the values themselves can't be
compared. Ranks can: a pruned trial is compared, at its own last epoch, with every trial that was trained for longer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

Ended = Sequence[FrozenTrial]


def scores(trials: Ended, directions: Sequence[StudyDirection]) -> Mapping[int, tuple[float, ...]]:
    """Return a value per objective, by trial number, for each of `trials` that says something about its plan.

    With one objective a trial's score is the share of trials that it beats, half of its equals included; where less
    is better, one minus that. A plan that came to nothing counts as the worst. Ranks also keep one plan that diverges
    from hiding the differences among all others (Salinas 2020, "A quantile-based approach for hyperparameter transfer
    learning"). With several objectives nothing is pruned, and values stay as they are.
    """
    if len(directions) > 1:
        return _several(trials, directions)
    sign = 1.0 if directions[0] == StudyDirection.MAXIMIZE else -1.0
    infeasible = [trial for trial in trials if is_infeasible(trial)]
    groups = [infeasible] * bool(infeasible) + _ranked(trials, sign)
    total, below, found = sum(map(len, groups)), 0, dict[int, tuple[float, ...]]()
    for group in groups:
        beaten = (below + len(group) / 2) / total
        value = beaten if sign > 0 else 1 - beaten
        found |= {trial.number: (value,) for trial in group}
        below += len(group)
    return found


def is_infeasible(trial: FrozenTrial) -> bool:
    """Return whether a trial failed for a reason that speaks against its plan."""
    return any(value > 0 for value in trial.constraints.values())


def _several(trials: Ended, directions: Sequence[StudyDirection]) -> Mapping[int, tuple[float, ...]]:
    found = {one.number: tuple(one.values) for one in trials if one.state == TrialState.COMPLETE and one.values}
    if not found:
        return {}
    signs = [1 if direction == StudyDirection.MAXIMIZE else -1 for direction in directions]
    worst = tuple(
        sign * min(sign * value for value in column)
        for sign, column in zip(signs, zip(*found.values(), strict=True), strict=True)
    )
    return found | {trial.number: worst for trial in trials if is_infeasible(trial)}


def _ranked(trials: Ended, sign: float) -> list[list[FrozenTrial]]:
    """Return groups of equal trials, the worst first. A larger value times `sign` is better.

    Of those that ended at the same epoch the better value wins. A trial that ended earlier gets the place among the
    longer ones that it had among them at its last epoch, so that neither a promotion by luck nor an unlucky bracket
    decides alone.
    """
    by_epoch = defaultdict[int, list[FrozenTrial]](list)
    for trial in trials:
        if trial.intermediate_values and not is_infeasible(trial):
            by_epoch[max(trial.intermediate_values)].append(trial)
    placed: list[list[FrozenTrial]] = []
    for epoch in sorted(by_epoch, reverse=True):
        longer = [trial for group in placed for trial in group]
        there = sorted(sign * one.intermediate_values[epoch] for one in longer if epoch in one.intermediate_values)
        peers = sorted(by_epoch[epoch], key=lambda one: sign * one.intermediate_values[epoch])
        groups = [list(group) for _, group in groupby(peers, key=lambda one: one.intermediate_values[epoch])]
        placed = _merged(placed, groups, [bisect_right(there, sign * g[0].intermediate_values[epoch]) for g in groups])
    return placed


def _merged(
    placed: list[list[FrozenTrial]], groups: list[list[FrozenTrial]], beaten: Sequence[int]
) -> list[list[FrozenTrial]]:
    """Put each of `groups` above so many trials of those `placed` as it has `beaten`."""
    merged: list[list[FrozenTrial]] = []
    waiting, passed = list(zip(beaten, groups, strict=True)), 0
    for longer in placed:
        while waiting and waiting[0][0] <= passed:
            merged.append(waiting.pop(0)[1])
        merged.append(longer)
        passed += len(longer)
    return merged + [group for _, group in waiting]
