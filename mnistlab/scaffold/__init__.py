"""A new plugin package, complete from its first minute: `create` writes it from the templates beside this module."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from mnistlab.errors import ExitCode, MnistlabError
from mnistlab.registry import NAME, Kind

PREFIX = "mnistlab-"
API = "0.1"


class ScaffoldError(MnistlabError):
    """A package that can't be begun: its name is no name, or its place is taken."""

    exit_code = ExitCode.USAGE


def create(name: str, kind: Kind, folder: Path) -> list[Path]:
    """Write the package `mnistlab-NAME` into a new folder in `folder` and return its files.

    Raises:
        ScaffoldError: if the name is not one, or the folder is there already or can't be written.
    """
    record = checked(name)
    distribution = PREFIX + record
    words = {
        "name": record,
        "distribution": distribution,
        "module": distribution.replace("-", "_"),
        "config": "".join(part.capitalize() for part in record.split("-")),
        "kind": kind,
        "api": API,
    }
    root = folder / distribution
    try:
        root.mkdir()
        return [_write(root / target, source, words) for target, source in _templates(kind, words["module"])]
    except FileExistsError:
        raise ScaffoldError(f"{root}: is there already; choose another name, or another folder by --in") from None
    except OSError as error:
        raise ScaffoldError(f"{root}: can't be written: {error.strerror}") from None


def checked(name: str) -> str:
    """Return the record's name that `name` (with or without the prefix `mnistlab-`) stands for.

    Raises:
        ScaffoldError: if it is no name; the message proposes the nearest one.
    """
    record = name.removeprefix(PREFIX)
    if NAME.fullmatch(record) and not record.endswith("-") and "--" not in record and not keyword.iskeyword(record):
        return record
    rule = "must be 1 to 64 lower-case letters, digits and single '-', beginning with a letter, and no word of Python's"
    near = re.sub(r"[^a-z0-9]+", "-", record.lower()).strip("-0123456789")[:64]
    hint = f"; for example '{near if near and not keyword.iskeyword(near) else 'my-net'}'"
    raise ScaffoldError(f"plugin name {name[:80]!a} {rule}{hint}")


def _templates(kind: Kind, module: str) -> Iterator[tuple[str, Traversable]]:
    """Yield where each file goes and its template; `module` in a template's path stands for the package's module."""
    root = files("mnistlab.scaffold") / "templates"
    for part in (root / "common", root / kind):
        for place, source in sorted(_walk(part)):
            yield place.replace("MODULE", module).removesuffix(".txt"), source


def _walk(folder: Traversable, place: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        target = place + entry.name.replace("dot.", ".")  # a wheel would leave real dot files out
        if entry.is_dir():
            yield from _walk(entry, f"{target}/")
        else:
            yield target, entry


def _write(path: Path, source: Traversable, words: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Template(source.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
    return path
