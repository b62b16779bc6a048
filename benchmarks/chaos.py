"""How a whole search survives: it is stopped, killed and left without power, gone on with, read and driven twice.

The search and its resume are the program's own; Ray and the training are simulated, so that a run takes a second. After
each fault `fsck` must find none, what was acknowledged must be there, and at the end every trial, once; a search with
one worker must have found what it finds without any fault. Each broken promise is printed, and counts as lost.

Before that, `faults.py` does the same to single files. Together these are the tables of figures in
docs/explanation/reliability.md; what a real Ray survives is tried by `pytest -m chaos`.

    python benchmarks/chaos.py [RUNS_CUT] [RUNS_KILLED] [PASSINGS] [ROUNDS]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import faults
from machine import table

from mnistlab.store import durable
from tests.faults.sample import MEMORY
from tests.simulated.campaigns import Tally, cut_and_compared, killed_at_point, random_kills
from tests.simulated.controller import World
from tests.simulated.driving import Case, registry
from tests.simulated.together import Round, two_resumes, watched_search

KILLS = 4  # of each run that is killed at random moments
CUT = "stopped or killed, half of them without power, up to three times, anywhere"
KILLED = "killed (SIGKILL) at a random moment"
POINTS = "killed at a passing of each point of writing"
WATCHED = "a second driver or a repair while it is driven"
READ = "read in every way while it is written"
RESUMED = "two that go on with it at the same time"
CASE = Case("random", "asha", trials=12, epochs=6, parallel=2)


def main(cut: int = 100, killed: int = 50, passings: int = 6, rounds: int = 20) -> int:
    os.environ["MNISTLAB_OFFLINE"] = "1"
    root = Path(tempfile.mkdtemp(prefix="mnistlab-", dir=MEMORY))
    try:
        return faults.main() + tried(root, cut, killed, passings, rounds)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def tried(root: Path, cut: int, killed: int, passings: int, rounds: int) -> int:
    """Print the table; return how many promises were broken."""
    registry()  # once for all processes
    plan: dict[str, list[Callable[[], Tally | Round]]] = {
        CUT: [partial(cut_and_compared, root / f"cut-{seed}", seed) for seed in range(cut)],
        KILLED: [partial(random_kills, root / f"killed-{seed}", seed, KILLS) for seed in range(killed)],
        POINTS: [
            partial(killed_at_point, root / f"{point}-{first}", point, first)
            for point in durable.POINTS
            for first in range(1, passings + 1, 3)
        ],
        WATCHED: [partial(watched_search, root / f"watched-{one}", case(one)) for one in range(rounds)],
        RESUMED: [partial(two_resumes, root / f"two-{one}", case(one), 10 + 2 * one) for one in range(rounds)],
    }
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        started = {name: [pool.submit(work) for work in works] for name, works in plan.items()}
        found: dict[str, list[Any]] = {name: [one.result() for one in several] for name, several in started.items()}
    print(table("Faults of a whole search", ["fault", "runs", "tried", "survived", "lost"], rows(found)))
    broken = [said for several in found.values() for one in several for said in one.broken]
    print("\n".join(broken))
    return len(broken)


def rows(found: Mapping[str, list[Any]]) -> Iterator[tuple[str, int, int, int, int]]:
    for name in (CUT, KILLED, POINTS):
        one = sum(found[name], Tally())
        yield name, one.runs, one.faults, one.survived, len(one.broken)
    yield row(WATCHED, found[WATCHED], sum(one.refused for one in found[WATCHED]))
    yield row(READ, found[WATCHED], sum(one.looks for one in found[WATCHED]))
    yield row(RESUMED, found[RESUMED], len(found[RESUMED]))


def case(number: int) -> Case:
    return replace(CASE, seed=number, world=World(number, failing=0.15))


def row(name: str, rounds: list[Round], tried: int) -> tuple[str, int, int, int, int]:
    lost = sum(len(one.broken) for one in rounds)
    return name, len(rounds), tried, max(0, tried - lost), lost


if __name__ == "__main__":
    sys.exit(min(main(*map(int, sys.argv[1:])), 1))
