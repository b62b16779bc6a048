"""One family of comparisons: which confirmed plans are told apart. Ranks, verdict, race and report all read it.

Every pair of confirmed plans is a comparison. Pairs that a race told apart stay told apart: the race took its part of
the risk. So does a gain over the defaults that is claimed: that is a question with a risk of its own (`question`), and
where none is claimed, nothing else tells that pair. What is left of the risk is for the other pairs, by Holm's method.
A claim also holds along a chain: if a is better than b and b better than c, a is better than c. So "better" is a strict
partial order, and a plan may have any rank from 1 + the number of plans that are surely better to n - the number of
those that are surely worse (D. Al Mohamad, J. Goeman, E. van Zwet, 2022, Scand. J. Stat. 49:1049). The chance of one
false claim or more in all of it is at most 5 %, and 5 % more where the question is asked: all of these ranges hold
together with 95 %, or 90 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from mnistlab.leaderboard.entries import EARLY, UNRANKED, Entry, difference_of, entries, value_of
from mnistlab.leaderboard.question import Question, question_of
from mnistlab.leaderboard.racing import level_of
from mnistlab.leaderboard.statistics import Difference, holm, tie_groups
from mnistlab.store.metric import FIXED, Metric
from mnistlab.store.results import RunRecord

Pair = tuple[int, int]
Differ = Callable[[int, int], Difference]


@dataclass(frozen=True)
class Family:
    """What the comparisons of all confirmed plans come to; plans are named by their place in a list.

    `above[i]` holds the plans that are surely better than plan i, `below[i]` those that are surely worse. `overruled`
    holds the pairs (better, worse) that were told apart although the better one lacks seeds, so that the rule ranks it
    below: they count in no rank. `question` was asked in advance: its pair is told apart, its first plan above, if it
    claims a gain, and else not. `level` is the p-value that another pair which is still tied would have to reach.
    """

    above: tuple[frozenset[int], ...]
    below: tuple[frozenset[int], ...]
    overruled: frozenset[Pair]
    level: float
    question: Question | None = None

    def span(self, plan: int) -> tuple[int, int]:
        """Return the best and the worst rank that a plan may have among all of the family."""
        return 1 + len(self.above[plan]), len(self.above) - len(self.below[plan])

    def asked_of(self, a: int, b: int) -> Question | None:
        """Return the question if it is about plan `a` and plan `b`."""
        asked = self.question
        return asked if asked and asked.pair == (a, b) else None

    def level_of(self, a: int, b: int) -> float:
        """Return what the p-value of plan `a` and plan `b`, which is listed below it, has to reach."""
        asked = self.asked_of(a, b)
        return asked.level if asked else self.level


@dataclass(frozen=True)
class Standings:
    """Every trial in the order in which it is listed, its rank (`1`, or `1=` where shared), and what decided that."""

    found: tuple[Entry, ...]
    places: tuple[str, ...]
    family: Family


def standings(records: Sequence[RunRecord], metric: str) -> Standings:
    """Return the trials of `records`, which can be compared, ranked.

    Confirmed plans are ordered by their standing (who has all seeds comes first), then by how many plans of the same
    standing are surely better, then by their means. Plans share a rank where standing and that number are the same:
    none of them is surely better than another.
    """
    found = entries(records, metric)
    plans = sum(entry.state == "confirmed" for entry in found)

    @cache
    def differ(a: int, b: int) -> Difference:
        return difference_of(found[a], found[b], metric)

    family = judge(found[:plans], metric, differ)
    standing = [entry.standing for entry in found[:plans]]
    keys = [(mine, sum(standing[j] == mine for j in family.above[i])) for i, mine in enumerate(standing)]
    order = sorted(range(plans), key=lambda i: (keys[i], i))
    listed = (*(found[i] for i in order), *found[plans:])
    return Standings(listed, _places(listed, [keys[i] for i in order]), _reordered(family, order))


def _places(listed: Sequence[Entry], keys: Sequence[object]) -> tuple[str, ...]:
    """Return the ranks; of those that were not confirmed, trials share one whose values are equal."""
    ranked = [i for i, entry in enumerate(listed) if entry.state != "failed"]

    def shares(leader: int, other: int) -> bool:
        a, b = listed[leader], listed[other]
        if a.place != b.place:
            return False
        if a.state == "confirmed":
            return keys[leader] == keys[other]
        return a.value == b.value and (a.place != EARLY or len(a.trial.history) == len(b.trial.history))

    places = tie_groups(ranked, shares)
    size = Counter(places)
    text = [f"{rank}=" if size[rank] > 1 else str(rank) for rank in places]
    return (*text, *[UNRANKED] * (len(listed) - len(ranked)))


def _reordered(family: Family, order: Sequence[int]) -> Family:
    """Return the same family of plans that are listed in another order."""
    now = {old: new for new, old in enumerate(order)}
    asked = family.question
    return replace(
        family,
        above=tuple(frozenset(now[j] for j in family.above[i]) for i in order),
        below=tuple(frozenset(now[j] for j in family.below[i]) for i in order),
        overruled=frozenset((now[a], now[b]) for a, b in family.overruled),
        question=asked and replace(asked, pair=(now[asked.pair[0]], now[asked.pair[1]])),
    )


# --- the comparisons ----------------------------------------------------------------------------------------------


def judge(plans: Sequence[Entry], metric: str, differ: Differ) -> Family:
    """Return what all pairs of confirmed `plans` come to; `differ(a, b)` is the difference a - b of two of them.

    `plans` have the best standing first, and then the best mean. The level is that of the strictest run: where one of
    them held a race, a part of the risk has been taken.
    """
    question = question_of(plans)
    gained = _gained(question, metric, differ)
    settled = [*gained, *_told_by_races(plans, metric, differ)]
    risk = min((level_of(one.record.run, one.record.confirmations) for one in plans), default=1.0)
    count = len(plans) * (len(plans) - 1) // 2
    every = combinations(range(len(plans)), 2)
    open_pairs = [pair for pair in every if pair not in gained and not any(plans[i].left for i in pair)]
    near = _worth_a_look(plans, metric, open_pairs, risk, count - len(settled))
    values = [0.0] * len(settled) + [differ(*pair).p for pair in near]
    corrected = holm(values, count)[len(settled) :]
    told = sorted((p, pair) for p, pair in zip(corrected, near, strict=True) if p <= risk)
    claims = [*settled, *(_turned(pair, metric, differ) for _, pair in told)]
    still = max(1, count - len(claims))
    never = question.pair if question and not gained else None
    return replace(_ordered(plans, claims, risk / still, never), question=question)


def _gained(question: Question | None, metric: str, differ: Differ) -> list[Pair]:
    """Return the pair of the question if it claims a gain."""
    if question is None:
        return []
    pair = question.pair
    told = differ(*pair).p <= question.level and _turned(pair, metric, differ) == pair
    return [pair] * told


def _turned(pair: Pair, metric: str, differ: Differ) -> Pair:
    """Return a pair with the better plan first."""
    return pair if Metric(metric).worth(differ(*pair).mean) > 0 else (pair[1], pair[0])


def _told_by_races(plans: Sequence[Entry], metric: str, differ: Differ) -> list[Pair]:
    """Return the pairs (better, worse) that races have told apart.

    A plan that left a race has lost to its leader, and to every other plan of that race from which it differs by as
    much. When it left depended on its results, so no other comparison of it can be trusted.
    """
    names = {(one.record.path, one.trial.trial): i for i, one in enumerate(plans)}
    decided: dict[Pair, None] = {}
    others: list[tuple[float, Pair]] = []
    for i, one in enumerate(plans):
        if one.left is None:
            continue
        rivals = {names.get((one.record.path, trial)) for trial in one.left.trials} - {None, i}
        leader = names.get((one.record.path, one.left.leader))
        if leader is not None:
            decided[leader, i] = None
        for rival in sorted(r for r in rivals if r is not None and r != leader):
            p = differ(min(i, rival), max(i, rival)).p
            if p <= one.left.level:
                others.append((p, _turned((min(i, rival), max(i, rival)), metric, differ)))
    for _, pair in sorted(others):
        if (pair[1], pair[0]) not in decided:
            decided[pair] = None
    return list(decided)


def _ordered(plans: Sequence[Entry], claims: Sequence[Pair], level: float, never: Pair | None) -> Family:
    """Return the partial order that `claims` (better, worse) make, the surest first.

    A claim against the rule, which ranks by standing first, is overruled. Pairs may rest on different seeds, so that
    a later claim can contradict a chain of earlier ones; then it is dropped. So is one that would imply `never`.
    """
    above, below = ([set[int]() for _ in plans] for _ in range(2))
    overruled: set[Pair] = set()
    for better, worse in claims:
        if plans[better].standing > plans[worse].standing:
            overruled.add((better, worse))
        elif worse not in above[better] and worse not in below[better]:
            up, down = {better, *above[better]}, {worse, *below[worse]}
            if never and never[0] in up and never[1] in down:
                continue
            for i in up:
                below[i] |= down
            for i in down:
                above[i] |= up
    return Family(tuple(map(frozenset, above)), tuple(map(frozenset, below)), frozenset(overruled), level)


# --- which pairs need a closer look -------------------------------------------------------------------------------


def _worth_a_look(plans: Sequence[Entry], metric: str, pairs: Sequence[Pair], risk: float, count: int) -> list[Pair]:
    """Return the pairs that Holm's method may tell apart: of 300 plans there are 44,850, and few of them may.

    A pair's p-value is at least Student's of its seeds, which is quickly found for all pairs; half of that is taken to
    be on the safe side. If k pairs may be told, none needs to reach more than risk / (count - k). What is fixed by the
    plan differs for sure or not at all, also where no seed is shared.
    """
    if metric in FIXED:
        return sorted(pairs)
    wanted = set(pairs)
    least = {pair: p / 2 for pair, p in _student(plans, metric, 2 * risk) if pair in wanted}
    known = len(least)
    while True:
        limit = risk / max(1, count - known)
        fewer = sum(p <= limit for p in least.values())
        if fewer == known:
            return sorted(pair for pair, p in least.items() if p <= limit)
        known = fewer


def _student(plans: Sequence[Entry], metric: str, most: float) -> Iterator[tuple[Pair, float]]:
    """Yield Student's two-sided p-value of every pair that shares two seeds or more and has one of at most `most`."""
    table = _by_seed(plans, metric)
    for i in range(len(plans) - 1):
        gains = table[i] - table[i + 1 :]
        shared = np.isfinite(gains)
        n = shared.sum(axis=1)
        gains = np.where(shared, gains, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = gains.sum(axis=1) / n
            error = np.sqrt((np.where(shared, gains - mean[:, None], 0.0) ** 2).sum(axis=1) / (n - 1) / n)
            p = np.nan_to_num(2 * stdtr(n - 1, -np.abs(mean) / error))
        near = np.flatnonzero((n > 1) & (p <= most))
        yield from (((i, i + 1 + j), value) for j, value in zip(near.tolist(), p[near].tolist(), strict=True))


def _by_seed(plans: Sequence[Entry], metric: str) -> npt.NDArray[np.float64]:
    """Return the metric as (plans, seeds), NaN where a plan lacks a seed."""
    columns = {seed: i for i, seed in enumerate(sorted({r.seed for one in plans for r in one.replicates}))}
    table = np.full((len(plans), len(columns)), np.nan)
    for i, one in enumerate(plans):
        for r in one.replicates:
            value = value_of(r, metric)
            table[i, columns[r.seed]] = np.nan if value is None else value
    return table
