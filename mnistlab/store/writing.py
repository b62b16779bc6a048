"""The one writer of a run directory, and the making of a new one."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mnistlab import events
from mnistlab.errors import RunDirectoryError
from mnistlab.events import Event, Stamped
from mnistlab.store import durable, results
from mnistlab.store.files import (
    append_all,
    append_to,
    child,
    inside,
    mend_tail,
    open_to_write,
    refusals_told,
    refuse_links,
    write_bytes,
    write_json,
)
from mnistlab.store.jsonl import encode_line, last_line
from mnistlab.store.layout import (
    CONFIRMATION,
    CONFIRMATION_SCHEMA,
    EVENTS,
    LEDGER,
    LEDGER_SCHEMA,
    LOG,
    PER_IMAGE,
    PLUGINS,
    RESULT,
    RESULT_SCHEMA,
    RUN,
    RUN_SCHEMA,
    TRIALS,
    WEIGHTS,
    WRITTEN,
    newest_record,
    record_name,
)
from mnistlab.store.locking import lock, unlock
from mnistlab.store.results import ReplicateResult, TrialResult

MAX_LOG_BYTES = 4 << 20  # a trial that prints more loses the rest, not the disk
LOG_RESERVE = 64 << 10  # of these, kept for a trial's last words: a traceback must not be lost to chatter
SYNC_SECONDS = 2.0  # at most this much of the event stream is lost with the power

# After these the event stream is flushed to the disk: what they say must survive.
_DURABLE = (
    events.RunStarted,
    events.TrialFinished,
    events.TrialPruned,
    events.TrialInterrupted,
    events.TrialFailed,
    events.ReplicateFinished,
    events.ReplicateFailed,
    events.PlanDropped,
    events.RefitFinished,
    events.TestOpened,
    events.EnsembleEvaluated,
    events.RunInterrupted,
    events.RunFinished,
)


class RunWriter:
    """The open run directory of a driver; holds its lock until `close`.

    A directory that a driver has left before is gone on with: a line that it left torn is cut off, and the events are
    counted on from the last one that is whole.

    Every method that writes raises RunWriteError, naming path and reason, where the disk is full, read-only or gone.
    """

    def __init__(self, path: Path) -> None:
        """Lock the directory `path`, which must exist, and open its event stream.

        Raises:
            RunDirectoryError: if another process holds the lock; the message names it. Or if something in there that
                a driver writes into is a symbolic link.
        """
        self.path = path
        self._lock = lock(path)
        try:
            refuse_links(path, WRITTEN)
            for name in (EVENTS, LEDGER, CONFIRMATION):
                mend_tail(path / name)
            last = last_line(path / EVENTS) or {"seq": 0, "t": 0.0}
            self._events = open_to_write(path / EVENTS, os.O_WRONLY | os.O_APPEND)
        except BaseException:
            unlock(self._lock)
            raise
        self._seq, self._synced, self._waiting = int(last["seq"]), time.monotonic(), False
        self._start = self._synced - float(last["t"])  # the time between two drivers is not the run's
        self._log_bytes: dict[str, int] = {}

    def close(self) -> None:
        """Flush the event stream and let go of the lock."""
        try:
            self._flush()
        finally:
            os.close(self._events)
            unlock(self._lock)

    @property
    def seconds(self) -> float:
        """Return how long the run has taken, in all of its drivers."""
        return time.monotonic() - self._start

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Write `run.json`, once.

        Raises:
            RunDirectoryError: if it is there already.
        """
        if (self.path / RUN).exists():
            raise RunDirectoryError(f"{self.path / RUN} is there already; a run's record is never rewritten")
        write_json(self.path / RUN, {"schema": RUN_SCHEMA, **run})

    def write_amended(self, run: Mapping[str, Any]) -> int:
        """Write the record of a run whose experiment was amended beside those before it; return its number.

        From then on it is the one that is read; those before it stay as they are.
        """
        number = newest_record(self.path) + 1
        write_json(self.path / record_name(number), {**run, "schema": RUN_SCHEMA})
        return number

    def write_plugin(self, name: str, source: str) -> None:
        """Keep the source of a plugin that was a single file: no package index will ever have it."""
        write_bytes(child(inside(self.path, PLUGINS), name), source.encode())

    def append(self, event: Event) -> Stamped:
        """Append an event to the stream and return it with its place in the stream."""
        now = time.monotonic()
        stamped = Stamped(seq=self._seq + 1, time=datetime.now(UTC), t=now - self._start, event=event)
        line = encode_line(events.to_json(stamped))
        with refusals_told(self.path / EVENTS):
            append_all(self._events, line)
            self._seq = stamped.seq  # only now: an event that the disk did not take leaves no gap
        self._waiting = True
        if isinstance(event, _DURABLE):
            self._flush()
        else:
            self.flush_what_waits()
        return stamped

    def flush_what_waits(self) -> None:
        """Flush events that have waited for `SYNC_SECONDS`; to be called again and again by whoever drives."""
        if self._waiting and time.monotonic() - self._synced > SYNC_SECONDS:
            self._flush()

    def _flush(self) -> None:
        with refusals_told(self.path / EVENTS):
            durable.fsync(self._events)
        self._synced, self._waiting = time.monotonic(), False

    def write_trial(self, result: TrialResult) -> None:
        """Write `trials/ID/result.json`; from then on the trial has ended.

        What it rests on, the trial's beginning and epochs in the event stream, is on the disk before it.
        """
        self._flush()
        body = {"schema": RESULT_SCHEMA, **results.to_json(result)}
        write_json(self.trial_folder(result.trial) / RESULT, body)

    def write_replicate(
        self, result: ReplicateResult, weights: bytes | None = None, per_image: bytes | None = None
    ) -> Path:
        """Write a replicate's weights and values for each image (both safetensors), then its result.

        What it rests on, as with a trial, is on the disk before it. Returns its folder.
        """
        self._flush()
        folder = self.trial_folder(result.trial, *result.place)
        if weights is not None:
            write_bytes(folder / WEIGHTS, weights)
        if per_image is not None:
            write_bytes(folder / PER_IMAGE, per_image)
        write_json(folder / RESULT, {"schema": RESULT_SCHEMA, **results.to_json(result)})
        return folder

    def append_log(self, trial: str, text: str, *, final: bool = False) -> None:
        """Append what a trial printed to `trials/ID/log.txt`, up to `MAX_LOG_BYTES`.

        The last `LOG_RESERVE` of these are for a `final` text, such as the traceback of a failure; where that is too
        long its end is kept.
        """
        path = self.trial_folder(trial) / LOG
        used = self._log_bytes[trial] if trial in self._log_bytes else path.stat().st_size if path.exists() else 0
        data = _fitting(text.encode("utf-8", "backslashreplace"), used, final=final)
        if data:
            append_to(path, data)
            self._log_bytes[trial] = used + len(data)

    def append_ledger(self, entry: Mapping[str, Any]) -> None:
        """Append a line to `test_ledger.jsonl` and flush it to the disk before returning."""
        append_to(self.path / LEDGER, encode_line({"schema": LEDGER_SCHEMA, **entry}), durably=True)

    def append_confirmation(self, entry: Mapping[str, Any]) -> None:
        """Append a line to `confirmation.jsonl` and flush it to the disk before returning."""
        line = encode_line({"schema": CONFIRMATION_SCHEMA, **entry})
        append_to(self.path / CONFIRMATION, line, durably=True)

    def trial_folder(self, trial: str, *names: str) -> Path:
        """Return the trial's folder, or the one that `names` lead to in it, made if it is missing."""
        return inside(self.path, TRIALS, trial, *names)


