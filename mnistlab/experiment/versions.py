"""Whether the plugins that a run was made with are here, and what is to be done where they are of other versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnistlab.errors import PluginError
from mnistlab.experiment.recorded import parts_of, table_of
from mnistlab.plugins.registry import Kind, Registry
from mnistlab.store.results import RunRecord


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
        kept = Path(record.path) / "plugins" / file
        if file not in record.run.get("plugin_files", {}):
            raise
        # Its code is never run unasked: a run directory may come from anywhere.
        raise PluginError(f"{error}; the run kept its source: read it, then add --plugin {kept}") from None
