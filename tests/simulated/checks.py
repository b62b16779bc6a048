"""What must hold after a driver's death, and what must be the same at the end of a run, however often it was cut.

Each check returns in words what is broken: tests want no words, the benchmark counts them.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from mnistlab import events
from mnistlab.leaderboard import rank
from mnistlab.store import EVENTS, fsck, read_events, read_run
from mnistlab.store.jsonl import read_lines
from mnistlab.store.layout import trial_name
from mnistlab.store.results import TrialResult
from mnistlab.tuning.driver import best_trials
from tests.simulated.driving import NOTHING_TO_DO, Driven, Drives

FINAL = {"trial_finished": "complete", "trial_pruned": "pruned", "trial_failed": "failed"}
PLACES = {"trial": "", "seed": 0, "epoch": 0}


def outcome(path: Path) -> dict[str, Any]:
    """Return all that a search has found, without the time that it took: equal for runs that decided alike."""
    record = read_run(path)
    metric = str(record.run["metric"])
    told = [stamped.event for stamped in read_events(path)]
    return {
        "trials": {one.trial: _timeless(one) for one in record.trials},
        "rungs": [event for event in told if isinstance(event, events.RungDecided)],
        "best": [one.trial for one in best_trials(record.trials, metric, len(record.trials))],
        "leaderboard": [replace(row, seconds=0.0, created="", run="") for row in rank(record).rows],
        "study": _study(path),
    }


def _timeless(one: TrialResult) -> TrialResult:
    rungs = tuple(replace(rung, seconds=0.0) for rung in one.rungs)
    return replace(one, seconds=0.0, rungs=rungs)


def _study(path: Path) -> list[Any]:
    """Return what Optuna was told: each trial's state, parameters and values, in the order of its numbers."""
    asked = (
        "SELECT trial_id, number, state FROM trials ORDER BY number",
        "SELECT trial_id, param_name, param_value FROM trial_params ORDER BY trial_id, param_name",
        "SELECT trial_id, step, intermediate_value FROM trial_intermediate_values ORDER BY trial_id, step",
        "SELECT trial_id, value FROM trial_values ORDER BY trial_id",
    )
    with closing(sqlite3.connect(path / "study.db")) as study:
        return [study.execute(query).fetchall() for query in asked]


class Promises:
    """What the drivers of a run have been told was written, and what they have left: none of it may go."""

    def __init__(self, drives: Drives) -> None:
        """Nothing has been promised yet."""
        self._drives = drives
        self._run: Path | None = None
        self._lines: list[dict[str, Any]] = []
        self._ends: dict[str, Mapping[str, Any]] = {}
        self._states: dict[str, set[int]] = {}

    def before(self) -> None:
        """Note what the next driver has to go on from."""
        self._states = states(self._drives.path) if self._drives.begun else {}

    def broken(self, driven: Driven, *, power: bool = False) -> list[str]:
        """Return which promises are broken after a driver's end; with the `power` also what was not flushed is gone."""
        if not self._drives.begun:
            return [f"{one['trial']} has ended and its run is gone" for one in driven.told if one["type"] in FINAL]
        path = self._drives.path
        if path != self._run:
            self._run, self._lines = path, []
        now = list(read_lines(path / EVENTS))
        found = [f"fsck: {one}" for one in fsck.check(path).findings if one.level == "fault"]
        before = self._lines[: len(now)] if power else self._lines
        found += [] if now[: len(before)] == before else ["events of earlier drivers have changed"]
        found += list(_missing(driven.told, now, power=power))
        new = now[len(self._lines) :]
        found += list(self._went_back(new))
        self._lines = now
        self._ends |= {line["trial"]: line for line in new if line["type"] in FINAL}
        return [*found, *self._lost(), *_miscounted(driven, path)]

    def _went_back(self, new: list[dict[str, Any]]) -> Iterator[str]:
        """Yield where a trial went on from elsewhere than from its beginning or a checkpoint, or left out an epoch."""
        reached: dict[str, int] = {}
        for line in new:
            name = line.get("trial")
            if line["type"] == "trial_started":
                # One that loses its worker goes on in the same driver, from an epoch that this one has told of.
                known = self._states.get(name, set()) | set(range(reached.get(name, 0) + 1))
                reached[name] = line["epoch"]
                if line["epoch"] not in known:
                    yield f"{name} goes on from epoch {line['epoch']}, of which there was no checkpoint"
            elif line["type"] == "trial_epoch":
                if line["epoch"] != reached.get(name, 0) + 1:
                    yield f"{name} is at epoch {line['epoch']} after {reached.get(name)}"
                reached[name] = line["epoch"]

    def _lost(self) -> Iterator[str]:
        results = {one.trial: one for one in read_run(self._drives.path).trials}
        for name, end in self._ends.items():
            result = results.get(name)
            if result is None:
                yield f"{name} has ended and its result is gone"
            elif not _agrees(result, end):
                yield f"{name} ended as {end['type']} and is {result.state} now, or with other numbers"


