"""Checking the checkpoints of trials that have not ended: each manifest, and the state that it speaks of."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from mnistlab.errors import RunDirectoryError
from mnistlab.store.checkpoints import read_manifest, state_of
from mnistlab.store.fsck.findings import Finding
from mnistlab.store.layout import CHECKPOINTS, MANIFEST, STATE


def state_findings(run: Path, names: tuple[str, ...], over: Collection[str]) -> Iterator[Finding]:
    """Yield what is wrong with the checkpoints among `names` (relative to the run directory).

    `over` names the trials that never go on: what they have left is nobody's.
    """
    for name in names:
        place = PurePosixPath(name)
        if place.parent.name != CHECKPOINTS:
            continue
        if place.parts[1] in over:
            said = "is of a trial that has ended, and nothing goes on from it: the writer died before it was removed"
            yield Finding(level="note", file=name, message=said, mend="remove")
        elif place.suffix == MANIFEST:
            yield from _pair_findings(run, name)
        elif place.with_suffix(MANIFEST).as_posix() not in names and (run / name).exists():
            said = "has no manifest, and so is no checkpoint: the writer died between the two"
            yield Finding(level="note", file=name, message=said, mend="remove")


def _pair_findings(run: Path, name: str) -> Iterator[Finding]:
    path, state = run / name, PurePosixPath(name).with_suffix(STATE).as_posix()
    try:
        manifest = read_manifest(path)
    except RunDirectoryError as error:
        yield _damaged(name, str(error).removeprefix(f"{path} "))
        yield from [_damaged(state, "is a state whose manifest can't be used")] if (run / state).exists() else []
        return
    if manifest is None or state_of(path.parent, manifest) is not None or not path.exists():
        return  # a driver that goes on has removed it meanwhile
    yield _damaged(name, f"speaks of {manifest.size} bytes with sha256 {manifest.sha256[:12]}…, which are not there")
    yield from [_damaged(state, "is not what its manifest speaks of")] if (run / state).exists() else []


def _damaged(file: str, message: str) -> Finding:
    said = f"{message}; the trial would go on from an older one, or anew"
    return Finding(level="fault", file=file, message=said, mend="quarantine")
