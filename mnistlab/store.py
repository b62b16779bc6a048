"""The run directory: what a search leaves behind. The driver is its only writer.

Truth is `run.json` (written once), `events.jsonl` (append only) and the results under `trials/`. Results are written
to a temporary file, flushed to the disk and renamed, so that a file is either whole or not there; an event is one
write of one line with its own checksum, so that a torn tail is seen and skipped.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pydantic_core

from mnistlab import events, results
from mnistlab.errors import MnistlabError, RunDirectoryError, RunWriteError, nearest
from mnistlab.events import Event, Stamped
from mnistlab.lines import encode_line, last_line, read_lines
from mnistlab.results import ReplicateResult, RunRecord, TrialResult, replicate_from_json, trial_from_json

R = TypeVar("R")

RUN_SCHEMA = "mnistlab.run/1"
RESULT_SCHEMA = "mnistlab.result/1"
LEDGER_SCHEMA = "mnistlab.ledger/1"
CONFIRMATION_SCHEMA = "mnistlab.confirmation/1"
EVENTS, LEDGER, CONFIRMATION = "events.jsonl", "test_ledger.jsonl", "confirmation.jsonl"  # files of checksummed lines
WEIGHTS = "weights.safetensors"
MAX_LOG_BYTES = 4 << 20  # a trial that prints more loses the rest, not the disk
LOG_RESERVE = 64 << 10  # of these, kept for a trial's last words: a traceback must not be lost to chatter
LOCK_TRIES = 4
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
    events.RunInterrupted,
    events.RunFinished,
)


# --- writing ------------------------------------------------------------------------------------------------------


class RunWriter:
    """The open run directory of a driver; holds its lock until `close`.

    A directory that a driver has left before is gone on with: a line that it left torn is cut off, and the events are
    counted on from the last one that is whole.

    Every method that writes raises RunWriteError, naming path and reason, where the disk is full, read-only or gone.
    """

    def __init__(self, path: Path) -> None:
        """Lock the directory `path`, which must exist, and open its event stream.

        Raises:
            RunDirectoryError: if another process holds the lock; the message names it.
        """
        self.path = path
        self._lock = _lock(path)
        try:
            for name in (EVENTS, LEDGER, CONFIRMATION):
                _cut_torn_tail(path / name)
            last = last_line(path / EVENTS) or {"seq": 0, "t": 0.0}
            self._events = _open(path / EVENTS, os.O_WRONLY | os.O_APPEND)
        except BaseException:
            os.close(self._lock)
            raise
        self._seq, self._synced = int(last["seq"]), time.monotonic()
        self._start = self._synced - float(last["t"])  # the time between two drivers is not the run's
        self._log_bytes: dict[str, int] = {}

    def close(self) -> None:
        """Flush the event stream and let go of the lock."""
        try:
            with _refusals_told(self.path / EVENTS):
                os.fsync(self._events)
        finally:
            os.close(self._events)
            os.close(self._lock)

    @property
    def seconds(self) -> float:
        """Return how long the run has taken, in all of its drivers."""
        return time.monotonic() - self._start

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Write `run.json`, once.

        Raises:
            RunDirectoryError: if it is there already.
        """
        if (self.path / "run.json").exists():
            raise RunDirectoryError(f"{self.path / 'run.json'} is there already; a run's record is never rewritten")
        write_json(self.path / "run.json", {"schema": RUN_SCHEMA, **run})

    def write_plugin(self, name: str, source: str) -> None:
        """Keep the source of a plugin that was a single file: no package index will ever have it."""
        write_bytes(_make(self.path, "plugins") / name, source.encode())

    def append(self, event: Event) -> Stamped:
        """Append an event to the stream and return it with its place in the stream."""
        self._seq += 1
        now = time.monotonic()
        stamped = Stamped(seq=self._seq, time=datetime.now(UTC), t=now - self._start, event=event)
        line = encode_line(events.to_json(stamped))
        with _refusals_told(self.path / EVENTS):
            _append_all(self._events, line)
            if isinstance(event, _DURABLE) or now - self._synced > SYNC_SECONDS:
                os.fsync(self._events)
                self._synced = now
        return stamped

    def write_trial(self, result: TrialResult) -> None:
        """Write `trials/ID/result.json`; from then on the trial has ended."""
        body = {"schema": RESULT_SCHEMA, **results.to_json(result)}
        write_json(self.trial_folder(result.trial) / "result.json", body)

    def write_replicate(self, result: ReplicateResult, weights: bytes | None = None) -> Path:
        """Write a replicate's weights (safetensors), then its result; return its folder."""
        folder = _make(self.trial_folder(result.trial), *result.place)
        if weights is not None:
            write_bytes(folder / WEIGHTS, weights)
        write_json(folder / "result.json", {"schema": RESULT_SCHEMA, **results.to_json(result)})
        return folder

    def append_log(self, trial: str, text: str, *, final: bool = False) -> None:
        """Append what a trial printed to `trials/ID/log.txt`, up to `MAX_LOG_BYTES`.

        The last `LOG_RESERVE` of these are for a `final` text, such as the traceback of a failure; where that is too
        long its end is kept.
        """
        path = self.trial_folder(trial) / "log.txt"
        used = self._log_bytes[trial] if trial in self._log_bytes else path.stat().st_size if path.exists() else 0
        data = _fitting(text.encode("utf-8", "backslashreplace"), used, final=final)
        if data:
            self._append_to(path, data)
            self._log_bytes[trial] = used + len(data)

    def append_ledger(self, entry: Mapping[str, Any]) -> None:
        """Append a line to `test_ledger.jsonl` and flush it to the disk before returning."""
        self._append_to(self.path / LEDGER, encode_line({"schema": LEDGER_SCHEMA, **entry}), durable=True)

    def append_confirmation(self, entry: Mapping[str, Any]) -> None:
        """Append a line to `confirmation.jsonl` and flush it to the disk before returning."""
        line = encode_line({"schema": CONFIRMATION_SCHEMA, **entry})
        self._append_to(self.path / CONFIRMATION, line, durable=True)

    def trial_folder(self, trial: str) -> Path:
        """Return the trial's folder, made if it is missing."""
        return _make(self.path, "trials", trial)

    @staticmethod
    def _append_to(path: Path, data: bytes, *, durable: bool = False) -> None:
        descriptor = _open(path, os.O_WRONLY | os.O_APPEND)
        try:
            with _refusals_told(path):
                _append_all(descriptor, data)
                if durable:
                    os.fsync(descriptor)
        finally:
            os.close(descriptor)


