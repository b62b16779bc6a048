"""How often a ranking claims what is not so, how often it finds what is so, and whether it contradicts itself.

Runs are simulated: plans of a known accuracy, each with a deviation of its own between seeds, and errors of which some
are the plan's own on the same images for every seed. Part of the runs hold a race.

    python benchmarks/ranks.py [RANKINGS]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from machine import table

from mnistlab.leaderboard.entries import difference_of
from mnistlab.leaderboard.family import standings
from mnistlab.leaderboard.gain import gain_of
from mnistlab.leaderboard.power import smallest_difference
from mnistlab.leaderboard.racing import ALPHA, LEAST, beaten, confidence_of
from mnistlab.leaderboard.statistics import holm
from mnistlab.store.results import ReplicateResult, RunRecord, TrialResult
from tests.leaderboard import test_one_family as simulated

METRIC, IMAGES, ERRORS = "val_accuracy", 2000, 0.02
POINT = 0.01


@dataclass(frozen=True)
class World:
    """Plans with their deviations between seeds in points, their seeds, and by how much each is worse than the first.

    `own` is the share of the errors that a plan makes on the same images with every seed. With `defaults` the first
    plan is that of all defaults, and never leaves the race.
    """

    spreads: Sequence[float]
    seeds: int
    racing: bool = False
    own: float = 0.0
    worse: Sequence[float] = field(default=())
    defaults: bool = False

    @property
    def text(self) -> str:
        """Return the world in a cell of a table."""
        low, high = min(self.spreads), max(self.spreads)
        spread = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        race = ", race" if self.racing else ""
        return f"{len(self.spreads)} plans, {self.seeds} seeds, {spread} points, {self.own:.0%} own{race}"


def drawn(world: World, rng: np.random.Generator) -> list[npt.NDArray[np.bool_]]:
    """Return what each plan gets right, as (seeds, images)."""
    made: list[npt.NDArray[np.bool_]] = []
    for number, spread in enumerate(world.spreads):
        wrong = ERRORS + POINT * (world.worse[number] if world.worse else 0.0)
        own = rng.random(IMAGES) < wrong * world.own
        rate = np.clip(rng.normal(wrong * (1 - world.own), POINT * spread, (world.seeds, 1)), 0, 1)
        made.append(~(own | (rng.random((world.seeds, IMAGES)) < rate)))
    return made


def replicates(number: int, right: npt.NDArray[np.bool_]) -> list[ReplicateResult]:
    """Return a plan's replicates with these outcomes."""
    texts = [(row.astype(np.uint8) + ord("0")).tobytes().decode() for row in right]
    return [
        ReplicateResult(
            trial=f"{number:04}", replicate=i, seed=i, metrics={METRIC: float(row.mean())}, val_correct=text
        )
        for i, (row, text) in enumerate(zip(right, texts, strict=True), 1)
    ]


def run_of(world: World, rng: np.random.Generator) -> RunRecord:
    """Return a simulated run; of a race each drop as the confirmation writes it."""
    every = {f"{n:04}": replicates(n, right) for n, right in enumerate(drawn(world, rng))}
    asked = {"baseline": {"trial": "0000"}} if world.defaults else {}
    entries: list[Mapping[str, Any]] = [{"type": "planned", "trials": list(every), "seeds": world.seeds, **asked}]
    alive, confidence = list(every), confidence_of(len(every), world.seeds)
    for look in range(LEAST, world.seeds) if world.racing else ():
        for out in beaten({name: every[name][:look] for name in alive}, METRIC, confidence):
            if asked and out.trial == "0000":
                continue
            alive.remove(out.trial)
            every[out.trial] = every[out.trial][:look]
            about = {"trial": out.trial, "leader": out.leader, "seeds": out.seeds, "confidence": out.confidence}
            entries.append({"type": "dropped", **about})
    confirm = {"racing": world.racing, "seeds": world.seeds}
    return RunRecord(
        path="simulated",
        run={"run": "simulated", "metric": METRIC, "dataset": {"name": "mnist"}, "experiment": {"confirm": confirm}},
        trials=trials(len(every)),
        replicates=tuple(one for ones in every.values() for one in ones),
        confirmations=tuple(entries),
    )


def trials(count: int) -> tuple[TrialResult, ...]:
    """Return that many trials that used their full budget."""
    about: dict[str, Any] = {"state": "complete", "plan": {}, "label": "", "metrics": {METRIC: 0.9}}
    return tuple(TrialResult(trial=f"{n:04}", number=n, seed=n, **about) for n in range(count))


def share(count: int, of: int) -> str:
    """Return a share with its standard error."""
    p = count / of
    return f"{100 * p:.1f} % (se {100 * (p * (1 - p) / of) ** 0.5:.1f})"


WIDE = (0.02, 0.05, 0.1, 0.2, 0.5)
EQUAL = (
    World([0.1] * 5, 3, own=0.5),
    World([0.1] * 5, 5, own=0.5),
    World([0.2] * 5, 5),
    World([0.1] * 5, 10, own=0.5),
    World([0.2] * 10, 5),
    World(WIDE, 5),
    World(WIDE, 5, own=0.5),
    World(WIDE, 5, racing=True),
    World(WIDE, 10, racing=True),
    World(WIDE, 10, racing=True, own=0.5),
    World([0.2] * 5, 10, racing=True),
)