def create_run(root: Path, name: str, today: datetime) -> Path:
    """Make the directory `root/NAME-DATE-N` with the next free N, and return it.

    Raises:
        RunDirectoryError: if `root` can't be written.
    """
    number = 1
    while True:
        path = root / f"{name}-{today:%Y-%m-%d}-{number}"
        try:
            first = not root.exists()
            path.mkdir(parents=True)
            for folder in (root, *([root.absolute().parent] if first else [])):  # whose lists of names have changed
                durable.fsync_folder(folder)
        except FileExistsError:
            if not path.is_dir() and not path.is_symlink():
                raise RunDirectoryError(f"can't make {path}: a file is in the way") from None
            number += 1
        except OSError as error:
            raise RunDirectoryError(f"can't make the run directory {path}: {error.strerror}") from None
        else:
            return path


def _fitting(data: bytes, used: int, *, final: bool) -> bytes:
    """Return what of `data` a log of `used` bytes still takes: its beginning or, of the last text, its end."""
    room = MAX_LOG_BYTES - used - (0 if final else LOG_RESERVE)
    if len(data) <= room:
        return data
    if final:
        return b"\n[cut off: the log is full]\n" + data[len(data) - room :] if room > 0 else b""
    return data[:room] + b"\n[the rest is cut off: the log is full]\n" if room >= 0 else b""  # said once
