"""A new plugin package, complete from its first minute: `create` writes it from the templates beside this module."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from mnistlab import __version__
from mnistlab.api import API_VERSION
from mnistlab.errors import ExitCode, MnistlabError
from mnistlab.plugins.discovery import BUILT_IN, discover
from mnistlab.plugins.registry import NAME, Kind, load

PREFIX = f"{BUILT_IN}-"


class ScaffoldError(MnistlabError):
    """A package that can't be begun: its name is no name or is taken, or its place is."""

    exit_code = ExitCode.USAGE


def create(name: str, kind: Kind, folder: Path) -> list[Path]:
    """Write the package `mnistlab-NAME` into a new folder in `folder` and return its files: all of them, or none.

    Raises:
        ScaffoldError: if the name is not one or is taken, or the folder is not empty or can't be written.
    """
    record = checked(name)
    _check_free(record, kind)
    root = folder / (PREFIX + record)
    if root.is_symlink() or root.is_file() or (root.is_dir() and any(root.iterdir())):
        raise ScaffoldError(f"{root}: is there already; choose another name, or another folder by --in")
    try:
        return _write_all(root, record, kind)
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
    near = re.sub(r"[^a-z0-9]+", "-", record.lower()).lstrip("-0123456789")[:64].rstrip("-")
    hint = f"; for example '{near if near and not keyword.iskeyword(near) else 'my-net'}'"
    raise ScaffoldError(f"plugin name {name[:80]!a} {rule}{hint}")


def _check_free(record: str, kind: Kind) -> None:
    """Refuse a name under which the package, once installed, would replace another or make a bare name ambiguous."""
    hint = f"for example '{f'my-{record}'[:64].rstrip('-')}'"
    distribution = PREFIX + record
    try:
        raise ScaffoldError(f"plugin name '{record}': {distribution} {version(distribution)} is installed; {hint}")
    except PackageNotFoundError:
        pass
    ours = load(found for found in discover() if found.distribution == BUILT_IN)
    if any(offer.name == record for offer in ours.offers(kind)):
        raise ScaffoldError(f"plugin name '{record}' must not be that of mnistlab's own {kind} '{record}'; {hint}")


def _write_all(root: Path, record: str, kind: Kind) -> list[Path]:
    """Write the package beside its place, then move it there: half a package is never left behind."""
    words = {
        "name": record,
        "distribution": root.name,
        "module": root.name.replace("-", "_"),
        "kind": kind,
        "mnistlab": f"mnistlab>={__version__},<{API_VERSION + 1}",
        "testing": f"mnistlab[testing]>={__version__},<{API_VERSION + 1}",
        "libraries": '"numpy>=2", "pydantic>=2.10"' if kind == "dataset" else '"torch>=2.11"',
    }
    with TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as folder:
        draft = Path(folder, root.name)
        written = [_write(draft / place, source, words) for place, source in _templates(kind, words["module"])]
        draft.rename(root)
    return [root / path.relative_to(draft) for path in written]


def _templates(kind: Kind, module: str) -> Iterator[tuple[str, Traversable]]:
    """Yield where each file goes and its template; `MODULE` in a template's path stands for the package's module."""
    root = files("mnistlab.plugins.scaffold") / "templates"
    for part in (root / "common", root / kind):
        for place, source in sorted(_walk(part), key=lambda pair: pair[0]):
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
