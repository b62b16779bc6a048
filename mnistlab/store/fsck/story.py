"""Comparing what the events and the ledger tell with the results: nothing that ended is lost, nothing ends twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mnistlab.store import EVENTS, LEDGER
from mnistlab.store.ends import STATES
from mnistlab.store.fsck.findings import Finding
from mnistlab.store.fsck.kept import Kept
from mnistlab.store.fsck.streams import Line
from mnistlab.store.layout import RESULT, in_trial
from mnistlab.store.results import RungResult, State, TrialResult

ENDS: Mapping[str, State] = {kind.type: state for kind, state in STATES.items()}
GONE_ON_WITH = ("trial_interrupted", "trial_failed")  # by `mnistlab resume` and `mnistlab retry`
BEGINNINGS = ("run_preparing", "run_started", "run_resumed")  # a driver begins, or goes on with, the run


@dataclass
class Told:
    """What the events tell of a trial: its last beginning, the epochs that count, its end (None for what was not told).

    `before` is the end of an earlier attempt, whose result stays until this one has its own.
    """

    begun: Line | None = None
    epochs: list[Line] = field(default_factory=list[Line])
    rungs: list[Line] = field(default_factory=list[Line])  # the trainings that have ended at a rung
    end: Line | None = None
    before: Line | None = None
    waited: int = 0  # at how many rungs it had ended a training by then
    driver: int = 0  # which one has begun it


@dataclass
class Story:
    """What the events tell of all trials; `over`: the line after which the run was over, 0 while it is not."""

    trials: dict[str, Told] = field(default_factory=dict[str, Told])
    over: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])


def read_story(lines: list[Line], *, jumps: bool) -> Story:
    """Follow the trials through the events. `jumps`: epochs may go back, as in population-based training."""
    story, driver = Story(), 0
    for line in lines:
        kind = str(line.record.get("type"))
        if kind in BEGINNINGS:
            driver, story.over = driver + 1, 0
        elif kind == "run_finished":
            story.over = line.number
        elif kind.startswith("trial_") and isinstance(line.record.get("trial"), str):
            told = story.trials.setdefault(line.record["trial"], Told())
            story.findings += _step(told, line, kind, driver, jumps=jumps)
    return story


def _step(told: Told, line: Line, kind: str, driver: int, *, jumps: bool) -> Iterator[Finding]:
    name = line.record["trial"]
    if kind == "trial_started":
        if told.end is not None and told.end.record["type"] not in GONE_ON_WITH and not _waited(told):
            yield _fault(line, f"trial {name} begins again after its end in line {told.end.number}")
        elif told.begun and not _is_after(_attempt(line), _attempt(told.begun)):
            yield _fault(line, f"trial {name} has begun already, in line {told.begun.number}")
        elif told.begun and not jumps and line.record.get("plan") != told.begun.record.get("plan"):
            yield _fault(line, f"trial {name} is another one than in line {told.begun.number}, and has its number")
        _begin(told, line, driver)
    elif kind == "trial_epoch":
        before = told.epochs[-1].record.get("epoch") if told.epochs else 0
        epoch = line.record.get("epoch")
        if told.driver == driver and not jumps and not _is_after(epoch, before):
            yield _fault(line, f"trial {name} is at epoch {epoch} after {before}: progress can't go back")
        if told.end is not None:
            yield _fault(line, f"trial {name} has an epoch after its end in line {told.end.number}")
        told.epochs.append(line)
        told.driver = driver
    elif kind == "trial_paused":
        told.rungs.append(line)
    elif kind in ENDS:
        if told.end is not None:
            yield _fault(line, f"trial {name} ends again; it ended in line {told.end.number}")
        if told.begun is None:
            yield _fault(line, f"trial {name} ends without a beginning")
        told.end = line


def _waited(told: Told) -> bool:
    """Return whether a trial had waited at a rung until its run was over: it may be promoted once that goes on."""
    return bool(told.rungs) and told.end is not None and told.end.record["type"] == "trial_pruned"


def _attempt(line: Line) -> object:
    return line.record.get("attempt", 1)


def _begin(told: Told, line: Line, driver: int) -> None:
    """Take up an attempt: of the epochs before it those count from whose checkpoint it goes on."""
    start = line.record.get("epoch", 0)
    told.epochs = [
        one for one in told.epochs if isinstance(start, int) and _is_after(start + 1, one.record.get("epoch"))
    ]
    told.waited = len(told.rungs) if told.end else told.waited
    told.begun, told.before, told.end, told.driver = line, told.end or told.before, None, driver


def _is_after(epoch: object, before: object) -> bool:
    return isinstance(epoch, int) and isinstance(before, int) and epoch > before


def _fault(line: Line, message: str, file: str = EVENTS) -> Finding:
    return Finding(level="fault", file=file, line=line.number, message=message)


# --- against the results ------------------------------------------------------------------------------------------


def compare(story: Story, kept: Kept, *, jumps: bool) -> Iterator[Finding]:
    """Yield where the ends that were told and the results that are there differ."""
    for name, told in sorted(story.trials.items()):
        file = in_trial(name, RESULT)
        if told.end is not None and name not in kept.trials and file not in kept.unread:
            mend = "rebuild" if rebuilt(told, jumps=jumps) else ""
            said = f"is missing, but line {told.end.number} of {EVENTS} says that the trial ended"
            yield Finding(level="fault", file=file, message=said, mend=mend)
    for name, result in sorted(kept.trials.items()):  # by the folder, whatever the result itself says
        told = story.trials.get(name, Told())
        yield from _against(in_trial(name, RESULT), result, told, over=bool(story.over), jumps=jumps)


def _against(file: str, result: TrialResult, told: Told, *, over: bool, jumps: bool) -> Iterator[Finding]:
    if told.begun is None:
        yield Finding(level="fault", file=file, message=f"is of a trial of which {EVENTS} tells no beginning")
    elif told.end is not None:
        for key, here, there in _differences(result, told, told.end, jumps=jumps):
            said = f"{key}: {here!r} here, {there!r} in line {told.end.number} of {EVENTS}"
            yield Finding(level="fault", file=file, message=said)
    # A result that agrees with an end before the last start is of that attempt, and was not yet written over.
    elif told.before is None or any(_differences(result, told, told.before, jumps=jumps)):
        said = f"is there, but {EVENTS} doesn't tell that the trial ended"
        only = told.begun.record.get("attempt", 1) == 1  # else it may be of an attempt that has been begun again
        ours = only or jumps or len(told.epochs) == len(result.history)
        # A fault only if the run went on to its end without it.
        yield Finding(level="fault" if over else "note", file=file, message=said, mend="tell" if ours else "")


def _differences(
    result: TrialResult, told: Told, end_line: Line, *, jumps: bool
) -> Iterator[tuple[str, object, object]]:
    """Yield what a result says otherwise than the events: the key, the value here, the value there."""
    begun, end = told.begun.record if told.begun else {}, end_line.record
    pairs = {"state": (result.state, ENDS[end["type"]]), "epochs": (len(result.history), end.get("epoch"))}
    pairs |= {"rungs": (len(result.rungs), told.waited if end_line is told.before else len(told.rungs))}
    pairs |= {} if jumps else {"seed": (result.seed, begun.get("seed"))}  # else it may be another's
    pairs |= {key: (getattr(result, key), end[key]) for key in ("metrics", "seconds", "cause") if key in end}
    for key, (here, there) in pairs.items():
        if here != there:
            yield key, here, there


def rebuilt(told: Told, *, jumps: bool) -> TrialResult | None:
    """Return the result that the events tell to the last detail, or None where something would have to be guessed.

    A failed trial's seconds are in no event; and where epochs jump, plan and seed may have changed on the way.
    """
    if told.begun is None or told.end is None or jumps or told.end.record["type"] == "trial_failed":
        return None
    begun, end = told.begun.record, told.end.record
    history = [line.record.get("metrics") for line in told.epochs]
    if [line.record.get("epoch") for line in told.epochs] != list(range(1, len(history) + 1)):
        return None
    keys = ("trial", "number", "seed", "plan", "label", "repeats")
    if not {*keys} <= begun.keys() or not {"metrics", "seconds"} <= end.keys() or end.get("epoch") != len(history):
        return None
    about: dict[str, Any] = {key: begun[key] for key in keys}
    about |= {"budget": begun.get("budget"), "rungs": tuple(_rung(line.record) for line in told.rungs)}
    about |= {"history": tuple(history), "metrics": end["metrics"], "seconds": end["seconds"]}
    return TrialResult(**about, state=ENDS[end["type"]], message=str(end.get("reason", "")))


def _rung(record: Mapping[str, Any]) -> RungResult:
    return RungResult(**{key: record[key] for key in ("rung", "budget", "metrics", "seconds")})


# --- the test set -------------------------------------------------------------------------------------------------


def ledger_faults(ledger: list[Line], kept: Kept) -> Iterator[Finding]:
    """Yield where the ledger and the results differ about what the test set has shown."""
    evaluated = {_model(line): line for line in ledger if line.record.get("type") == "evaluated"}
    for model, result in sorted(kept.replicates.items()):
        line = evaluated.get(model)
        file = in_trial(model[0], *result.place, RESULT)
        if result.test is not None and line is None:
            said = f"has a test score of which {LEDGER} says nothing: every look at the test set must be on the record"
            yield Finding(level="fault", file=file, message=said)
        elif result.test is not None and line is not None and line.record.get("correct") != result.test.correct:
            said = f"{line.record.get('correct')} images are right here, {result.test.correct} in {file}"
            yield _fault(line, said, LEDGER)
        elif result.test is None and line is not None:
            said = f"the score of {file} stands here only: the writer died between the two"
            yield Finding(level="note", file=LEDGER, line=line.number, message=said)


def ensemble_faults(ledger: list[Line], kept: Kept) -> Iterator[Finding]:
    """Yield where the ledger scores an ensemble for which it has not opened the test set, or of models that are not."""
    opened = False
    for line in ledger:
        opened |= line.record.get("type") == "opened"
        if line.record.get("type") != "ensemble":
            continue
        if not opened:
            yield _fault(line, "an ensemble is scored, but the test set was not opened before", LEDGER)
        for number, sha256 in _members(line):
            one = kept.replicates.get((str(line.record.get("trial")), number))
            if one is None or one.weights_sha256 != sha256:
                said = f"replicate {number} of trial {line.record.get('trial')} is in the ensemble"
                yield _fault(line, f"{said}, but there is none with these weights", LEDGER)


def _members(line: Line) -> list[tuple[int, str]]:
    lists: list[Any] = [line.record.get(key) for key in ("replicates", "weights_sha256")]
    return list(zip(*lists, strict=False)) if all(isinstance(one, list) for one in lists) else []


def _model(line: Line) -> tuple[str, int]:
    number = line.record.get("replicate")
    return str(line.record.get("trial")), number if isinstance(number, int) else -1
