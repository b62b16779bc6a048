"""The data and the plugins of a run, found again by what `run.json` says of them, or refused in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from mnistlab.api import Config, DataPlace, Dataset, DatasetInfo, LabelledImages
from mnistlab.data import Division, open_train, prepare_dataset
from mnistlab.errors import DataError, DataUnavailableError, PluginError, RunDirectoryError
from mnistlab.registry import Kind, Registry
from mnistlab.results import RunRecord


@dataclass(frozen=True)
class RunData:
    """A run's dataset, its training part split as the run split it; the test part stays sealed."""

    info: DatasetInfo
    images: LabelledImages
    division: Division


def open_data(record: RunRecord, place: DataPlace, registry: Registry) -> RunData:
    """Find or fetch the dataset of a run and split it as the run did.

    Raises:
        DataError: if it is missing, or is not the one that the run had.
        PluginError: if no plugin offers it here.
    """
    said = _mapping(record, "dataset")
    offer = registry.find("dataset", str(said["plugin"]))
    dataset = cast("Dataset[Config]", offer.record)
    config = dataset.config.model_validate(_settings(record))
    info = _prepared(dataset, config, place, str(said.get("source", "")))
    _same_parts(said, info)
    images = open_train(dataset, config, place)
    return RunData(info, images, _division(record, said, len(images.labels)))


def other_versions(record: RunRecord, plan: Mapping[str, Any], registry: Registry) -> list[str]:
    """Return in words each plugin of the plan or of the run's dataset that is of another version here.

    Raises:
        PluginError: if one is not here at all; of a single file it says where the run keeps its source.
    """
    found: list[str] = []
    for kind, part in _parts(record, plan):
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


def _parts(record: RunRecord, plan: Mapping[str, Any]) -> Iterator[tuple[Kind, Mapping[str, Any]]]:
    """Yield everything that comes from a plugin."""
    yield "model", plan["model"]
    yield "optimizer", plan["optimizer"]
    for part in plan["transforms"]:
        yield "transform", part
    yield "dataset", _mapping(record, "dataset")


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


def _settings(record: RunRecord) -> Mapping[str, Any]:
    """Return the table `[data.NAME]` of the dataset that was used, which may be the fallback."""
    data = cast("Mapping[str, Any]", _mapping(record, "experiment").get("data", {}))
    key = "offline_fallback" if _mapping(record, "dataset").get("fallback") else "dataset"
    return cast("Mapping[str, Any]", data.get(str(data.get(key)), {}))


def _prepared(dataset: Dataset[Config], config: Config, place: DataPlace, source: str) -> DatasetInfo:
    try:
        return prepare_dataset(dataset, config, place)
    except DataUnavailableError as error:
        raise DataUnavailableError(f"{error}\n  the run read it from: {source}") from None


def _same_parts(said: Mapping[str, Any], info: DatasetInfo) -> None:
    other = sorted(name for name, digest in said["sha256"].items() if info.sha256.get(name) != digest)
    if other:
        raise DataError(f"dataset '{said['name']}' is not the one that the run had: {', '.join(other)} differ (sha256)")


def _division(record: RunRecord, said: Mapping[str, Any], count: int) -> Division:
    """Return the run's split, made of the positions that it wrote down."""
    if count != said["train"] + said["validation"]:
        there = f"{said['train'] + said['validation']:,} images, but here it has {count:,}"
        raise DataError(
            f"dataset '{said['name']}' is not the one that the run had: it trained and validated on {there}"
        )
    held_out = np.asarray(said["validation_indices"], dtype=np.int64)
    inside = np.zeros(count, dtype=np.bool_)
    inside[held_out] = True
    division = Division(train=np.flatnonzero(~inside), validation=held_out)
    if division.digest() != said["split_sha256"]:
        raise RunDirectoryError(f"{record.path}/run.json is damaged: split_sha256 does not fit validation_indices")
    return division


def _mapping(record: RunRecord, key: str) -> Mapping[str, Any]:
    found = record.run.get(key)
    if not isinstance(found, dict):
        raise RunDirectoryError(f"{record.path}/run.json is damaged: it says nothing of its {key}")
    return cast("Mapping[str, Any]", found)
