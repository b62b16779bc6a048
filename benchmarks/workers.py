"""Whether as many trials run at once as were promised, where trials are shorter than the start of a worker.

The search of experiments/quick.toml, without its confirmation, in turns: by Ray Tune's own loop, and by ours, which
drops no worker that is starting. How long two trials ran at once is read from the events; workers are counted by
looking at the processes ten times a second. With a DELAY, each worker but the first one of a search sleeps for so many
seconds while it starts, as on a busy machine or on a slower node.

Usage: python benchmarks/workers.py [ROUNDS] [DELAY]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from machine import spread, table

from mnistlab.store import read_events

ROOT = Path(__file__).resolve().parents[1]
OURS = "from mnistlab.__main__ import main; main()"
TUNES = f"""import contextlib
from mnistlab.tuning.ray import executor
executor.workers_kept = contextlib.nullcontext
{OURS}"""
# The first worker makes the file that the others find. Ray sends the class along, as it is defined in no module.
DELAYED = """
import os, time
from mnistlab.tuning.ray import executor
class PlanTrainable(executor.PlanTrainable):
    def setup(self, *arguments, **options):
        try:
            os.close(os.open({first!r}, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            time.sleep({delay})
        super().setup(*arguments, **options)
executor.PlanTrainable = PlanTrainable
"""
ENDS = {"trial_finished", "trial_pruned", "trial_interrupted", "trial_failed", "trial_waiting"}


@dataclass(frozen=True)
class Measured:
    """What one search took: seconds, but for the workers."""

    wall: float  # from Enter to the end of the command
    trials: float  # from the start of the first trial to the end of the last one
    together: float  # of these, with at least two trials running
    workers: int  # that were started
    useless: int  # of these, that no trial ever ran in


def search(code: str, folder: Path, delay: int) -> Measured:
    """Run the search by a Python program that ends in the command."""
    runs = folder / "runs"
    code = DELAYED.format(first=str(folder / "first"), delay=delay) + code if delay else code
    start = time.perf_counter()
    command = [sys.executable, "-c", code, "search", str(ROOT / "experiments/quick.toml"), "--runs", str(runs)]
    command += ["--set", "confirm.top=0", "--ui", "quiet"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    seen: set[int] = set()
    while child.poll() is None:
        seen |= workers_of(child.pid)
        time.sleep(0.1)
    assert child.returncode == 0, child.returncode
    return measured(next(runs.iterdir()), time.perf_counter() - start, seen)


def workers_of(pid: int) -> set[int]:
    """Return the processes below `pid` that were made workers of a search; Ray names them by what they run."""
    try:
        children = psutil.Process(pid).children(recursive=True)
        return {one.pid for one in children if "PlanTrainable" in " ".join(one.cmdline())}
    except psutil.Error:
        return set()


def measured(run: Path, wall: float, seen: set[int]) -> Measured:
    """Read a run's events."""
    events = [one for one in read_events(run) if one.event.type in ENDS | {"trial_started"}]
    together, running, before, most = 0.0, 0, events[0].t, 0
    for one in events:
        together += (one.t - before) * (running >= 2)
        running += 1 if one.event.type == "trial_started" else -1
        before, most = one.t, max(most, running)
    return Measured(wall, events[-1].t - events[0].t, together, len(seen), len(seen) - most)


def main(rounds: int = 5, delay: int = 0) -> None:
    """Print the table."""
    found: dict[str, list[Measured]] = {TUNES: [], OURS: []}
    for _ in range(rounds):
        for code, there in found.items():
            with tempfile.TemporaryDirectory() as folder:
                there.append(search(code, Path(folder), delay))
                print(there[-1], file=sys.stderr)
    tunes, ours = found[TUNES], found[OURS]

    def row(name: str, wanted: str, of: str, digits: int = 1) -> tuple[str, str, str, str]:
        return (name, wanted, *(spread([getattr(one, of) for one in there], digits) for there in (tunes, ours)))

    rows = [
        row("the whole command, s", "", "wall"),
        row("from the first trial's start to the last one's end, s", "", "trials"),
        row("of these with two trials running, s", "", "together"),
        row("workers started", "2", "workers", 0),
        row("workers beyond the most trials that ran at once", "0", "useless", 0),
    ]
    title = f"Workers that start slowly ({delay} s later than the first one)"
    print(table(title, ("figure", "wanted", "Ray Tune's loop", "ours"), rows))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