def false_claims(world: World, rankings: int) -> tuple[str, ...]:
    """Return how often something is claimed of equal plans, by what rule."""
    rng, leader, near, ours, races = np.random.default_rng(1), 0, 0, 0, 0
    for _ in range(rankings):
        judged = standings([run_of(world, rng)], METRIC)
        plans = judged.found
        mine = [difference_of(plans[0], one, METRIC).p for one in plans[1:]]
        leader += min(mine) <= ALPHA
        near += min(holm(mine)) <= ALPHA
        ours += any(judged.family.above)
        races += any(one.left for one in plans)
    raced = share(races, rankings) if world.racing else ""
    return (world.text, share(leader, rankings), share(near, rankings), raced, share(ours, rankings))


def false_gains(world: World, rankings: int) -> tuple[str, ...]:
    """Return how often a gain of equal plans over the defaults is claimed, and any pair of the ranks without and with.

    "Without" is the same run in which nobody named the defaults, so that the family has all of the pairs.
    """
    rng, gains, without, together = np.random.default_rng(4), 0, 0, 0
    for _ in range(rankings):
        run = run_of(replace(world, defaults=True), rng)
        unnamed = tuple({**entry, "baseline": None} for entry in run.confirmations)
        judged = standings([run], METRIC)
        gain = gain_of(judged, METRIC)
        gains += gain is not None and gain.kind == "gained"
        without += any(standings([replace(run, confirmations=unnamed)], METRIC).family.above)
        together += any(judged.family.above)
    return (world.text, share(gains, rankings), share(without, rankings), share(together, rankings))


def found_gaps(rankings: int) -> list[tuple[str, ...]]:
    """Return for worlds with one better plan how often the ranking says so, what was planned, and what a race saves."""
    rows: list[tuple[str, ...]] = []
    for seeds, gap in ((5, 0.3), (9, 0.3), (9, 0.5), (9, 1.0)):
        for racing in (False, True):
            world = World((0.1,) * 3, seeds, racing=racing, worse=(0.0, gap, gap))
            rng, found, trained = np.random.default_rng(2), 0, 0
            for _ in range(rankings):
                run = run_of(world, rng)
                judged = standings([run], METRIC)
                found += judged.places[0] == "1" and judged.found[0].trial.number == 0
                trained += len(run.replicates)
            between = (2 * (0.1**2 + 100**2 * ERRORS * (1 - ERRORS) / IMAGES)) ** 0.5
            planned = smallest_difference(between, seeds, (ALPHA / 2 if racing else ALPHA) / 3)
            rows.append((world.text, f"{gap:g}", share(found, rankings), f"{planned:.2f}", f"{trained / rankings:.1f}"))
    return rows


def second_look(rankings: int) -> list[tuple[str, ...]]:
    """Return how often equal plans are told apart where a tie is answered by more seeds, and then judged again."""
    world, rng, first, either = World((0.05, 0.1, 0.2), 10), np.random.default_rng(3), 0, 0
    for _ in range(rankings):
        every = [replicates(n, right) for n, right in enumerate(drawn(world, rng))]
        told = [any(standings([of_seeds(every, seeds)], METRIC).family.above) for seeds in (5, 10)]
        first += told[0]
        either += any(told)
    return [("5 seeds", share(first, rankings)), ("5 seeds, and after a tie 10", share(either, rankings))]


def of_seeds(every: Sequence[Sequence[ReplicateResult]], seeds: int) -> RunRecord:
    """Return a run of these plans with their first `seeds` seeds."""
    run = {"run": "simulated", "metric": METRIC, "dataset": {"name": "mnist"}}
    return RunRecord(
        path="", run=run, trials=trials(len(every)), replicates=tuple(one for ones in every for one in ones[:seeds])
    )


def contradictions(rankings: int) -> list[tuple[str, ...]]:
    """Return in how many random rankings two statements contradict each other, by the checks of the tests."""
    broken = told = 0
    for records, board, drops in simulated.rankings(rankings):
        told += bool(drops)
        try:
            judged = standings(sorted(records, key=lambda r: r.path), board.metric)
            simulated.check_rows(board, judged.family)
            simulated.check_order(judged.family)
            simulated.check_words(board)
            if board.champion and board.champion.state == "confirmed":
                simulated.check_gain(board, judged)
            simulated.check_races(board, drops)
            simulated.check_files(board, records)
        except AssertionError:
            broken += 1
    return [(str(rankings), str(told), str(broken))]


def main(rankings: int = 1000) -> None:
    """Print the tables."""
    n = f"{rankings} rankings each"
    heads = [
        "plans",
        "leader, uncorrected",
        "Holm over the leader's",
        "a race dropped one",
        "the family, race included",
    ]
    print(table(f"Equal plans that are told apart, {n}", heads, [false_claims(world, rankings) for world in EQUAL]))
    heads = ["plans", "a gain", "the ranks, if it is not asked", "the ranks and the sentence"]
    asked = [false_gains(world, rankings) for world in EQUAL]
    print(table(f"Equal plans, one of them that of the defaults: what is claimed, {n}", heads, asked))
    heads = ["plans", "points worse", "winner found", "seen with 80 %, points", "trainings"]
    print(table(f"One better plan, {n}", heads, found_gaps(rankings)))
    print(table(f"Equal plans and a second look, {n}", ["looks", "told apart"], second_look(rankings)))
    heads = ["rankings", "with a drop", "with a contradiction"]
    print(table("Random rankings", heads, contradictions(max(10, rankings // 2))))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
