"""Checking the files that are written whole: the run's records, results, and the weights that results name."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mnistlab.store import AMENDED, PER_IMAGE, RESULT_SCHEMA, RUN_SCHEMA, WEIGHTS, refusal
from mnistlab.store.fsck.findings import Finding
from mnistlab.store.jsonl import is_as_written
from mnistlab.store.layout import REFIT_FOLDER, RESULT, RUN, record_name, trial_name
from mnistlab.store.results import (
    REFIT,
    ReplicateResult,
    TrialResult,
    replicate_from_json,
    trial_from_json,
)

_LASTING = ("run", "seed", "metric", "created", "dataset")  # what no amendment changes
Parse = Callable[[Mapping[str, Any]], TrialResult | ReplicateResult]


@dataclass
class Kept:
    """What the whole files say. `run` is the newest record that is whole, `unread` are results that can't be used."""

    run: Mapping[str, Any] = field(default_factory=dict[str, Any])
    trials: dict[str, TrialResult] = field(default_factory=dict[str, TrialResult])
    replicates: dict[tuple[str, int], ReplicateResult] = field(default_factory=dict[tuple[str, int], ReplicateResult])
    unread: set[str] = field(default_factory=set[str])
    weights: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])


def read_kept(run: Path, names: tuple[str, ...]) -> Kept:
    """Read the whole files among `names` (relative to the run directory), and check each by itself."""
    kept = Kept()
    _read_records(run, names, kept)
    for name in names:
        if name.endswith(f"/{RESULT}"):
            _read_result(run, name, kept)
        elif name.endswith((f"/{WEIGHTS}", f"/{PER_IMAGE}")) and _beside(name, RESULT) not in names:
            said = "has no result beside it: the writer died between the two"
            kept.findings.append(Finding(level="note", file=name, message=said))
    return kept


def _beside(name: str, other: str) -> str:
    return PurePosixPath(name).with_name(other).as_posix()


def _read_records(run: Path, names: tuple[str, ...], kept: Kept) -> None:
    """Read `run.json` and the records of amendments: all are of one run, and they follow one another without a gap."""
    numbers = {1: RUN} | {int(found[1]): name for name in names if (found := AMENDED.fullmatch(name))}
    for number, name in sorted((number, name) for number, name in numbers.items() if name in names):
        body, why = _object(run / name, RUN_SCHEMA)
        kept.findings += [Finding(level="fault", file=name, message=why)] if why else _unsure(name, body)
        if number > 1 and number - 1 not in numbers:
            said = f"follows a record that is missing: {record_name(number - 1)}"
            kept.findings.append(Finding(level="fault", file=name, message=said))
        for key in _LASTING if body and kept.run else ():
            if body.get(key) != kept.run.get(key):
                said = f"is of another run than the records before it: its {key} is another one"
                kept.findings.append(Finding(level="fault", file=name, message=said))
        kept.run = body or kept.run


def _object(path: Path, schema: str) -> tuple[dict[str, Any], str]:
    """Return the JSON object of a file, and in words why it can't be used ("" where it can)."""
    try:
        content = path.read_bytes()
        body = json.loads(content)
    except OSError as error:
        return {}, f"can't be read: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return {}, f"is damaged: {error}"
    if not isinstance(body, dict):
        return {}, f"is damaged: it holds no object but a {type(body).__name__}"
    why = refusal(body.get("schema"), schema)
    if not why and is_as_written(content) is False:
        why = "is damaged: its checksum is not that of what it holds"
    return ({}, why) if why else (body, "")


def _read_result(run: Path, name: str, kept: Kept) -> None:
    place = PurePosixPath(name).parts[1:-1]  # ("0007",), ("0007", "replicates", "1") or ("0007", "refit")
    body, why = _object(run / name, RESULT_SCHEMA)
    parse: Parse = trial_from_json if len(place) == 1 else replicate_from_json
    try:
        result = None if why else parse(body)
        wrong = [] if result is None else list(_faults(result, place))
    except (AttributeError, TypeError, ValueError) as error:
        result, wrong, why = None, [], f"is damaged: {error}"
    if result is None:
        kept.unread.add(name)
        kept.findings.append(Finding(level="fault", file=name, message=why, mend="quarantine"))
        return
    kept.findings += [Finding(level="fault", file=name, message=one) for one in wrong]
    kept.findings += _unsure(name, body)
    if isinstance(result, TrialResult):
        kept.trials[place[0]] = result
    else:
        kept.replicates[place[0], REFIT if place[-1] == REFIT_FOLDER else int(place[-1])] = result
        kept.findings += _tensor_faults(run, name, result, kept)


def _unsure(name: str, body: Mapping[str, Any]) -> list[Finding]:
    """Return a note on a file without a checksum."""
    said = "has no checksum, as earlier versions wrote it: a change in it would not be seen"
    return [] if "crc" in body else [Finding(level="note", file=name, message=said)]


def _faults(result: TrialResult | ReplicateResult, place: tuple[str, ...]) -> Iterator[str]:
    if result.trial != place[0]:
        yield f"says that it is of trial {result.trial}, and lies in the folder of {place[0]}"
    if isinstance(result, TrialResult):
        if trial_name(result.number) != place[0]:
            yield f"says that it is trial number {result.number}, and lies in the folder of {place[0]}"
        if result.state == "complete" and not result.history:
            yield "is complete without an epoch"
    elif result.place != place[1:]:
        yield f"says that it is replicate {result.replicate}, and lies in {'/'.join(place[1:])}"
    if any(isinstance(v, float) and not math.isfinite(v) for epoch in result.history for v in epoch.values()):
        yield "holds a value that is not finite"


def _tensor_faults(run: Path, name: str, result: ReplicateResult, kept: Kept) -> Iterator[Finding]:
    """Compare weights, and values for each image, with the sha256 that the result has of them."""
    known = {WEIGHTS: result.weights_sha256, PER_IMAGE: result.per_image.sha256 if result.per_image else ""}
    for kind, sha256 in known.items():
        if not sha256:
            continue
        file = _beside(name, kind)
        try:
            with (run / file).open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            yield Finding(level="fault", file=file, message=f"can't be read: {error.strerror}")
            continue
        kept.weights += kind == WEIGHTS
        if digest != sha256:
            said = f"sha256 is {digest[:12]}…, but the result says {sha256[:12]}…"
            yield Finding(level="fault", file=file, message=said)
