"""Comparing what the events tell of replicates and refits with their results."""

from __future__ import annotations

from collections.abc import Iterator

from mnistlab.store import CONFIRMATION, EVENTS
from mnistlab.store.fsck.findings import Finding
from mnistlab.store.fsck.kept import Kept
from mnistlab.store.fsck.streams import Line
from mnistlab.store.layout import RESULT, in_trial
from mnistlab.store.results import BASELINE, REFIT, ReplicateResult, place_of

ENDS = ("replicate_finished", "replicate_failed", "refit_finished")


def replicate_findings(lines: list[Line], kept: Kept) -> Iterator[Finding]:
    """Yield where an end of a replicate was told and its result is missing or says otherwise, and the reverse.

    Nothing is written again from the events: they know neither the weights nor the answers to single images.
    """
    told = {_place(line): line for line in lines if line.record.get("type") in ENDS}
    for place, line in sorted(told.items()):
        result = kept.replicates.get(place)
        file = _file(place)
        if result is None and file not in kept.unread:
            said = f"is missing, but line {line.number} of {EVENTS} says that the training ended"
            yield Finding(level="fault", file=file, message=said)
        elif result is not None:
            yield from (Finding(level="fault", file=file, message=said) for said in _differences(result, line))
    for place in sorted(kept.replicates.keys() - told.keys()):
        if kept.replicates[place].replicate != REFIT or not kept.replicates[place].cause:  # no event tells its failure
            said = f"is there, but {EVENTS} doesn't tell that the training ended: the writer died between the two"
            yield Finding(level="note", file=_file(place), message=said)


def plan_findings(confirmations: list[Line], kept: Kept) -> Iterator[Finding]:
    """Yield the replicates of plans that no trial had and whose plan was not written down either."""
    said = [line.record.get("baseline") or {} for line in confirmations]
    known = {one.get("trial") for one in said if one.get("plan")}
    for place in sorted(kept.replicates):
        if place[0].startswith(BASELINE) and place[0] not in known:
            message = f"is of a plan that {CONFIRMATION} does not hold"
            yield Finding(level="fault", file=_file(place), message=message)


def split_findings(kept: Kept) -> Iterator[Finding]:
    """Yield the replicates whose split is not that of the others of their number: plans are compared in pairs."""
    first: dict[int, tuple[str, int]] = {}
    for place, result in sorted(kept.replicates.items()):
        if result.cause or result.replicate == REFIT:
            continue
        other = first.setdefault(result.replicate, place)
        if kept.replicates[other].split != result.split:
            said = f"has another split than replicate {result.replicate} of trial {other[0]}: they are no pair"
            yield Finding(level="fault", file=_file(place), message=said)


def _differences(result: ReplicateResult, line: Line) -> Iterator[str]:
    keys = [key for key in ("seed", "metrics", "seconds", "cause", "message") if key in line.record]
    for key in keys:
        here, there = getattr(result, key), line.record[key]
        if here != there:
            yield f"{key}: {here!r} here, {there!r} in line {line.number} of {EVENTS}"


def _place(line: Line) -> tuple[str, int]:
    number = line.record.get("replicate", REFIT)
    return str(line.record.get("trial")), number if isinstance(number, int) else -1


def _file(place: tuple[str, int]) -> str:
    return in_trial(place[0], *place_of(place[1]), RESULT)
