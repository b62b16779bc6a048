"""Which plugins there are and which of them take part, by metadata only: nothing of them is imported here.

A plugin comes from an installed distribution (an entry point in the group `mnistlab.v1`) or, for trying things before
packaging them, from a single file whose source travels to the workers.
"""

from __future__ import annotations

import hashlib
import linecache
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from types import ModuleType

from packaging.utils import canonicalize_name as canonical
from packaging.version import InvalidVersion, Version

from mnistlab.api import ENTRY_POINT_GROUP
from mnistlab.errors import PluginError, PluginFileError, near_miss
from mnistlab.util.filenames import is_device

BUILT_IN = "mnistlab"
MAX_SOURCE_BYTES = 1 << 20
_GROUP = re.compile(r"mnistlab\.v\d+")
_DISTRIBUTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_ENTRY_POINT = re.compile(r"[A-Za-z0-9_.-]+")
_FILE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\.py")


@dataclass(frozen=True)
class Found:
    """A plugin as its metadata describe it, before anything of it is imported."""

    distribution: str
    version: str
    entry_point: str
    module: str
    group: str
    load: Callable[[], object]
    licence: str = ""
    summary: str = ""
    requires: tuple[str, ...] = ()
    packaged: bool = True  # False: a single file, which has no metadata


@dataclass(frozen=True)
class SourceFile:
    """A plugin in a single file: its name, its path (for messages) and its whole source, which workers get as it is."""

    name: str
    path: str
    source: str

    @property
    def version(self) -> str:
        """Return a version (PEP 440) made of the source's sha256: another content is another version."""
        return f"0+sha256.{hashlib.sha256(self.source.encode()).hexdigest()[:12]}"

    def found(self) -> Found:
        """Return the file as a plugin whose distribution is the file's name."""
        stem = Path(self.name).stem
        return Found(self.name, self.version, stem, self.path, ENTRY_POINT_GROUP, self._load, packaged=False)

    def _load(self) -> ModuleType:
        """Import the source under a name of its own. It stays importable, because configs look their module up."""
        name = f"mnistlab_file_{Path(self.name).stem}_{self.version.rpartition('.')[2]}"
        module = ModuleType(name)
        module.__file__ = self.path
        sys.modules[name] = module
        # Tracebacks quote lines from here where the file itself is not at hand, as on another node.
        linecache.cache[self.path] = (len(self.source), None, self.source.splitlines(keepends=True), self.path)
        try:
            exec(compile(self.source, self.path, "exec"), module.__dict__)  # noqa: S102 - importing is running
        except BaseException:
            del sys.modules[name]
            raise
        return module


@dataclass(frozen=True)
class Selection:
    """Which plugins take part, decided before anything is imported; sent to the workers, so that they decide alike.

    `allowed` names the only distributions that may be loaded beside mnistlab's own, `disabled` those that may not;
    files were named one by one on the command line and always take part.
    """

    disabled: frozenset[str] = frozenset()
    allowed: frozenset[str] | None = None
    only_built_in: bool = False
    files: tuple[SourceFile, ...] = ()

    def only(self, distributions: Iterable[str]) -> Selection:
        """Return the selection without distributions that are not named here: workers load what their plans need."""
        needed = frozenset(map(canonical, distributions))
        return replace(self, allowed=needed if self.allowed is None else needed & self.allowed)

    def refusal(self, found: Found) -> str:
        """Return why a plugin takes no part, or ""."""
        name = canonical(found.distribution)
        if name in self.disabled:
            return "named in MNISTLAB_DISABLE"
        if name == BUILT_IN or not found.packaged:
            return ""
        if self.only_built_in:
            return "switched off by --no-plugins"
        if self.allowed is not None and name not in self.allowed:
            return "not named in the experiment's [plugins] allow"
        return ""


EVERYTHING = Selection()


