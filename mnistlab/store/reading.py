"""Reading run directories. What is torn is skipped; what is damaged or of another format is refused by name."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pydantic_core

from mnistlab import events
from mnistlab.errors import DamagedError, MnistlabError, RunDirectoryError, nearest, short
from mnistlab.events import Stamped
from mnistlab.store.jsonl import is_as_written, read_lines
from mnistlab.store.layout import (
    CONFIRMATION,
    CONFIRMATION_SCHEMA,
    EVENTS,
    LEDGER,
    LEDGER_SCHEMA,
    REFIT_FOLDER,
    REPLICATES,
    RESULT,
    RESULT_SCHEMA,
    RUN,
    RUN_SCHEMA,
    TRIALS,
    in_trial,
    newest_record,
    record_name,
    refusal,
)
from mnistlab.store.per_image import with_per_image
from mnistlab.store.results import (
    EnsembleResult,
    ReplicateResult,
    RunRecord,
    ensemble_from_json,
    replicate_from_json,
    trial_from_json,
)
from mnistlab.util.filenames import RULE, is_plain

R = TypeVar("R")


def read_events(run: Path) -> Iterator[Stamped]:
    """Yield the events of a run directory; unknown and torn ones are skipped.

    Raises:
        RunDirectoryError: if they are of a format that this version does not read.
    """
    for record in read_lines(run / EVENTS):
        event = stamped(record, run / EVENTS)
        if event is not None:
            yield event


def stamped(record: Mapping[str, Any], path: Path) -> Stamped | None:
    """Return the event of a line of `path`, or None where its type is unknown or a key that it needs is missing.

    Raises:
        RunDirectoryError: if it is of a format that this version does not read, or names a trial that is no name.
    """
    _refuse_other_format(record.get("schema"), events.SCHEMA, path)
    found = events.from_json(record)
    if found is not None and (trial := getattr(found.event, "trial", None)) is not None:
        _refuse_names_that_lead_out(path, (trial,))
    return found


def read_run(path: Path) -> RunRecord:
    """Return everything that a run directory says of its results; where it was amended, with its newest record.

    Raises:
        RunDirectoryError: if it is no run directory, if its newest record is damaged (an older one tells of another
            space), or if it is of a format that this version does not read.
    """
    number = newest_record(path)
    run = read_json(str(path / record_name(number)), RUN_SCHEMA)
    if run is None or not (path / RUN).exists():
        raise RunDirectoryError(f"{path} is not a run directory: it has no {RUN}")
    files = run.get("plugin_files")
    _refuse_names_that_lead_out(path / record_name(number), files if isinstance(files, dict) else ())
    folders = _folders(path / TRIALS)
    again = [one for folder in folders for one in _folders(f"{folder}/{REPLICATES}")]
    ledger = _read_entries(path / LEDGER, LEDGER_SCHEMA)
    trials, replicates = _read_results(folders, trial_from_json), _read_results(again, replicate_from_json)
    replicates = [with_per_image(one, _folder_of(path, one)) if one.per_image else one for one in replicates]
    return RunRecord(
        path=str(path),
        run=run,
        number=number,
        trials=tuple(sorted(trials, key=lambda t: t.number)),
        replicates=tuple(sorted(replicates, key=lambda r: (r.trial, r.replicate))),
        test_openings=sum(entry.get("type") == "opened" for entry in ledger),
        broken_on_test=frozenset((e["trial"], e["replicate"]) for e in ledger if e.get("type") == "failed"),
        refits=tuple(_read_results([f"{folder}/{REFIT_FOLDER}" for folder in sorted(folders)], replicate_from_json)),
        confirmations=tuple(_read_entries(path / CONFIRMATION, CONFIRMATION_SCHEMA)),
        ensemble=_newest_ensemble(path / LEDGER, ledger),
        ensemble_due=_ensemble_due(ledger),
        runs_before=next((n for e in reversed(ledger) if (n := e.get("runs_before")) is not None), None),
    )


def read_json(path: str, schema: str) -> dict[str, Any] | None:
    """Return the JSON object of a file without its checksum, or None where there is no such file.

    Raises:
        RunDirectoryError: if it can't be read, is damaged, or of another format than `schema`.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123, RUF100 - see `_folders`
            content = file.read()
        body = pydantic_core.from_json(content)  # several times as fast as json's
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunDirectoryError(f"can't read {path}: {error.strerror}") from None
    except ValueError as error:
        raise DamagedError(path, str(error)) from None
    if is_as_written(content) is False:
        raise DamagedError(path, "its checksum is not that of what it holds")
    _refuse_other_format(body.get("schema") if isinstance(body, dict) else None, schema, path)
    body.pop("crc", None)
    return body


