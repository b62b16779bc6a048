"""How a run directory survives: a writer is killed at random moments and at every point, bits are flipped, files cut.

After each kill every event and every ledger entry that was acknowledged must be there, and `fsck` must find no fault.

    python benchmarks/faults.py [KILLS] [FLIPS]
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from machine import spread, table

from mnistlab import events
from mnistlab.errors import MnistlabError
from mnistlab.store import RunWriter, create_run, durable, read_events, read_run
from mnistlab.store.fsck import check
from tests.faults.sample import DAY, whole_run, write_run


def main(kills: int = 50, flips: int = 1000) -> int:
    """Print the tables; return how many promises were broken."""
    root, draw = Path(tempfile.mkdtemp()), random.Random(0)
    rows = [killed_at_random(root, kills, draw), killed_at_points(root), flipped(root, flips, draw), cut(root)]
    print(table("Faults", ["fault", "tried", "events lost after they were acknowledged", "unsound or unseen"], rows))
    print(table("Checking", ["figure", "found"], [cost(root)]))
    return sum(count for row in rows for count in row[2:] if isinstance(count, int))


def child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def write_for_ever(path: Path, said: Path) -> None:
    """Write a run and then events, counting what was acknowledged in a file of its own."""
    writer = RunWriter(path)
    write_run(writer)
    with said.open("ab", buffering=0) as file:
        for number in range(100_000):
            writer.append(events.Warned(message=f"number {number}"))
            file.write(b"x")


def killed_at_random(root: Path, times: int, draw: random.Random) -> tuple[str, int, int, int]:
    lost = unsound = 0
    for number in range(times):
        path, said = create_run(root, "random", DAY), root / f"said-{number}"
        pid = child(lambda path=path, said=said: write_for_ever(path, said))
        time.sleep(draw.uniform(0, 0.4))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        told = sum(getattr(s.event, "message", "").startswith("number") for s in read_events(path))
        lost += max(0, (len(said.read_bytes()) if said.exists() else 0) - told)
        unsound += not check(path).sound
    return "killed (SIGKILL) at a random moment", times, lost, unsound


def killed_at_points(root: Path) -> tuple[str, int, str, int]:
    tried = unsound = 0
    for point in durable.POINTS:
        for number in range(1, 1000):
            path = create_run(root, "point", DAY)

            def work(path: Path = path, place: str = f"{point}:{number}") -> None:
                os.environ[durable.CRASH_AT] = place
                write_run(RunWriter(path))

            if os.waitstatus_to_exitcode(os.waitpid(child(work), 0)[1]) != -signal.SIGKILL:
                break
            tried += 1
            unsound += not check(path).sound
    return "killed at each passing of each point of writing", tried, "-", unsound


def _look(run: Path) -> object:
    try:
        return read_run(run), list(read_events(run))
    except MnistlabError as error:
        return str(error)


def _unseen(run: Path, name: str, content: bytes, good: object) -> bool:
    """Return whether a changed file is neither found by `fsck` nor read as it was."""
    whole = (run / name).read_bytes()
    (run / name).write_bytes(content)
    missed = not check(run).findings and _look(run) != good
    (run / name).write_bytes(whole)
    return missed


NAMES = ("run.json", "events.jsonl", "test_ledger.jsonl", "trials/0000/result.json")


def flipped(root: Path, times: int, draw: random.Random) -> tuple[str, int, str, int]:
    run, unseen = whole_run(root), 0
    good = _look(run)
    for _ in range(times):
        name = draw.choice(NAMES)
        content = bytearray((run / name).read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        unseen += _unseen(run, name, bytes(content), good)
    return "one bit flipped", times, "-", unseen


def cut(root: Path) -> tuple[str, int, str, int]:
    """Cut each file at each of its last 400 bytes; a cut at a line's end is what an earlier stop would have left."""
    run, unseen, tried = whole_run(root), 0, 0
    good = _look(run)
    for name in NAMES:
        whole = (run / name).read_bytes()
        for end in range(max(0, len(whole) - 400), len(whole)):
            if not (name.endswith("jsonl") and whole[:end].endswith(b"\n")):
                tried += 1
                unseen += _unseen(run, name, whole[:end], good)
    return "cut at a byte", tried, "-", unseen


def cost(root: Path) -> tuple[str, str]:
    run, times = whole_run(root), list[float]()
    report = check(run)
    for _ in range(20):
        start = time.perf_counter()
        report = check(run)
        times.append(1000 * (time.perf_counter() - start))
    return f"fsck of {report.events} events and {report.results} results, ms", spread(times, 1)


if __name__ == "__main__":
    sys.exit(min(main(*map(int, sys.argv[1:])), 1))
