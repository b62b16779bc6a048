"""Many faults, one after the other: the tests try some of them, `make chaos` all, the benchmark counts them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mnistlab import durable
from mnistlab.fsck import check, repair
from tests.simulated.checks import Promises, outcome, unfinished
from tests.simulated.controller import World
from tests.simulated.driving import SCHEDULERS, Case, Driven, Drives, Fault, clear

WELL = {0}  # how a driver ends whose search has come to its end


@dataclass
class Tally:
    """What was tried, and in words what did not survive."""

    faults: int = 0
    runs: int = 0
    broken: list[str] = field(default_factory=list)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.faults + other.faults, self.runs + other.runs, self.broken + other.broken)


def random_kills(folder: Path, seed: int, kills: int) -> Tally:
    """Kill the drivers of a run `kills` times at random moments, then let it come to its end."""
    draw = random.Random(seed)
    drives = Drives(folder, _killed_case(seed, draw))
    promises, tally = Promises(drives), Tally(runs=1)
    while tally.faults < kills:
        promises.before()
        driven = _killed_after(drives, draw.randint(0, 12), draw.uniform(0, 0.01))
        tally.faults += driven.killed
        tally.broken += [f"seed {seed}: {said}" for said in promises.broken(driven)]
        tally.broken += list(_mended(drives)) if draw.random() < 0.5 else []
        if not driven.killed:  # it has come to its end before it was hit
            break
    promises.before()
    driven = drives.go()
    tally.broken += [f"seed {seed}: {said}" for said in promises.broken(driven)]
    tally.broken += [f"seed {seed}: {said}" for said in unfinished(drives, drives.case.trials)]
    clear(folder)
    return tally


def _killed_case(seed: int, draw: random.Random) -> Case:
    world = World(seed, failing=0.15, keep_every=draw.choice([1, 2]))
    algorithm, scheduler = draw.choice(["tpe", "random", "qmc", "cmaes"]), draw.choice(SCHEDULERS)
    return Case(algorithm, scheduler, trials=14, epochs=6, seed=seed, parallel=draw.choice([1, 3]), world=world)


def _killed_after(drives: Drives, events: int, seconds: float) -> Driven:
    """Kill a driver so long after it has written so many events: anywhere, but not later on a slow machine."""
    pid = drives.start()
    while drives.told() < events and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)  # one that has ended waits for us, and does not mind
    return drives.wait(pid)


def _mended(drives: Drives) -> Iterator[str]:
    """Repair a run as a careful user would; yield what is left that could have been mended."""
    if drives.begun:
        repair(drives.path)
        yield from (f"not mended: {one}" for one in check(drives.path).findings if one.mend)


# --- points of writing --------------------------------------------------------------------------------------------

SMALL = Case("tpe", "asha", trials=4, epochs=3, factor=2, world=World(failing=0.0))


def killed_at_point(folder: Path, point: str, passings: int, case: Case = SMALL) -> Tally:
    """Kill one driver after the other when it passes `point` for the first time, the second, up to `passings`.

    With one worker the run has to come to the same end as one that nobody kills.
    """
    whole, cut = Drives(folder / "whole", case), Drives(folder / "cut", case)
    whole.to_the_end()
    promises, tally = Promises(cut), Tally(runs=1)
    for number in range(1, passings + 1):
        promises.before()
        driven = cut.go(Fault("point", point=f"{point}:{number}"))
        tally.faults += driven.killed
        tally.broken += [f"{point}:{number}: {said}" for said in promises.broken(driven)]
    promises.before()
    driven = cut.go()
    tally.broken += [f"{point}: {said}" for said in (*promises.broken(driven), *unfinished(cut, case.trials))]
    if outcome(cut.path) != outcome(whole.path):
        tally.broken.append(f"{point}: another outcome than without the kills")
    clear(folder)
    return tally


def killed_at_points(folder: Path, passings: int) -> Tally:
    """Do so at every point of writing that there is."""
    return sum((killed_at_point(folder / point, point, passings) for point in durable.POINTS), Tally())


def many_random_kills(folder: Path, runs: int, kills: int) -> Tally:
    """Kill drivers at random moments of several runs."""
    return sum((random_kills(folder / str(seed), seed, kills) for seed in range(runs)), Tally())