def find_runs(root: Path) -> list[Path]:
    """Return the run directories in `root`, oldest first."""
    return sorted((p.parent for p in root.glob(f"*/{RUN}")), key=lambda p: (p.stat().st_mtime, p.name))


def find_run(name: str, root: Path) -> Path:
    """Return the run directory that `name` (a path, or a name in `root`) stands for; its last part is its name.

    Raises:
        MnistlabError: with the nearest name, if there is none; or if it is one that has no record.
    """
    for path in (Path(name), root / name):
        if (path / RUN).is_file():
            return named(path)
    for path in (Path(name), root / name):
        if (path / EVENTS).is_file():
            why = f"has no {RUN}: it ended before the search had begun, or the file was lost"
            raise NoSuchRunError(f"{named(path)} {why}; mnistlab fsck {shlex.quote(str(named(path)))} says which")
    there = [path.name for path in find_runs(root)]
    newest = f"the newest there are {', '.join(there[:-4:-1])}" if there else ""
    hint = nearest(name, there) or newest
    raise NoSuchRunError(f"no run '{name}' here or in {root}{'; ' + hint if hint else ''}")


def named(path: Path) -> Path:
    """Return a path whose last part is the folder's own name, which `.` and `..` leave open."""
    return path if path.name not in {"", ".."} else path.resolve()


class NoSuchRunError(MnistlabError):
    """A run that was named and is not there."""

    exit_code = MnistlabError.exit_code.USAGE


def _read_entries(path: Path, schema: str) -> list[dict[str, Any]]:
    entries = list(read_lines(path))
    for entry in entries:
        _refuse_other_format(entry.get("schema"), schema, path)
    return entries


def _newest_ensemble(path: Path, ledger: Sequence[Mapping[str, Any]]) -> EnsembleResult | None:
    entries = [entry for entry in ledger if entry.get("type") == "ensemble"]
    try:
        return ensemble_from_json(entries[-1]) if entries else None
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(path, f"an entry of an ensemble: {error!r}") from None


def _ensemble_due(ledger: Sequence[Mapping[str, Any]]) -> str:
    """Return the trial of an ensemble that the test set was last opened for and of which nothing is told since."""
    told = [entry for entry in ledger if entry.get("type") in {"opened", "ensemble", "ensemble_failed"}]
    return str(told[-1].get("ensemble", "")) if told and told[-1]["type"] == "opened" else ""


def _refuse_other_format(found: object, schema: str, path: Path | str) -> None:
    if why := refusal(found, schema):
        raise RunDirectoryError(f"{path} {why}")


def _refuse_names_that_lead_out(path: Path | str, names: Iterable[object]) -> None:
    """Refuse a file that names what can't be in a run directory: such names become paths, to read, write and remove."""
    for name in names:
        if not is_plain(name):
            raise DamagedError(path, f"the name {short(name)} in it {RULE}")


def _folders(path: Path | str) -> list[str]:
    """Return what lies in a folder, nothing where it is not there; strings, because there may be ten thousand."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return [f"{path}/{name}" for name in os.listdir(path)]
    return []


def _folder_of(run: Path, one: ReplicateResult) -> str:
    return f"{run}/{in_trial(one.trial, *one.place)}"


def _read_results(folders: Sequence[str], from_json: Callable[[Mapping[str, Any]], R]) -> list[R]:
    """Return the results in `folders`; where there is none, nothing has ended yet."""
    found: list[R] = []
    for path in (f"{folder}/{RESULT}" for folder in folders):
        try:
            found += [from_json(body)] if (body := read_json(path, RESULT_SCHEMA)) is not None else []
        except (TypeError, ValueError) as error:
            raise DamagedError(path, str(error)) from None
        if body is not None:
            _refuse_names_that_lead_out(path, (body.get("trial"), str(body.get("replicate", 0))))
    return found
