"""Whether what a run was made with is here: libraries and plugins, and what is to be done where they are others."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mnistlab import __version__
from mnistlab.errors import PluginError
from mnistlab.experiment.recorded import parts_of, table_of
from mnistlab.plugins.registry import Kind, Registry
from mnistlab.store.layout import PLUGINS
from mnistlab.store.results import RunRecord

_LIBRARIES = ("torch", "torchvision", "ray", "optuna", "numpy", "pydantic", "pluggy", "safetensors")
_NUMBERS = ("mnistlab", "torch")  # on whose versions numbers depend


def version_here(name: str) -> str:
    """Return the version of mnistlab, of Python or of a library, or that it is not installed."""
    if name == "mnistlab":
        return __version__
    if name == "python":
        return ".".join(map(str, sys.version_info[:3]))
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def versions_here() -> Mapping[str, str]:
    """Return the versions of mnistlab, of Python and of the libraries that a run rests on."""
    return {name: version_here(name) for name in ("mnistlab", "python", *_LIBRARIES)}


def doubts_of_numbers(record: RunRecord) -> list[str]:
    """Return a warning for each version on which the numbers of a run depend and that is another one now."""
    then = record.run.get("versions", {})
    return [
        f"this run was made with {name} {then[name]}, and is gone on with {here}: its numbers may differ a little"
        for name in _NUMBERS
        if then.get(name) not in (None, here := version_here(name))
    ]


def refuse_other_plugins(path: Path, made_with: Mapping[str, str], registry: Registry, why: str) -> None:
    """Refuse where a distribution is missing or of another version than the run in `path` was made with.

    `why` says what it has to do with the run: `was used`.

    Raises:
        PluginError: naming every one of them.
    """
    here = registry.versions()
    faults = [
        f"  {name} {made} {why}, but {f'{name} {here[name]}' if name in here else 'no plugin of that name'} is here"
        for name, made in sorted(made_with.items())
        if here.get(name) != made
    ]
    if faults:
        raise PluginError("\n".join([f"{path} was made with other plugins:", *faults]))


def other_versions(record: RunRecord, plan: Mapping[str, Any], registry: Registry) -> list[str]:
    """Return in words each plugin of the plan or of the run's dataset that is of another version here.

    Raises:
        PluginError: if one is not here at all; of a single file it says where the run keeps its source.
    """
    found: list[str] = []
    dataset: tuple[Kind, Mapping[str, Any]] = ("dataset", table_of(record, "dataset"))
    for kind, part in (*parts_of(plan), dataset):
        here = _version_here(record, kind, str(part["plugin"]), registry)
        if here != part.get("version", here):
            found.append(f"{kind} '{part['plugin']}' is of version {here} here, but the run had {part['version']}")
    return found


def with_versions_here(plan: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    """Return the plan with the versions of the plugins that are installed here."""

    def renewed(kind: Kind, part: Mapping[str, Any]) -> dict[str, Any]:
        return {**part, "version": registry.find(kind, str(part["plugin"])).version}

    changes = [{**change, "optimizer": renewed("optimizer", change["optimizer"])} for change in plan.get("changes", ())]
    return {
        **plan,
        "model": renewed("model", plan["model"]),
        "optimizer": renewed("optimizer", plan["optimizer"]),
        "transforms": [renewed("transform", part) for part in plan["transforms"]],
        **({"changes": changes} if changes else {}),
    }


def _version_here(record: RunRecord, kind: Kind, name: str, registry: Registry) -> str:
    try:
        return registry.find(kind, name).version
    except PluginError as error:
        file = name.partition(":")[0]
        kept = Path(record.path) / PLUGINS / file
        if file not in record.run.get("plugin_files", {}):
            raise
        # Its code is never run unasked: a run directory may come from anywhere.
        raise PluginError(f"{error}; the run kept its source: read it, then add --plugin {kept}") from None
