"""The data of a run, found again by what its record says of it, or refused in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from mnistlab.api import Config, DataPlace, Dataset, DatasetInfo, LabelledImages
from mnistlab.data import Division, images_digest, open_train, prepare_dataset
from mnistlab.errors import DamagedError, DataError, DataUnavailableError
from mnistlab.experiment.dataset import Data, fresh_division
from mnistlab.experiment.loader import DatasetChoice
from mnistlab.experiment.spec import DataSpec
from mnistlab.plugins.registry import Kind, Registry
from mnistlab.store.results import ReplicateResult, RunRecord, Split


def table_of(record: RunRecord, key: str) -> Mapping[str, Any]:
    """Return a table of a run's record.

    Raises:
        RunDirectoryError: if there is none under this key.
    """
    found = record.run.get(key)
    if not isinstance(found, dict):
        raise DamagedError(f"{record.path}/{record.file}", f"it says nothing of its {key}")
    return cast("Mapping[str, Any]", found)


def parts_of(plan: Mapping[str, Any]) -> Iterator[tuple[Kind, Mapping[str, Any]]]:
    """Yield everything in a plan that comes from a plugin."""
    yield "model", plan["model"]
    yield "optimizer", plan["optimizer"]
    for part in plan["transforms"]:
        yield "transform", part


def open_data(record: RunRecord, place: DataPlace, registry: Registry, one: ReplicateResult | None = None) -> Data:
    """Find or fetch the dataset of a run and split it as the run did, or replicate `one`; the test part stays sealed.

    Where `place` has not the files that the run had, they are looked for in the folder that the run has read.

    Raises:
        DataError: if it is missing, or is not the one that the run had; every difference is named.
        PluginError: if no plugin offers it here.
        RunDirectoryError: if the record contradicts itself.
    """
    said = table_of(record, "dataset")
    choice = _choice(record, said, registry)
    info, place = _located(choice, place, said)
    images = open_train(choice.record, choice.config, place)
    if faults := [*_faults(said, info, images)]:
        title = f"{record.path} was made with other data than is here ({info.source}):"
        raise DataError("\n".join([title, *faults]))
    found = Data(choice, info, images, _division(record, said), place, str(said.get("fallback", "")))
    return (
        found
        if one is None or one.split is None
        else replace(found, division=_own_division(record, found, one.split, one))
    )


def folder_of(source: str) -> Path | None:
    """Return the folder that a run says it has read its data from, where there is one of that name here."""
    path = Path(source.removesuffix(" (fetched)"))
    return path if path.is_absolute() and path.is_dir() else None


def _choice(record: RunRecord, said: Mapping[str, Any], registry: Registry) -> DatasetChoice:
    """Return the dataset that the run used, which may be the fallback, with the settings of its table `[data.NAME]`."""
    offer = registry.find("dataset", str(said["plugin"]))
    data = cast("Mapping[str, Any]", table_of(record, "experiment").get("data", {}))
    name = str(data.get("offline_fallback" if said.get("fallback") else "dataset"))
    if name.rpartition(":")[2] != offer.name:
        raise DataError(f"{record.path} used the dataset {offer.qualified}, which its own experiment does not name")
    dataset = cast("Dataset[Config]", offer.record)
    return DatasetChoice(offer, dataset.config.model_validate(data.get(name, {})))


def _located(choice: DatasetChoice, place: DataPlace, said: Mapping[str, Any]) -> tuple[DatasetInfo, DataPlace]:
    """Return the dataset and the place that has it: `place`, or the run's own folder where that alone has its files.

    Nothing is fetched before both were looked at.
    """
    source = str(said.get("source", ""))
    own = folder_of(source)
    missing = DataUnavailableError if place.data_dir else DataError  # wrong data are an error where they were named
    for one in (place, replace(place, data_dir=own)) if own else ():
        with suppress(missing):
            info = prepare_dataset(choice.record, choice.config, replace(one, offline=True))
            if place.data_dir or dict(info.sha256) == said.get("sha256"):
                return info, one
    return _prepared(choice, place, source), place


def _prepared(choice: DatasetChoice, place: DataPlace, source: str) -> DatasetInfo:
    try:
        return prepare_dataset(choice.record, choice.config, place)
    except DataError as error:
        kind = DataUnavailableError if isinstance(error, DataUnavailableError) else DataError
        raise kind(f"{error}\n  the run read it from: {source}") from None


def _faults(said: Mapping[str, Any], info: DatasetInfo, images: LabelledImages) -> Iterator[str]:
    then, now = cast("Mapping[str, str]", said["sha256"]), info.sha256
    for part in sorted(then.keys() | now.keys()):
        if then.get(part) != now.get(part):
            yield f"  {part}: sha256 {then.get(part, 'none')} then, {now.get(part, 'none')} now"
    whole = said["train"] + said["validation"] + said.get("left_out", 0)
    if (whole, said["test"]) != (len(images.labels), info.test_count):
        yield f"  {whole} + {said['test']} images then, {len(images.labels)} + {info.test_count} now"
    if said.get("images_sha256") not in (None, images_digest(images)):
        yield f"  training images and labels: sha256 {said['images_sha256']} then, {images_digest(images)} now"


def _own_division(record: RunRecord, found: Data, split: Split, one: ReplicateResult) -> Division:
    """Return the split that a replicate has drawn for itself, drawn again.

    Raises:
        DataError: if a library draws otherwise by now.
    """
    table = {key: value for key, value in table_of(record, "experiment")["data"].items() if value is not None}
    drawn = fresh_division(DataSpec.model_validate(table), int(record.run["seed"]), found, one.replicate)
    if drawn.digest() != split.sha256:
        which = f"trial {one.trial}, replicate {one.replicate}"
        raise DataError(f"{record.path}: the split of {which} can't be drawn again: a library draws otherwise by now")
    return drawn


def _division(record: RunRecord, said: Mapping[str, Any]) -> Division:
    """Return the split as it was written down: drawing it anew would trust that a library still draws alike."""
    validation = np.array(said["validation_indices"], dtype=np.int64)
    others = np.setdiff1d(np.arange(said["train"] + said["validation"], dtype=np.int64), validation)
    train = np.array(said["train_indices"], dtype=np.int64) if "train_indices" in said else others
    division = Division(train=train, validation=validation, left_out=said.get("left_out", 0))
    if division.digest() != said["split_sha256"] or len(train) != said["train"]:
        why = "its split is not the one that its sha256 stands for (split_sha256)"
        raise DamagedError(f"{record.path}/{record.file}", why)
    return division
