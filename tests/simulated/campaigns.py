"""Many faults, one after the other: the tests try some of them, `make chaos` all, the benchmark counts them."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mnistlab.errors import ExitCode
from mnistlab.store import durable
from mnistlab.store.fsck import check, repair
from tests.faults.sample import MEMORY
from tests.simulated.checks import Promises, outcome, unfinished
from tests.simulated.controller import World
from tests.simulated.driving import SCHEDULERS, Case, Driven, Drives, Fault, clear, drawn_case


@dataclass
class Tally:
    """What was tried, and in words what did not survive."""

    runs: int = 0
    faults: int = 0
    survived: int = 0  # faults after which no promise was broken
    broken: list[str] = field(default_factory=list)

    def __add__(self, other: Tally) -> Tally:
        both = self.runs + other.runs, self.faults + other.faults, self.survived + other.survived
        return Tally(*both, self.broken + other.broken)

    def note(self, place: str, hit: bool, broken: Iterable[str]) -> None:
        """Count a fault, if it has `hit`, and what is broken after it."""
        said = [f"{place}: {one}" for one in broken]
        self.faults += hit
        self.survived += hit and not said
        self.broken += said


def random_kills(folder: Path, seed: int, kills: int) -> Tally:
    """Kill the drivers of a run `kills` times at random moments, then let it come to its end."""
    draw = random.Random(seed)
    drives = Drives(folder, _killed_case(seed, draw))
    promises, tally = Promises(drives), Tally(runs=1)
    while tally.faults < kills:
        promises.before()
        driven = _killed_after(drives, draw.randint(0, 12), draw.uniform(0, 0.01))
        broken = [*promises.broken(driven), *(_mended(drives) if draw.random() < 0.5 else [])]
        tally.note(f"seed {seed}", driven.killed, broken)
        if not driven.killed:  # it has come to its end before it was hit
            break
    promises.before()
    broken = [*promises.broken(drives.go()), *unfinished(drives, drives.case.trials)]
    tally.note(f"seed {seed}, at the end", False, broken)
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

SMALL = Case("tpe", "asha", trials=4, epochs=3, factor=2, seed=9, world=World(failing=0.0))  # two of them are pruned


def killed_at_point(folder: Path, point: str, first: int = 1, unflushed: float | None = None) -> Tally:
    """Kill one driver of a run after the other at three passings of `point`: the `first`, and the two after that.

    At first each is counted from a driver's start, where it prepares, then from the last epoch of a trial, where it
    keeps a state and ends; there the power may fail as well, and leave the share `unflushed` of what was not flushed.
    """
    faults = list[Fault]()
    for number in range(first, first + 3):
        faults += [at_the_start(point, number), at_an_end(point, number, unflushed)]
    return killed_at(folder, faults)


def at_the_start(point: str, number: int = 1) -> Fault:
    """A kill at the passing `number` of a point, counted from a driver's start."""
    return Fault("point", at=0, point=f"{point}:{number}")


def at_an_end(point: str, number: int, unflushed: float | None = None) -> Fault:
    """A kill at the passing `number` of a point, counted from the last epoch of a trial."""
    ends = [(one.trial, len(one.history)) for one in whole(SMALL).found["trials"].values()]
    return Fault("point", at=-1, point=f"{point}:{number}", after=ends[number % len(ends)], unflushed=unflushed)


def killed_at(folder: Path, faults: Iterable[Fault]) -> Tally:
    """Kill one driver after the other by its fault; with one worker the run has to end as one that nobody kills."""
    cut = Drives(folder / "cut", SMALL)
    promises, tally = Promises(cut), Tally(runs=1)
    for fault in faults:
        promises.before()
        driven = cut.go(fault)
        tally.note(str(fault), driven.killed, promises.broken(driven, power=fault.unflushed is not None))
    promises.before()
    broken = [*promises.broken(cut.go()), *unfinished(cut, SMALL.trials), *_differing(cut)]
    tally.note("at the end", False, broken)
    clear(folder)
    return tally


@dataclass(frozen=True)
class Whole:
    """What a search comes to that nobody cuts: how many events it tells, and what it finds."""

    events: int
    found: Mapping[str, Any]


@cache
def whole(case: Case) -> Whole:
    """Drive a case without a cut, once for all that is compared with it."""
    with tempfile.TemporaryDirectory(prefix="mnistlab-", dir=MEMORY) as folder:
        drives = Drives(Path(folder), case)
        return Whole(len(drives.to_the_end().told), outcome(drives.path))


def _differing(cut: Drives) -> Iterator[str]:
    """Yield what a run that was cut has found otherwise than the whole one."""
    here, there = outcome(cut.path), whole(cut.case).found
    yield from (f"other {what} than without the cuts" for what in here if here[what] != there[what])


# --- cuts of every kind, and what they change ---------------------------------------------------------------------


def cut_and_compared(folder: Path, seed: int) -> Tally:
    """Cut a drawn search with one worker up to three times, anywhere; it has to find what it would have without."""
    case, tally = drawn_case(seed), Tally(runs=1)
    cut = Drives(folder / "cut", case)
    promises = Promises(cut)
    for fault in drawn_faults(seed, whole(case).events):
        promises.before()
        driven = cut.go(fault)
        hit = driven.killed or driven.code in {ExitCode.INTERRUPTED, ExitCode.TERMINATED}
        tally.note(f"seed {seed}, {fault}", hit, promises.broken(driven, power=fault.unflushed is not None))
    promises.before()
    broken = [*promises.broken(cut.to_the_end()), *_differing(cut)]
    tally.note(f"seed {seed}, at the end", False, broken)
    clear(folder)
    return tally


def drawn_faults(seed: int, events: int) -> list[Fault]:
    """Return one to three faults in a run of so many events, some together with the power; the first one always hits.

    Later ones may come too late: then there is nothing left to cut.
    """
    draw = random.Random(seed)
    first = Fault(draw.choice(["stop", "kill"]), draw.randint(1, events // 2), unflushed=_power(draw))
    return [first, *(_drawn_fault(draw, events) for _ in range(draw.randint(0, 2)))]


def _drawn_fault(draw: random.Random, events: int) -> Fault:
    kind, point = draw.choice(["stop", "kill", "point", "point"]), f"{draw.choice(durable.POINTS)}:{draw.randint(1, 6)}"
    return Fault(kind, draw.randint(1, events // 2), point, unflushed=_power(draw))


def _power(draw: random.Random) -> float | None:
    return draw.choice([None, draw.random()])