def create_run(root: Path, name: str, today: datetime) -> Path:
    """Make the directory `root/NAME-DATE-N` with the next free N, and return it.

    Raises:
        RunDirectoryError: if `root` can't be written.
    """
    number = 1
    while True:
        path = root / f"{name}-{today:%Y-%m-%d}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.is_dir() and not path.is_symlink():
                raise RunDirectoryError(f"can't make {path}: a file is in the way") from None
            number += 1
        except OSError as error:
            raise RunDirectoryError(f"can't make the run directory {path}: {error.strerror}") from None
        else:
            return path


def _lock(path: Path) -> int:
    """Take the directory's lock. The kernel lets go of it when the process dies, however it dies."""
    descriptor = _open(path / ".lock", os.O_RDWR)
    try:
        _lock_now(descriptor)
    except BlockingIOError:
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise RunDirectoryError(f"{path} is in use by {holder}") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor


def _cut_torn_tail(path: Path) -> None:
    """Cut off what a writer that died has left of a line: what is appended to it would be lost with it."""
    if not path.exists():
        return
    descriptor = _open(path, os.O_RDWR)
    try:
        with _refusals_told(path):
            content = path.read_bytes()
            if not content.endswith(b"\n"):
                os.ftruncate(descriptor, content.rfind(b"\n") + 1)
    finally:
        os.close(descriptor)


def _lock_now(descriptor: int) -> None:
    """Lock a file; who only looks whether it is locked (`follow.is_running`) holds it for a moment."""
    for _ in range(LOCK_TRIES - 1):
        with suppress(BlockingIOError):
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.05)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _open(path: Path, flags: int) -> int:
    """Open a file of the run directory, made if it is missing. A link in its place is refused: it leads elsewhere."""
    with _refusals_told(path):
        try:
            return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError:
            if path.is_symlink():
                raise RunDirectoryError(f"can't write {path}: it is a symbolic link") from None
            raise


def _make(folder: Path, *names: str) -> Path:
    """Return the folder `names` in `folder`, made if it is missing; a run directory that has vanished is not."""
    for name in names:
        folder /= name
        with _refusals_told(folder):
            folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def _refusals_told(path: Path) -> Generator[None]:
    """Put into words that the operating system refuses to write `path`."""
    try:
        yield
    except OSError as error:
        raise RunWriteError(f"can't write {path}: {error.strerror or error}") from error


def _append_all(descriptor: int, data: bytes) -> None:
    """Append all of `data` or, as far as that is possible, nothing: a torn line would swallow the one after it."""
    end, rest = os.fstat(descriptor).st_size, memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, end)
        raise


def _fitting(data: bytes, used: int, *, final: bool) -> bytes:
    """Return what of `data` a log of `used` bytes still takes: its beginning or, of the last text, its end."""
    room = MAX_LOG_BYTES - used - (0 if final else LOG_RESERVE)
    if len(data) <= room:
        return data
    if final:
        return b"\n[cut off: the log is full]\n" + data[len(data) - room :] if room > 0 else b""
    return data[:room] + b"\n[the rest is cut off: the log is full]\n" if room >= 0 else b""  # said once


