"""The whole check of a run directory. It only reads, and may be made while a driver writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mnistlab.store import CONFIRMATION, EVENTS, LEDGER, holder
from mnistlab.store.fsck.findings import Finding, Report
from mnistlab.store.fsck.inventory import Inventory, inventory
from mnistlab.store.fsck.kept import Kept, read_kept
from mnistlab.store.fsck.replicates import plan_findings, replicate_findings, split_findings
from mnistlab.store.fsck.states import state_findings
from mnistlab.store.fsck.story import Story, compare, ensemble_faults, ledger_faults, read_story, rebuilt
from mnistlab.store.fsck.streams import STREAMS, Line, order_faults, read_stream
from mnistlab.store.layout import RUN, TRIALS, record_name
from mnistlab.store.results import TrialResult
from mnistlab.store.schedulers import traits_of


@dataclass(frozen=True)
class Look:
    """Everything that was read of a run directory."""

    files: Inventory
    streams: dict[str, list[Line]]
    kept: Kept
    story: Story
    findings: tuple[Finding, ...]
    jumps: bool

    def rebuilt(self, trial: str) -> TrialResult | None:
        """Return a trial's result as the events tell it, or None where they don't tell all of it."""
        told = self.story.trials.get(trial)
        return None if told is None else rebuilt(told, jumps=self.jumps)


def check(run: Path) -> Report:
    """Check every file of a run directory, and all of them against each other."""
    look = look_at(run)
    return Report(
        run=str(run),
        findings=look.findings,
        files=len(look.files.own),
        events=len(look.streams[EVENTS]),
        results=len(look.kept.trials) + len(look.kept.replicates),
        weights=look.kept.weights,
        holder=holder(run),
    )


def look_at(run: Path) -> Look:
    """Read a run directory in the order in which a driver does not write it, so that one at work does not seem faulty.

    What ends meanwhile has its result before its event, and its line in the ledger before its score in the result.
    What is begun after the events were read is left out.
    """
    before, read = inventory(run), {EVENTS: read_stream(run, EVENTS)}
    files = _without_the_begun(inventory(run), before, read[EVENTS][0])
    kept = read_kept(run, files.own)
    read |= {name: read_stream(run, name) for name in STREAMS if name != EVENTS}
    streams = {name: lines for name, (lines, _) in read.items()}
    jumps = traits_of(_scheduler(kept)).copies_states
    story = read_story(streams[EVENTS], jumps=jumps)
    found = [*files.findings, *(one for _, several in read.values() for one in several), *kept.findings]
    found += [*order_faults(streams[EVENTS]), *story.findings, *compare(story, kept, jumps=jumps)]
    found += [*state_findings(run, files.own, _over(story)), *replicate_findings(streams[EVENTS], kept)]
    found += [*plan_findings(streams[CONFIRMATION], kept), *split_findings(kept)]
    found += [*ledger_faults(streams[LEDGER], kept), *ensemble_faults(streams[LEDGER], kept)]
    found += _without_record(files, streams[EVENTS], kept)
    found += _lost_records(files, streams[EVENTS])
    found.sort(key=lambda one: (one.file, one.line))
    return Look(files, streams, kept, story, tuple(found), jumps)


def _without_the_begun(files: Inventory, before: Inventory, lines: list[Line]) -> Inventory:
    """Leave out what was not there `before` the lines were read and is of trials that they don't tell."""
    known, old = {str(line.record.get("trial")) for line in lines}, frozenset(before.own)

    def stays(name: str) -> bool:
        folder, *inside = name.split("/")
        return name in old or folder != TRIALS or inside[0] in known

    return replace(files, own=tuple(filter(stays, files.own)))


def _over(story: Story) -> set[str]:
    """Return the trials that the events tell to have ended for good; one that was interrupted goes on."""
    ends = {name: told.end.record["type"] for name, told in story.trials.items() if told.end is not None}
    return {name for name, kind in ends.items() if kind != "trial_interrupted"}


def _scheduler(kept: Kept) -> object:
    experiment = kept.run.get("experiment")
    search = experiment.get("search") if isinstance(experiment, dict) else None
    return search.get("scheduler") if isinstance(search, dict) else None


def _without_record(files: Inventory, lines: list[Line], kept: Kept) -> Iterator[Finding]:
    if RUN in files.own:
        return
    begun = kept.trials or any(line.record.get("type") == "run_started" for line in lines)
    said = "is missing" if begun else "is not there: the run ended before it had begun"
    yield Finding(level="fault" if begun else "note", file=RUN, message=said)


def _lost_records(files: Inventory, lines: list[Line]) -> Iterator[Finding]:
    """Yield each record of an amendment that the events name and that is not there, by the first line that names it."""
    named: dict[int, int] = {}
    for line in lines:
        number = line.record.get("record")
        if line.record.get("type") == "run_resumed" and isinstance(number, int) and number > 1:
            named.setdefault(number, line.number)
    for number, line in named.items():
        if record_name(number) not in files.own:
            said = f"is missing, but line {line} of {EVENTS} says that the run went on by it"
            yield Finding(level="fault", file=record_name(number), message=said)
