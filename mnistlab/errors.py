"""What can go wrong, as the command line prints it: one message, no traceback, one exit code each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """Public exit codes of the `mnistlab` command (documented in docs/reference/command-line.md)."""

    DONE = 0
    NO_TRIAL_SUCCEEDED = 1
    USAGE = 2
    INTERNAL = 3
    TOO_MANY_FAILURES = 4
    DATA_OR_PLUGIN = 5
    RUN_LOCKED = 6
    RESOURCES_VANISHED = 75
    INTERRUPTED = 130
    TERMINATED = 143


class MnistlabError(Exception):
    """Anything that is the user's to mend. The command line prints its text and ends with `exit_code`."""

    exit_code: ExitCode = ExitCode.INTERNAL

    @property
    def reason(self) -> str:
        """What went wrong, as the record of a run keeps it; an error may leave out there what can be done about it."""
        return str(self)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in an experiment: where, with what value, against which rule, and what would do."""

    place: str
    rule: str
    value: object = None
    hint: str = ""

    def __str__(self) -> str:
        value = "" if self.value is None else f" (got {short(self.value)})"
        hint = f"; {self.hint}" if self.hint else ""
        return f"[{self.place}] {self.rule}{value}{hint}"


class SpecError(MnistlabError):
    """An experiment that can't be run: every fault in it, in one report."""

    exit_code = ExitCode.USAGE

    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        """Report `faults`, all of them found in `source` (a file's path or the word for what was given)."""
        self.source = source
        self.faults = tuple(faults)
        count = f"{len(faults)} fault" + ("s" if len(faults) != 1 else "")
        super().__init__("\n".join([f"{source}: {count}", *(f"  {fault}" for fault in faults)]))


class PluginError(MnistlabError):
    """A plugin that is missing, broken or offered twice under the name that was used."""

    exit_code = ExitCode.DATA_OR_PLUGIN


class MissingPluginError(PluginError):
    """A plugin that nothing installed here offers."""


class VersionError(PluginError):
    """A plan names a version of a plugin that is not the one installed here."""


class PluginFileError(PluginError):
    """A plugin file that was named on the command line and is none: not there, not to be read, or no module's name."""

    exit_code = ExitCode.USAGE


class DataError(MnistlabError):
    """Data that is there but wrong: truncated, corrupt, of another size, or not what its name says."""

    exit_code = ExitCode.DATA_OR_PLUGIN


class DataUnavailableError(DataError):
    """Data that can be neither found nor fetched. The only case in which `offline_fallback` is taken."""


class RunDirectoryError(MnistlabError):
    """A run directory that is locked by another process, or of a format that this version does not read."""

    exit_code = ExitCode.RUN_LOCKED


class DamagedError(RunDirectoryError):
    """A file of a run that is not what was written there. What can be done about it, `mnistlab fsck` says."""

    def __init__(self, path: Path | str, why: str) -> None:
        """Say of the file at `path` why it can't be right."""
        super().__init__(f"{path} is damaged: {why}")
        self.path = Path(path)


class RunWriteError(MnistlabError):
    """The run directory can no longer be written: its disk is full, read-only or gone. What was written is kept."""

    exit_code = ExitCode.RESOURCES_VANISHED


class MachineError(MnistlabError):
    """The machine, a device or a node has failed, not the experiment: the same may succeed later, or elsewhere."""

    exit_code = ExitCode.RESOURCES_VANISHED


class ResourceError(MnistlabError):
    """The machine or cluster lacks what the experiment asks for."""

    exit_code = ExitCode.USAGE


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for the nearest of `known` names, or "" where none is near."""
    close = get_close_matches(name, sorted(set(known)), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""


def near_miss(name: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for the nearest of `known` names, or what there is, or ""."""
    names = sorted(set(known))
    return nearest(name, names) or (f"known: {', '.join(names)}" if names else "")


def must_be_one_of(place: str, value: object, known: Collection[str]) -> Fault:
    """Return the fault of a value that is none of those `known`, all of which the rule names."""
    return Fault(place, f"must be one of {', '.join(known)}", value, nearest(str(value), known))


def short(value: object, limit: int = 80) -> str:
    """Return a value as Python writes it, or the beginning of that."""
    try:
        text = repr(value)
    except RecursionError:
        return "a deeply nested value"
    return text if len(text) <= limit else text[: limit - 3] + "..."
