"""Which files of a run directory are its own, which are left-overs of a writer that died, and which are neither."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mnistlab.store.fsck.findings import Finding
from mnistlab.store.layout import FOREIGN, OWN

TEMPORARY = re.compile(r"(?P<of>.+)\.tmp-\d+")


@dataclass(frozen=True)
class Inventory:
    """The files of a run directory, relative to it, and what is odd among them."""

    own: tuple[str, ...]
    findings: tuple[Finding, ...]


def inventory(run: Path) -> Inventory:
    """Return what lies in a run directory."""
    own: list[str] = []
    found: list[Finding] = []
    for name in sorted(_walk(run)):
        if (run / name).is_symlink():
            found.append(Finding(level="fault", file=name, message="is a symbolic link: what it leads to is not read"))
        elif OWN.fullmatch(name):
            own.append(name)
        else:
            found.append(_other(name))
    return Inventory(tuple(own), tuple(found))


def _other(name: str) -> Finding:
    temporary = TEMPORARY.fullmatch(name)
    if temporary and OWN.fullmatch(temporary["of"]):
        said = "is the temporary file of a writer that died; nothing reads it"
        return Finding(level="note", file=name, message=said, mend="remove")
    return Finding(level="note", file=name, message="is not a file of a run directory; nothing reads it")


def _walk(run: Path) -> Iterator[str]:
    """Yield the files and symbolic links in a run directory, relative to it."""
    for folder, folders, files in os.walk(run):
        base = Path(folder).relative_to(run)
        links = [name for name in folders if (run / base / name).is_symlink()]
        folders[:] = [name for name in folders if not FOREIGN.fullmatch((base / name).as_posix())]
        yield from ((base / name).as_posix() for name in (*files, *links))
