"""How a whole search survives: it is stopped, killed and left without power, gone on with, read and driven twice.

The search and its resume are the program's own; Ray and the training are simulated, so that a run takes a second. After
each fault `fsck` must find none, what was acknowledged must be there, and at the end every trial, once; a search with
one worker must have found what it finds without any fault. Each broken promise is printed, and counts as lost.

    python benchmarks/chaos.py [RUNS_CUT] [RUNS_KILLED] [PASSINGS] [ROUNDS]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from machine import table

from tests.faults.sample import MEMORY
from tests.simulated.campaigns import Tally, killed_at_points, many_cuts, many_random_kills
from tests.simulated.controller import World
from tests.simulated.driving import Case
from tests.simulated.together import Round, two_resumes, watched_search

KILLS = 4  # of each run that is killed at random moments
CASE = Case("random", "asha", trials=12, epochs=6, parallel=2)


def main(cut: int = 100, killed: int = 50, passings: int = 12, rounds: int = 20) -> int:
    os.environ["MNISTLAB_OFFLINE"] = "1"
    root = Path(tempfile.mkdtemp(prefix="mnistlab-", dir=MEMORY))
    try:
        return tried(root, cut, killed, passings, rounds)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def tried(root: Path, cut: int, killed: int, passings: int, rounds: int) -> int:
    """Print the table; return how many promises were broken."""
    tallies = {
        "stopped, killed or without power, up to three times, anywhere": many_cuts(root / "cut", cut),
        "killed (SIGKILL) at a random moment": many_random_kills(root / "killed", killed, KILLS),
        "killed at a passing of each point of writing": killed_at_points(root / "points", passings),
    }
    rows = [(name, one.runs, one.faults, one.survived, len(one.broken)) for name, one in tallies.items()]
    watched = list(several(root / "watched", rounds))
    resumed = [two_resumes(root / f"two-{number}", case(number), at=10 + 2 * number) for number in range(rounds)]
    rows += [row("a second driver or a repair while it is driven", watched, sum(one.refused for one in watched))]
    rows += [row("two that go on with it at the same time", resumed, len(resumed))]
    rows += [row("read in every way while it is written", watched, sum(one.looks for one in watched))]
    print(table("Faults of a whole search", ["fault", "runs", "tried", "survived", "lost"], rows))
    broken = broken_in(tallies, [*watched, *resumed])
    print("\n".join(broken))
    return len(broken)


def several(root: Path, rounds: int) -> Iterator[Round]:
    for number in range(rounds):
        yield watched_search(root / str(number), case(number))


def case(number: int) -> Case:
    return replace(CASE, seed=number, world=World(number, failing=0.15))


def row(name: str, rounds: list[Round], tried: int) -> tuple[str, int, int, int, int]:
    lost = sum(len(one.broken) for one in rounds)
    return name, len(rounds), tried, max(0, tried - lost), lost


def broken_in(tallies: dict[str, Tally], rounds: list[Round]) -> list[str]:
    return [said for one in (*tallies.values(), *rounds) for said in one.broken]


if __name__ == "__main__":
    sys.exit(min(main(*map(int, sys.argv[1:])), 1))
