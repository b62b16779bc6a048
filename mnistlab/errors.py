"""What can go wrong, as the command line prints it: one message, no traceback, one exit code each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, time
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


_FEW = 12  # names that a message lists whole
_SHOWN = 5  # names that it shows of more
_LONGEST = 80  # characters of a value that is quoted


def closest(name: str, known: Iterable[str]) -> str:
    """Return the one of `known` names that is most like `name`, or "" where none is near.

    A name in another case, with `_` for `-` or without leading zeros is the same name: `ADAMW`, `one_cycle`, `7`.
    """
    alike: dict[str, str] = {}
    for one in sorted(set(known)):
        alike.setdefault(_folded(one), one)
    near = get_close_matches(_folded(name), alike, n=1, cutoff=0.6)
    return alike[near[0]] if near else ""


def _folded(name: str) -> str:
    folded = name.strip().casefold().replace("_", "-")
    return folded.lstrip("0") or "0" if folded.isdecimal() else folded


def misspelt(written: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Return, for each of `known` keys that was probably meant by an unknown one, how that one was `written`."""
    there = list(written)
    free = [key for key in known if key not in there]
    near = {closest(key, free): key for key in there if key not in known}
    return {key: one for key, one in near.items() if key}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for the nearest of `known` names, or "" where none is near."""
    near = closest(name, known)
    return f"did you mean '{near}'?" if near else ""


def near_miss(name: str, known: Iterable[str], rest: str = "") -> str:
    """Return "did you mean 'x'?" for the nearest of `known` names, or what there is, or "".

    Of many names it shows a few; `rest` is the command that lists all of them.
    """
    names = sorted(set(known))
    return nearest(name, names) or (f"known: {_some(name, names, rest)}" if names else "")


def _some(name: str, names: Sequence[str], rest: str) -> str:
    """Return all of a few names; of many those that are least unlike `name`, how many more there are, and where."""
    if len(names) <= _FEW:
        return ", ".join(names)
    alike = {_folded(one): one for one in names}
    near = [alike[one] for one in get_close_matches(_folded(name), alike, n=_SHOWN, cutoff=0.0)]
    more = f"{len(names) - len(near):,} more"
    return f"{', '.join(sorted(near))} and {more}" + (f" (list them with: {rest})" if rest else "")


def must_be_one_of(place: str, value: object, known: Collection[str]) -> Fault:
    """Return the fault of a value that is none of those `known`, all of which the rule names."""
    return Fault(place, f"must be one of {', '.join(known)}", value, nearest(str(value), known))


def short(value: object) -> str:
    """Return a value as Python writes it, or the beginning of that; a date as TOML does."""
    try:
        text = str(value) if isinstance(value, date | time) else repr(value)
    except RecursionError:
        return "a deeply nested value"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
