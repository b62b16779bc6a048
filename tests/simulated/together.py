"""Others at a run while a search writes it: a second driver, a repair, and everyone who only reads."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from mnistlab.cli.watch import status
from mnistlab.errors import ExitCode, RunDirectoryError
from mnistlab.report import page
from mnistlab.report.run_page import read
from mnistlab.store import fsck, read_events
from mnistlab.store.follow import follow_events, is_running
from mnistlab.tuning import run
from mnistlab.tuning.reopen import reopen_search
from tests.simulated.driving import Case, Drives, Fault, options_in


@dataclass
class Round:
    """What came of a search among others: how often who was there, and in words what went wrong."""

    looks: int = 0
    refused: int = 0
    broken: list[str] = field(default_factory=list)


def watched_search(folder: Path, case: Case) -> Round:
    """Let a search run; read it all the while in every way, and try to drive it a second time."""
    drives, found = Drives(folder, case, pause=0.004), Round()
    pid = drives.start()
    if not wait_for(lambda: drives.begun and drives.told() > 3):
        os.kill(pid, signal.SIGKILL)
        return Round(broken=[f"the search has not begun: {drives.wait(pid).said}"])
    watcher = Watcher(drives.path, pid)
    while not ended(pid):
        _refused(found, pid, lambda: _resume(drives))
        _refused(found, pid, lambda: fsck.repair(drives.path))
        _look(found, drives.path, watcher)
    driven = drives.wait(pid)
    watcher.join()
    _look(found, drives.path, watcher)
    found.broken += [f"the search ended with {driven.code}: {driven.said}"] if driven.code != 0 else []
    written = [stamped.seq for stamped in read_events(drives.path)]
    found.broken += [] if watcher.seen == written else [f"the watcher saw {watcher.seen} of {written}"]
    found.broken += [] if written == list(range(1, len(driven.told) + 1)) else [f"events {written} were written"]
    found.broken += [str(one) for one in fsck.check(drives.path).findings]
    return found


class Watcher(threading.Thread):
    """Follows a run as `mnistlab watch` does, from its first event to its last."""

    def __init__(self, path: Path, driver: int) -> None:
        super().__init__(daemon=True)
        self._path, self._driver = path, driver
        self.seen: list[int] = []
        self.start()

    def run(self) -> None:
        for stamped in follow_events(self._path, self._waiting):
            self.seen.append(stamped.seq)

    def _waiting(self) -> bool:
        time.sleep(0.005)
        return is_running(self._path)


def ended(pid: int) -> bool:
    """Return whether a child process is over; it stays to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _resume(drives: Drives) -> object:
    options = options_in(drives.root, "a second one")
    return run.resume(reopen_search(drives.path, options.place), options, _nobody_looks_on)


def _nobody_looks_on(_path: Path) -> object:
    raise AssertionError("a second driver has begun to drive")


def _refused(found: Round, holder: int, work: Callable[[], object]) -> None:
    """Try what needs the lock; it must be refused for as long as the driver lives, with its name."""
    try:
        work()
    except RunDirectoryError as error:
        found.refused += 1
        if error.exit_code != ExitCode.RUN_LOCKED or f"is in use by process {holder} on " not in str(error):
            found.broken.append(f"refused with {error.exit_code}: {error}")
    else:
        # The driver lets go of the lock before its process is over.
        found.broken += [] if wait_for(lambda: ended(holder)) else ["a run that is driven was not refused"]


def wait_for(happens: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Return whether something happens within so many seconds."""
    until = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def _look(found: Round, path: Path, watcher: Watcher) -> None:
    """Read a run in every way there is; whatever is read must be whole, and no less than what was seen before."""
    before = len(watcher.seen)
    seqs = [stamped.seq for stamped in read_events(path)]
    if len(seqs) < before or seqs != list(range(1, len(seqs) + 1)):
        found.broken.append(f"{seqs} were read after {before} events had been seen")
    shown = io.StringIO()
    with redirect_stdout(shown):
        status(str(path), path.parent, at=None, as_json=True, picture=None)
    record = json.loads(shown.getvalue())
    found.broken += [] if record["run"] == path.name else [f"status tells of {record['run']}"]
    text = page.markdown(read([path]))
    found.broken += [] if path.name in text else ["the report does not name its run"]
    found.broken += [f"while it was written: {one}" for one in fsck.check(path).findings if one.level == "fault"]
    found.looks += 1


def two_resumes(folder: Path, case: Case, at: int) -> Round:
    """Kill a search at its event `at`, then let two drivers go on with it at the same time: one of them may."""
    drives, found = Drives(folder, case, pause=0.004), Round()
    assert drives.go(Fault("kill", at)).code == -signal.SIGKILL
    pids = [drives.start(), drives.start()]
    codes = {pid: drives.wait(pid) for pid in pids}
    refused = [pid for pid, driven in codes.items() if driven.code == ExitCode.RUN_LOCKED]
    found.refused = len(refused)
    if sorted(driven.code for driven in codes.values()) != [ExitCode.DONE, ExitCode.RUN_LOCKED]:
        found.broken.append(f"two drivers ended with {[(driven.code, driven.said) for driven in codes.values()]}")
    for pid in refused:
        (other,) = set(pids) - {pid}
        found.broken += [] if f"process {other} on " in codes[pid].said else [f"refused with {codes[pid].said}"]
    found.broken += [str(one) for one in fsck.check(drives.path).findings if one.level == "fault"]
    return found