def _miscounted(driven: Driven, path: Path) -> Iterator[str]:
    """Yield where a driver that has ended by itself says otherwise how many trials ended how, earlier ones included."""
    if driven.code in {0, 1, 4} and driven.told:
        counts = dict(Counter(one.state for one in read_run(path).trials))
        said = driven.told[-1]["counts"]
        yield from [] if said == counts else [f"the run ended with {counts}, and says {said}"]


def _missing(told: list[dict[str, Any]], now: list[dict[str, Any]], *, power: bool) -> Iterator[str]:
    """Yield what a driver was told was written and is not there; what ended a trial outlasts the power too."""
    there = {line["seq"]: line for line in now}
    for one in told:
        if power and one["type"] not in FINAL:
            continue
        found = there.get(one["seq"])
        if found is None or any(found.get(key) != one[key] for key in ("type", "t", *PLACES) if key in one):
            yield f"event {one['seq']} ({one['type']}) was acknowledged and is lost"


def _agrees(result: TrialResult, end: Mapping[str, Any]) -> bool:
    metrics = end.get("metrics", result.metrics)
    return result.state == FINAL[end["type"]] and result.metrics == metrics and len(result.history) == end["epoch"]


def states(path: Path) -> dict[str, set[int]]:
    """Return the epochs of which there are checkpoints, by trial."""
    found: dict[str, set[int]] = {}
    for manifest in path.glob("trials/*/checkpoints/epoch-*.json"):
        found.setdefault(manifest.parents[1].name, set()).add(int(manifest.stem.removeprefix("epoch-")))
    return found


def unfinished(drives: Drives, trials: int) -> list[str]:
    """Return what is wrong with a run that was driven to its end: every trial is there, once, and has ended."""
    path, found = drives.path, list[str]()
    results = read_run(path).trials
    if [one.trial for one in results] != [trial_name(number) for number in range(trials)]:
        found.append(f"{trials} trials were asked for, these are there: {[one.trial for one in results]}")
    found += [f"{one.trial} is {one.state}" for one in results if one.state == "interrupted"]
    fsck.repair(path)
    found += [f"after a repair: {one}" for one in fsck.check(path).findings]
    found += [f"{name} has checkpoints, and has ended" for name, epochs in states(path).items() if epochs]
    running = running_in_study(path)
    found += [f"{running} trials are RUNNING in the study"] if running else []
    return [*found, *_not_idempotent(drives)]


def running_in_study(path: Path) -> int:
    """Return how many trials Optuna takes for running."""
    with closing(sqlite3.connect(path / "study.db")) as study:
        return study.execute("SELECT count(*) FROM trials WHERE state = 'RUNNING'").fetchone()[0]


def _not_idempotent(drives: Drives) -> Iterator[str]:
    before = digest(drives.path)
    code = drives.go().code
    if code != NOTHING_TO_DO:
        yield f"a resume of the finished run ended with {code}"
    if digest(drives.path) != before:
        yield "a resume of the finished run changed it"


def digest(path: Path) -> str:
    """Return a digest of every file of a run but its lock."""
    whole = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file() and file.name != ".lock"):
        whole.update(str(file.relative_to(path)).encode() + b"\0" + file.read_bytes())
    return whole.hexdigest()