def write_json(path: Path, body: Mapping[str, Any]) -> None:
    """Write a JSON file so that it is either whole or not there.

    Raises:
        RunWriteError: as `write_bytes`.
        ValueError: if it holds a number that JSON has not.
    """
    write_bytes(path, (json.dumps(body, indent=1, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file by temporary file, flush, rename and flush of the folder.

    Raises:
        RunWriteError: if the disk is full, read-only or gone; then the old file, if there is one, is whole.
        RunDirectoryError: if a symbolic link is in the place of the temporary file.
    """
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with _refusals_told(path):
        try:
            with os.fdopen(_open(temporary, os.O_WRONLY | os.O_TRUNC), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading ------------------------------------------------------------------------------------------------------


def read_events(run: Path) -> Iterator[Stamped]:
    """Yield the events of a run directory; unknown and torn ones are skipped."""
    for record in read_lines(run / EVENTS):
        stamped = events.from_json(record)
        if stamped is not None:
            yield stamped


def read_run(path: Path) -> RunRecord:
    """Return everything that a run directory says of its results.

    Raises:
        RunDirectoryError: if it is no run directory, or of a format that this version does not read.
    """
    run = _read_json(str(path / "run.json"), RUN_SCHEMA)
    if run is None:
        raise RunDirectoryError(f"{path} is not a run directory: it has no run.json")
    folders = _folders(path / "trials")
    again = [one for folder in folders for one in _folders(f"{folder}/replicates")]
    ledger = list(read_lines(path / LEDGER))
    trials, replicates = _read_results(folders, trial_from_json), _read_results(again, replicate_from_json)
    return RunRecord(
        path=str(path),
        run=run,
        trials=tuple(sorted(trials, key=lambda t: t.number)),
        replicates=tuple(sorted(replicates, key=lambda r: (r.trial, r.replicate))),
        test_openings=sum(entry.get("type") == "opened" for entry in ledger),
        broken_on_test=frozenset((e["trial"], e["replicate"]) for e in ledger if e.get("type") == "failed"),
        refits=tuple(_read_results([f"{folder}/refit" for folder in sorted(folders)], replicate_from_json)),
        confirmations=tuple(read_lines(path / CONFIRMATION)),
    )


def find_runs(root: Path) -> list[Path]:
    """Return the run directories in `root`, oldest first."""
    return sorted((p.parent for p in root.glob("*/run.json")), key=lambda p: (p.stat().st_mtime, p.name))


def find_run(name: str, root: Path) -> Path:
    """Return the run directory that `name` (a path, or a name in `root`) stands for.

    Raises:
        MnistlabError: with the nearest name, if there is none.
    """
    for path in (Path(name), root / name):
        if (path / "run.json").is_file():
            return path
    there = [path.name for path in find_runs(root)]
    newest = f"the newest there are {', '.join(there[:-4:-1])}" if there else ""
    hint = nearest(name, there) or newest
    raise NoSuchRunError(f"no run '{name}' here or in {root}{'; ' + hint if hint else ''}")


class NoSuchRunError(MnistlabError):
    """A run that was named and is not there."""

    exit_code = MnistlabError.exit_code.USAGE


def _folders(path: Path | str) -> list[str]:
    """Return what lies in a folder, nothing where it is not there; strings, because there may be ten thousand."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return [f"{path}/{name}" for name in os.listdir(path)]
    return []


def _read_results(folders: Sequence[str], from_json: Callable[[Mapping[str, Any]], R]) -> list[R]:
    """Return the results in `folders`; where there is none, nothing has ended yet."""
    found: list[R] = []
    for path in (f"{folder}/result.json" for folder in folders):
        try:
            found += [from_json(body)] if (body := _read_json(path, RESULT_SCHEMA)) is not None else []
        except (TypeError, ValueError) as error:
            raise RunDirectoryError(f"{path} is damaged: {error}") from None
    return found


def _read_json(path: str, schema: str) -> dict[str, Any] | None:
    """Return the JSON object of a file, or None where there is no such file."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123, RUF100 - see `_folders`
            body = pydantic_core.from_json(file.read())  # several times as fast as json's
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunDirectoryError(f"can't read {path}: {error.strerror}") from None
    except ValueError as error:
        raise RunDirectoryError(f"{path} is damaged: {error}") from None
    found = body.get("schema") if isinstance(body, dict) else None
    if found != schema:
        raise RunDirectoryError(f"{path} has format {found!r}; this mnistlab reads {schema!r}")
    return body
