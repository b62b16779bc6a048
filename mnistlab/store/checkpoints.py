"""The state of trials that have not ended, so that they can go on: safetensors, and a manifest beside each.

The manifest is written last, by rename: without it there is no checkpoint, with it the sha256 says whether the state is
whole. Nothing here is pickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mnistlab.errors import DamagedError, RunDirectoryError
from mnistlab.store import RunWriter, durable, read_json, write_bytes, write_json
from mnistlab.store.files import refusals_told
from mnistlab.store.layout import ANY_MANIFEST, CHECKPOINTS, MANIFEST, STATE, checkpoint_file, in_trial
from mnistlab.store.metric import Metric

SCHEMA = "mnistlab.checkpoint/1"
NEWEST = 2  # how many are kept besides the best one


@dataclass(frozen=True)
class Manifest:
    """What is said of a checkpoint: after how many epochs, with which value of the run's metric, of which bytes."""

    epoch: int
    metric: str
    value: float | None
    size: int
    sha256: str


def write_checkpoint(store: RunWriter, trial: str, epoch: int, metric: str, value: float | None, state: bytes) -> None:
    """Keep the state of a trial after `epoch` epochs; of the older ones the newest and the best stay.

    Raises:
        RunWriteError: if the disk is full, read-only or gone.
    """
    folder = store.trial_folder(trial, CHECKPOINTS)
    manifest = Manifest(epoch, metric, value, len(state), hashlib.sha256(state).hexdigest())
    if _manifest_file(folder, epoch).exists():  # of a past that the trial has left: it would speak of another state
        with refusals_told(folder):
            _remove(folder, epoch)
    write_bytes(_state_file(folder, epoch), state)
    write_json(_manifest_file(folder, epoch), {"schema": SCHEMA, **asdict(manifest)})
    with refusals_told(folder):
        ahead = [one.epoch for one in _manifests(folder) if one.epoch > epoch]
        for other in ahead:  # of a past that the trial has left: a population has set it back
            _remove(folder, other)
        _thin_out(folder)


def newest_checkpoint(
    run: Path, trial: str, at_most: int, say: Callable[[str], object] = lambda _: None
) -> tuple[int, bytes] | None:
    """Return epoch and state of the newest checkpoint of a trial that is whole, or None where there is none.

    One of a later epoch than `at_most` is passed over: with the power, what was said of that epoch may have been lost.
    One that is damaged is passed over too; `say` is told so in words.
    """
    folder = run / in_trial(trial, CHECKPOINTS)
    for manifest in sorted(_manifests(folder, say), key=lambda one: -one.epoch):
        if manifest.epoch > at_most:
            continue
        if (state := state_of(folder, manifest)) is not None:
            return manifest.epoch, state
        say(f"trial {trial}: its checkpoint of epoch {manifest.epoch} is damaged, and passed over")
    return None


def state_of(folder: Path, manifest: Manifest) -> bytes | None:
    """Return the state in `folder` that a manifest speaks of, or None where it is missing or another one."""
    with suppress(OSError):
        state = _state_file(folder, manifest.epoch).read_bytes()
        if len(state) == manifest.size and hashlib.sha256(state).hexdigest() == manifest.sha256:
            return state
    return None


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest in a file, or None where there is no such file.

    Raises:
        RunDirectoryError: if it is damaged, or of a format that this version does not read.
    """
    body = read_json(str(path), SCHEMA)
    if body is None:
        return None
    try:
        return Manifest(**{key: value for key, value in body.items() if key != "schema"})
    except TypeError as error:
        raise DamagedError(path, str(error)) from None


def discard_checkpoints(run: Path, trial: str) -> None:
    """Remove the checkpoints of a trial that has ended: nothing goes on from them any more.

    Where a link leads elsewhere, nothing is removed there.
    """
    folder = run / in_trial(trial, CHECKPOINTS)
    if any(place.is_symlink() for place in (folder, folder.parent, folder.parent.parent)):
        return
    with suppress(OSError):  # what stays behind is in nobody's way
        for path in sorted(folder.iterdir(), key=_is_state):  # also one that a killed driver has left alone
            durable.remove(path)
        folder.rmdir()


def _thin_out(folder: Path) -> None:
    known = sorted(_manifests(folder), key=lambda one: -one.epoch)
    kept = {one.epoch for one in known[:NEWEST]}
    valued = [one for one in known if one.value is not None]
    if valued:
        kept.add(max(valued, key=_goodness).epoch)
    for one in known:
        if one.epoch not in kept:
            _remove(folder, one.epoch)


def _goodness(manifest: Manifest) -> float:
    value = manifest.value if manifest.value is not None else float("nan")
    return Metric(manifest.metric).worth(value)


def _remove(folder: Path, epoch: int) -> None:
    """Remove a checkpoint, its manifest first: a state without one is nothing, one without its state a lie."""
    durable.remove(_manifest_file(folder, epoch))
    durable.remove(_state_file(folder, epoch))


def _is_state(path: Path) -> bool:
    return path.suffix != MANIFEST


def _manifests(folder: Path, say: Callable[[str], object] = lambda _: None) -> Iterator[Manifest]:
    """Yield every manifest that can be read; of one that is torn or of another version, which is none to us, tell."""
    for path in folder.glob(ANY_MANIFEST):
        try:
            manifest = read_manifest(path)
        except RunDirectoryError as error:
            say(f"{error}; it is passed over")
            continue
        if manifest is not None:
            yield manifest


def _state_file(folder: Path, epoch: int) -> Path:
    return folder / checkpoint_file(epoch, STATE)


def _manifest_file(folder: Path, epoch: int) -> Path:
    return folder / checkpoint_file(epoch, MANIFEST)
