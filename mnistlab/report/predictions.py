"""What the confirmed models say of the validation images, asked again with the weights that a run keeps.

The test set is not opened here: whoever reads a report would otherwise choose by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from mnistlab import training, weights
from mnistlab.api import Config, DataPlace, Dataset, DatasetInfo, LabelledImages
from mnistlab.data import Division, open_train, prepare_dataset
from mnistlab.data.device import DeviceData, to_device
from mnistlab.discovery import Selection
from mnistlab.errors import DataError, RunDirectoryError
from mnistlab.leaderboard import Leaderboard
from mnistlab.registry import Registry, select
from mnistlab.report.digits import Evaluated, Votes
from mnistlab.results import ReplicateResult, RunRecord

MODELS = 5  # seeds of the champion that are asked: more would say little more, and each costs a second or two
THREADS = 2


@dataclass(frozen=True)
class _Images:
    """A run's dataset, found again and split as the run split it."""

    info: DatasetInfo
    whole: LabelledImages
    division: Division


def evaluated(record: RunRecord, board: Leaderboard, plugins: Selection, place: DataPlace) -> Evaluated | str:
    """Return the champion's predictions on the validation images, or in words why there are none.

    Of `plugins` only those are loaded that the champion's plan and the dataset need.
    """
    if board.champion is None or board.champion.state != "confirmed":
        return "No plan of this run was confirmed, so no trained model was kept that could be asked."
    mine = [r for r in record.replicates if r.trial == board.champion.trial and not r.cause]
    kept = [(one, path) for one in mine if (path := _weights(record, one)).is_file()]
    if not kept:
        return f"The weights of trial {board.champion.trial} are no longer in the run directory."
    try:
        registry = select(plugins.only(_needed(record, kept[0][0])))
        images = _find(record, registry, place)
        return _ask(record, board, kept[:MODELS], images, registry)
    except (Exception, SystemExit) as error:  # a plugin may raise anything, and a report is due all the same
        return f"The models could not be asked again here: {str(error).strip() or type(error).__name__}"


def _needed(record: RunRecord, one: ReplicateResult) -> list[str]:
    """Return the distributions without which the model can't be built or asked."""
    plan = _plan(record, one)
    parts = [plan["model"], plan["optimizer"], *plan["transforms"], record.run["dataset"]]
    return [str(part["plugin"]).partition(":")[0] for part in parts]


def _plan(record: RunRecord, one: ReplicateResult) -> Mapping[str, Any]:
    return next(trial.plan for trial in record.trials if trial.trial == one.trial)


def _weights(record: RunRecord, one: ReplicateResult) -> Path:
    return Path(record.path) / "trials" / one.trial / "replicates" / str(one.replicate) / "weights.safetensors"


# --- the images ---------------------------------------------------------------------------------------------------


def _find(record: RunRecord, registry: Registry, place: DataPlace) -> _Images:
    """Find the run's images on this machine, without the network.

    Raises:
        DataError: if they are not here, or not the run's.
        PluginError: if the plugin that offers them is not installed.
    """
    about = record.run["dataset"]
    dataset = cast("Dataset[Config]", registry.find("dataset", str(about["plugin"])).record)
    config = dataset.config.model_validate(record.run["experiment"]["data"].get(about["name"], {}))
    here = DataPlace(data_dir=place.data_dir or _folder(str(about["source"])), cache=place.cache, offline=True)
    info = prepare_dataset(dataset, config, here)
    if dict(info.sha256) != dict(about["sha256"]):
        raise DataError(f"dataset '{about['name']}' on this machine is not the run's (sha256)")
    whole = open_train(dataset, config, here)
    return _Images(info, whole, _division(about, len(whole.labels)))


def _folder(source: str) -> Path | None:
    """Return the folder that a run says it read, where there is one of that name here."""
    path = Path(source.removesuffix(" (fetched)"))
    return path if path.is_absolute() and path.is_dir() else None


def _division(about: Mapping[str, Any], count: int) -> Division:
    validation = np.array(about["validation_indices"], dtype=np.int64)
    inside = np.zeros(count, dtype=np.bool_)
    inside[validation] = True
    division = Division(train=np.flatnonzero(~inside), validation=np.flatnonzero(inside))
    if division.digest() != about["split_sha256"]:
        raise DataError("the split in run.json is damaged (sha256)")
    return division


# --- the models ---------------------------------------------------------------------------------------------------


def _ask(
    record: RunRecord,
    board: Leaderboard,
    kept: Sequence[tuple[ReplicateResult, Path]],
    images: _Images,
    registry: Registry,
) -> Evaluated:
    """Return what the models of `kept`, all of one plan, say of the validation images."""
    device = training.set_up_process(THREADS, gpu=False)
    data = to_device(images.whole, images.division, images.info.shape, device)
    plan = _plan(record, kept[0][0])
    said = np.stack([_probabilities(plan, one, path, data, registry) for one, path in kept])
    indices = images.division.validation
    labels = images.whole.labels[indices]
    recorded = [one.val_correct for one, _ in kept]
    return Evaluated(
        trial=kept[0][0].trial,
        classes=tuple(images.info.class_names),
        indices=indices,
        images=images.whole.images[indices],
        labels=labels,
        probabilities=said,
        agreement=_agreement(said.argmax(2) == labels, recorded),
        votes=_votes(record, board, len(labels)),
    )


def _probabilities(plan: Any, one: ReplicateResult, path: Path, data: DeviceData, registry: Registry) -> Any:
    """Return float32 (images, classes): a model's probabilities for the validation images."""
    kept = path.read_bytes()
    if hashlib.sha256(kept).hexdigest() != one.weights_sha256:
        raise RunDirectoryError(f"{path} is damaged: its sha256 is not the one in result.json")
    model = training.begin(plan, one.seed, data, registry)
    weights.load_weights(model.module, kept)
    with torch.inference_mode():
        logits = torch.cat([part.logits for part in training.predict(model, data.validation_images)])
        return logits.double().softmax(1).float().cpu().numpy()


def _agreement(right: Any, recorded: Sequence[str]) -> float:
    """Return the share of outcomes that are the ones the run recorded: other hardware rounds otherwise."""
    pairs = [(row, _bits(text)) for row, text in zip(right, recorded, strict=True) if len(text) == len(row)]
    return float(np.mean([row == bits for row, bits in pairs])) if pairs else float("nan")


def _votes(record: RunRecord, board: Leaderboard, count: int) -> Votes:
    """Return how many of all confirmed models got each image wrong, by the run's own record."""
    ranked = {row.trial for row in board.rows}
    texts = [r.val_correct for r in record.replicates if r.trial in ranked and len(r.val_correct) == count]
    wrong = sum((~_bits(text) for text in texts), np.zeros(count, dtype=np.int64))
    return Votes(wrong=np.asarray(wrong, dtype=np.int64), models=len(texts))


def _bits(text: str) -> Any:
    return np.frombuffer(text.encode("ascii"), dtype=np.uint8) == ord("1")