def selection(files: Iterable[Path] = (), *, only_built_in: bool = False) -> Selection:
    """Return the selection of the environment variable MNISTLAB_DISABLE and what the command line says.

    Raises:
        PluginFileError: if a file can't be read, is no UTF-8 text or has no module's name; all of them at once.
    """
    sources, faults = [], []
    for path in files:
        try:
            sources.append(_read(path))
        except PluginError as error:
            faults.append(str(error))
    names = [source.name for source in sources]
    faults += [f"--plugin: two files are named '{name}'" for name in sorted({n for n in names if names.count(n) > 1})]
    if faults:
        raise PluginFileError("\n".join(faults))
    return Selection(disabled_distributions(), None, only_built_in, tuple(sources))


def _read(path: Path) -> SourceFile:
    if not _FILE.fullmatch(path.name) or is_device(path.name):
        raise PluginError(f"--plugin {path}: the file's name must be a module's, for example my_model.py")
    try:
        if path.stat().st_size > MAX_SOURCE_BYTES:
            raise PluginError(f"--plugin {path}: a plugin file holds at most {MAX_SOURCE_BYTES} bytes")
        return SourceFile(path.name, str(path), path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        hint = near_miss(path.name, beside)
        raise PluginError(f"--plugin {path}: does not exist" + (f"; {hint}" if hint else "")) from None
    except OSError as error:
        raise PluginError(f"--plugin {path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise PluginError(f"--plugin {path}: must be UTF-8: {error}") from None


def discover() -> list[Found]:
    """Return the plugins of the installed distributions, of whatever API version, importing none of them.

    A distribution that stands twice on the path counts once: the first one is the one that gets imported.
    """
    # The metadata of these alone are read: those of hundreds would take every command some hundredths of a second.
    offering = [(one, _field(one, "Name")) for one in distributions() if _entries(one)]
    first: dict[str, Distribution] = {}
    for one, name in offering:
        if name and canonical(name) not in first:  # what an interrupted installation leaves behind has no name
            first[canonical(name)] = next((d for d in distributions(name=name) if _field(d, "Name")), one)
    found = [
        Found(
            name,
            of.version or "unknown",
            entry.name,
            entry.value,
            entry.group,
            entry.load,
            _field(of, "License-Expression") or _field(of, "License"),
            _field(of, "Summary"),
            tuple(of.requires or ()),
        )
        for name, of in first.items()
        for entry in _entries(of)
    ]
    return sorted(found, key=lambda f: (f.distribution, f.entry_point))


def _entries(distribution: Distribution) -> list[EntryPoint]:
    return [entry for entry in distribution.entry_points if _GROUP.fullmatch(entry.group)]


def _field(distribution: Distribution, name: str) -> str:
    """Return the first line of a field of a distribution's metadata, or "".

    What is missing is None, or an error where anybody has imported the backport importlib_metadata: from then on that
    one answers for all distributions.
    """
    try:
        text = str(distribution.metadata[name] or "").strip()
    except (KeyError, FileNotFoundError):
        return ""
    return text.splitlines()[0] if text else ""


def fault_of(found: Found) -> str:
    """Return what is wrong with a plugin's own names, which stand in files, tables and pages; "" if nothing is."""
    if not _DISTRIBUTION.fullmatch(found.distribution):
        return f"distribution name {found.distribution!r} must be letters, digits, '.', '_' and '-'"
    if not _ENTRY_POINT.fullmatch(found.entry_point):
        return f"entry point name {found.entry_point!r} must be letters, digits, '.', '_' and '-'"
    try:
        Version(found.version)
    except InvalidVersion:
        return f"version {found.version!r} must be one by PEP 440, for example '1.0'"
    return ""


def disabled_distributions() -> frozenset[str]:
    """Return what the environment variable MNISTLAB_DISABLE names (distributions, separated by commas)."""
    words = os.environ.get("MNISTLAB_DISABLE", "").split(",")
    return frozenset(canonical(word.strip()) for word in words if word.strip())
