"""Real searches with few images, again and again: how often the champion is better than the plan of all defaults.

Each seed is a whole `mnistlab search` of `experiments/cnn.toml` that trains on 2,000 images: it searches for five
minutes, then confirms its two best plans and the defaults on ten fresh seeds each. What it gained is the first sentence
of its verdict. The runs stay under `runs/`; a run directory as an argument is told again, and nothing is run for it.
Ten seeds take two hours; with `3-9` those of them are searched that are left after three.

Usage: MNISTLAB_DATA=FOLDER python benchmarks/pays.py [SEEDS | FIRST-LAST | RUN_DIRECTORY ...]
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from machine import spread, table
from main_job import ROOT, own_seconds

from mnistlab.leaderboard import Leaderboard, rank
from mnistlab.leaderboard.statistics import Difference
from mnistlab.store import find_runs, read_run

SETTINGS = ("data.train=2000", "data.validation=10000", "search.trials=64", "confirm.seeds=10")
SEARCHED = "5m"
RUNS = Path("runs")


@dataclass(frozen=True)
class Paid:
    """What one search came to, and the seconds that its command took."""

    board: Leaderboard
    seconds: float
    trials: int

    @property
    def row(self) -> tuple[str, ...]:
        """Return the cells of its row."""
        champion, gain = self.board.champion, self.board.gain
        about = f"trial {champion.trial}, {champion.model} {champion.settings}" if champion else ""
        cells = self.board.run, f"{self.seconds:.0f}", str(self.trials), gain.kind if gain else "unknown"
        return *cells, _points(gain.difference if gain else None), about


def _points(gap: Difference | None) -> str:
    if gap is None:
        return ""
    mean, low, high = (f"{100 * value:+.2f}" for value in (gap.mean, gap.interval.low, gap.interval.high))
    return f"{mean} ({low} to {high})"


def searched(seed: int) -> Paid:
    """Search once."""
    before, start = set(find_runs(RUNS)), time.perf_counter()
    command = [str(Path(sys.executable).parent / "mnistlab"), "search", str(ROOT / "experiments/cnn.toml")]
    command += ["--seed", str(seed), "--time-budget", SEARCHED, "--runs", str(RUNS), "--no-plugins"]
    command += [word for setting in SETTINGS for word in ("--set", setting)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    (path,) = set(find_runs(RUNS)) - before
    return told(path, seconds)


def told(path: Path, seconds: float) -> Paid:
    """Return what a run came to."""
    record = read_run(path)
    return Paid(rank(record), seconds, len(record.trials))


def asked(words: list[str]) -> Iterator[Paid]:
    """Search for each seed, or read the runs that are named."""
    seeds = re.fullmatch(r"(?:(\d+)-)?(\d+)", words[0] if words else "10")
    if seeds is None:
        yield from (told(Path(word), own_seconds(Path(word))) for word in words)
        return
    first, last = int(seeds[1] or 0), int(seeds[2]) if seeds[1] else int(seeds[2]) - 1
    for seed in range(first, last + 1):
        yield searched(seed)
        print(f"seed {seed} is over", file=sys.stderr)


def main(*words: str) -> None:
    """Print a row for each search, and below how many of them paid."""
    found = list(asked(list(words)))
    head = ("run", "seconds", "trials", "the champion", "points over the defaults (95 % interval)", "champion")
    better = sum(one.board.gain is not None and one.board.gain.kind == "gained" for one in found)
    seconds = spread([one.seconds for one in found], 0)
    total = ("all", seconds, "", f"{better} of {len(found)} gained (wanted: 8 of 10)", "", "")
    print(table("Did it pay?", head, [*(one.row for one in found), total]))


if __name__ == "__main__":
    main(*sys.argv[1:])
