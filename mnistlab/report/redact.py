"""What a run says of itself, without the folders of the machine that it was made on: a report is for others."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from mnistlab.store.results import RunRecord

_QUOTED = re.compile(r"""(['"])(/[^'"\n]*)\1""")
# Two parts at least: "/x" alone is as often a division or a closing tag. What follows a host's name is no folder here.
_BARE = re.compile(
    r"""(?:(?<=file://)|(?<![\w.~:/])|(?<=:)(?!//))/+(?:[^\s/'"`,;:()\[\]{}<>|]+/+)+(?:[^\s/'"`,;:()\[\]{}<>|]+)?"""
)
_SETTING = re.compile(r"(-{0,2}[\w.-]+=)(/.*)", re.DOTALL)


def public(record: RunRecord) -> RunRecord:
    """Return a run's record in which paths are names: in its command lines, messages, reasons and data."""
    places = places_of(record)
    run = dict(record.run)
    experiment, data = run.get("experiment", {}), run.get("dataset", {})
    run |= {"command": public_command(str(run["command"]))} if run.get("command") else {}
    if isinstance(data, Mapping):
        run["dataset"] = {
            key: _source(one, places) if key in {"source", "fallback"} else one for key, one in data.items()
        }
    if isinstance(experiment, Mapping) and "data" in experiment:
        run["experiment"] = {**experiment, "data": _names(experiment["data"])}
    if isinstance(missing := run.get("plugins_not_loaded"), Mapping):
        run["plugins_not_loaded"] = {name: without_folders(str(why), places) for name, why in missing.items()}
    return replace(
        record,
        run=run,
        trials=tuple(replace(one, message=without_folders(one.message, places)) for one in record.trials),
        replicates=tuple(replace(one, message=without_folders(one.message, places)) for one in record.replicates),
        refits=tuple(replace(one, message=without_folders(one.message, places)) for one in record.refits),
        confirmations=tuple(_entry(one) for one in record.confirmations),
    )


def places_of(record: RunRecord) -> tuple[str, ...]:
    """Return the folders that a run is known to have used: its own, and that of its data."""
    data = record.run.get("dataset", {})
    source = str(cast("Mapping[str, Any]", data).get("source", "")) if isinstance(data, Mapping) else ""
    return (record.path, str(Path(record.path).resolve()), source.removesuffix(" (fetched)"))


def without_folders(text: str, places: Iterable[object] = ()) -> str:
    """Return a text in which each absolute path is its last part alone.

    Of a path within one of `places` what comes after that stays too; there a path may also hold spaces.
    """
    for place in sorted((str(one) for one in places), key=len, reverse=True):
        if name := Path(place).name if place.startswith("/") else "":
            text = re.sub(rf"(?<![\w.~/-]){re.escape(place)}(?![\w-])", lambda _, name=name: name, text)
    text = _QUOTED.sub(lambda found: f"{found[1]}{Path(found[2]).name or '/'}{found[1]}", text)
    return _BARE.sub(lambda found: Path(found[0]).name, text)


def public_command(command: str) -> str:
    """Return a command line in which each absolute path is its last part alone."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if words[:1] != ["mnistlab"]:  # it was called from Python
        return without_folders(command)
    return shlex.join(_word(word) for word in words)


def _word(word: str) -> str:
    head, path = found.groups() if (found := _SETTING.fullmatch(word)) else ("", word)
    return f"{head}{Path(path).name or path}" if path.startswith("/") else without_folders(word)


def _source(value: object, places: Iterable[str]) -> object:
    """Return where data came from, or why not: it may be a path as it stands, with spaces in it."""
    if not isinstance(value, str):
        return value
    return Path(value).name if Path(value).is_absolute() else without_folders(value, places)


def _entry(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**entry, "command": public_command(str(entry["command"]))} if entry.get("command") else entry


def _names(value: Any) -> Any:
    """Return the settings of datasets, of which some may be paths."""
    if isinstance(value, Mapping):
        return {key: _names(inner) for key, inner in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_names(inner) for inner in cast("list[Any]", value)]
    return _source(value, ())
