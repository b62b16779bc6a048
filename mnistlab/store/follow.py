"""A run seen from outside while another process drives it: which one is meant, its events as they come, its driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from mnistlab.errors import near_miss
from mnistlab.events import Stamped
from mnistlab.store import NoSuchRunError, is_running, named, stamped
from mnistlab.store.jsonl import decode_line
from mnistlab.store.layout import EVENTS, LOCK, RUN

__all__ = ["find_stream", "follow_events", "is_running"]


def find_stream(name: str | None, root: Path) -> Path:
    """Return the run directory that `name` (a path, or a name in `root`) stands for; without a name, the newest one.

    A run that is only being prepared, and so has no `run.json` yet, is found too.

    Raises:
        NoSuchRunError: with the nearest name, if there is none.
    """
    known = sorted((path.parent for path in root.glob(f"*/{EVENTS}")), key=_begun)
    if name is None:
        if not known:
            raise NoSuchRunError(f"no runs in {root}; start one with: mnistlab search experiments/quick.toml")
        return known[-1]
    for path in (Path(name), root / name):
        if (path / EVENTS).is_file():
            return named(path)
    hint = near_miss(name, [path.name for path in known])
    raise NoSuchRunError(f"no run '{name}' here or in {root}{'; ' + hint if hint else ''}")


def _begun(run: Path) -> tuple[float, str]:
    """Return when the run was begun: its record is written once, and before that there is a lock."""
    for name in (RUN, LOCK, EVENTS):
        with suppress(OSError):
            return (run / name).stat().st_mtime, run.name
    return 0.0, run.name


def follow_events(run: Path, waiting: Callable[[], bool]) -> Iterator[Stamped]:
    """Yield the events of a run as they are written; at the end of the file go on for as long as `waiting()`.

    `waiting` is where the caller sleeps. A line is taken once it is whole: a writer may be in the middle of it.
    """
    rest, last = b"", False
    with suppress(FileNotFoundError), (run / EVENTS).open("rb") as file:
        while True:
            *lines, rest = (rest + file.read()).split(b"\n")
            for line in lines:
                record = decode_line(line)
                event = None if record is None else stamped(record, run / EVENTS)
                if event is not None:
                    yield event
            if lines:
                continue
            if last:
                return
            last = not waiting()  # what came while it waited is still to be read
