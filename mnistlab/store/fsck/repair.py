"""Mending a run directory where nothing is lost by it. Nothing is deleted but known temporary files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mnistlab.store import CONFIRMATION, EVENTS, LEDGER, RunWriter, durable
from mnistlab.store.checkpoints import discard_checkpoints
from mnistlab.store.ends import end_event
from mnistlab.store.files import inside, mend_tail, refusals_told
from mnistlab.store.fsck.check import Look, look_at
from mnistlab.store.fsck.findings import Finding
from mnistlab.store.layout import QUARANTINE
from mnistlab.store.locking import lock, unlock


def repair(run: Path) -> tuple[str, ...]:
    """Mend what `check` finds and can be mended; return in words what was done.

    Raises:
        RunDirectoryError: if a driver holds the lock; the message names it.
        RunWriteError: if the disk refuses.
    """
    held = lock(run)
    try:
        done = [*_mend_tails(run), *_move_and_remove(run, look_at(run))]
    finally:
        unlock(held)
    return (*done, *_write_what_is_told(run))


def _mend_tails(run: Path) -> Iterator[str]:
    for name in (EVENTS, LEDGER, CONFIRMATION):
        if not (run / name).is_symlink() and (done := mend_tail(run / name)):
            yield f"{name}: {done}"


def _move_and_remove(run: Path, look: Look) -> Iterator[str]:
    for finding in look.findings:
        path = run / finding.file
        if finding.mend == "remove":
            with refusals_told(path):
                durable.remove(path)
            yield f"{finding.file}: removed"
        elif finding.mend == "quarantine":
            yield f"{finding.file}: moved to {_quarantine(run, finding)}"


def _quarantine(run: Path, finding: Finding) -> str:
    """Move a file to where nothing reads it; what was moved there before stays."""
    place = PurePosixPath(finding.file)
    folder, number = inside(run, QUARANTINE, *place.parent.parts), 1
    while (target := folder / f"{place.name}.{number}").exists():
        number += 1
    with refusals_told(target):
        durable.replace(run / finding.file, target)
        durable.fsync_folder(folder)
        durable.fsync_folder((run / finding.file).parent)
    return target.relative_to(run).as_posix()


def _write_what_is_told(run: Path) -> Iterator[str]:
    """Write results that the events tell to the last detail, and ends of trials that only their results tell."""
    look = look_at(run)
    due = [one for one in look.findings if one.mend in {"rebuild", "tell"}]
    if not due:
        return
    writer = RunWriter(run)
    try:
        for finding in due:
            name = PurePosixPath(finding.file).parts[1]
            result = look.rebuilt(name)
            if finding.mend == "rebuild" and result is not None:
                writer.write_trial(result)
                yield f"{finding.file}: written again from {EVENTS}"
            elif finding.mend == "tell":
                ended = look.kept.trials[name]
                stamped = writer.append(end_event(ended))
                if ended.state != "interrupted":
                    discard_checkpoints(run, name)
                yield f"{EVENTS}: event {stamped.seq} tells the end of trial {name}, as its result has it"
    finally:
        writer.close()
