"""The main job: `mnistlab search experiments/cnn.toml` on the whole of MNIST, once, searched, confirmed and tested.

The clock covers the whole command. The run directory stays under `runs/`; with its path as the argument nothing is
run and its figures are printed again, the time then being the run's own (from its start to its last event).

Usage: MNISTLAB_DATA=FOLDER python benchmarks/main_job.py [RUN_DIRECTORY]
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from machine import table

from mnistlab.events import RunFinished
from mnistlab.leaderboard import rank
from mnistlab.store import find_runs, read_events, read_run
from mnistlab.store.results import RunRecord

ROOT = Path(__file__).resolve().parents[1]
RUNS = Path("runs")
Rows = list[tuple[str, str, str]]


def search() -> tuple[Path, float]:
    """Run the search; return its run directory and the seconds that the command took."""
    before, start = set(find_runs(RUNS)), time.perf_counter()
    command = [str(Path(sys.executable).parent / "mnistlab"), "search", str(ROOT / "experiments/cnn.toml")]
    subprocess.run([*command, "--runs", str(RUNS)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    (path,) = set(find_runs(RUNS)) - before
    return path, seconds


def own_seconds(path: Path) -> float:
    """Return how long a finished run took by its own account."""
    ends = [stamped.event.seconds for stamped in read_events(path) if isinstance(stamped.event, RunFinished)]
    return ends[-1] if ends else sys.exit(f"{path} has not finished")


def figures(record: RunRecord) -> Rows:
    """Return what the run found."""
    board, states = rank(record), Counter(trial.state for trial in record.trials)
    if board.dataset != "mnist" or board.champion is None or board.champion.test is None:
        sys.exit(f"{record.path}: no plan was confirmed and tested on mnist (the dataset is {board.dataset})")
    test, machine = board.champion.test, record.run["machine"]
    counts = ", ".join(f"{states[state]} {state}" for state in ("complete", "pruned", "interrupted", "failed"))
    together = board.ensemble
    joined = f"{100 * together.test.accuracy:.2f} ({len(together.replicates)} models)" if together else "none"
    spread = f"sd {100 * (test.accuracy.sd or 0):.3f}, n={test.accuracy.n}"
    return [
        ("trials", "", f"{len(record.trials)}: {counts}"),
        ("champion's mean test accuracy, %", ">= 99.60", f"{100 * test.accuracy.mean:.3f} ({spread})"),
        ("Wilson 95 % interval of the mean, %", "", f"{100 * test.interval.low:.2f}-{100 * test.interval.high:.2f}"),
        ("its ensemble's test accuracy, %", ">= 99.68", joined),
        ("gain over the defaults on validation", "", board.gain.kind if board.gain else "unknown"),
        ("openings of the test set", "1", str(board.test_openings)),
        ("champion", "", f"trial {board.champion.trial}, {board.champion.model} {board.champion.settings}"),
        ("run", "", f"{board.run} on {board.dataset}, {machine['device']}, {machine['parallel']} trials at once"),
    ]


def main(given: str = "") -> None:
    """Print the table."""
    path, seconds = (Path(given), own_seconds(Path(given))) if given else search()
    rows = [(f"wall-clock time of the {'run' if given else 'command'}, s", "<= 900", f"{seconds:,.0f}")]
    print(table("The main job", ("figure", "wanted", "found"), [*rows, *figures(read_run(path))]))


if __name__ == "__main__":
    main(*sys.argv[1:])
