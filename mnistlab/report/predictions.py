"""What the confirmed models say of the validation images, asked again with the weights that a run keeps.

The test set is not opened here: whoever reads a report would otherwise choose by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mnistlab.api import DataPlace
from mnistlab.data.device import DeviceData, to_device
from mnistlab.experiment.dataset import Data
from mnistlab.experiment.recorded import open_data, parts_of
from mnistlab.leaderboard import Leaderboard
from mnistlab.plugins.discovery import Selection
from mnistlab.plugins.registry import Registry, select
from mnistlab.report.evaluation import Evaluated, Votes
from mnistlab.report.redact import places_of, without_folders
from mnistlab.store import read_weights, weights_path
from mnistlab.store.results import ReplicateResult, RunRecord, Split
from mnistlab.training import loop, weights
from mnistlab.training.precision import process_restored

MODELS = 5  # seeds of the champion that are asked: more would say little more, and each costs a second or two
THREADS = 2


def evaluated(record: RunRecord, board: Leaderboard, plugins: Selection, place: DataPlace) -> Evaluated | str:
    """Return the champion's predictions on the validation images, or in words why there are none.

    Of `plugins` only those are loaded that the champion's plan and the dataset need.
    """
    if board.champion is None or board.champion.state != "confirmed":
        return "No plan of this run was confirmed, so no trained model was kept that could be asked."
    mine = [r for r in record.replicates if r.trial == board.champion.trial and not r.cause]
    kept = [one for one in mine if weights_path(record.path, one).is_file()]
    if not kept:
        return f"The weights of trial {board.champion.trial} are no longer in the run directory."
    try:
        registry = select(plugins.only(_needed(record, kept[0])))
        images = open_data(record, replace(place, offline=True), registry, kept[0])  # a report fetches nothing
        alike = [one for one in kept if one.split == kept[0].split]  # the same images: one seed, if each drew its own
        with process_restored():  # whoever calls `mnistlab.search` trains on in this process
            return _ask(record, board, alike[:MODELS], images, registry)
    except (Exception, SystemExit) as error:  # a plugin may raise anything, and a report is due all the same
        said = without_folders(str(error).strip(), [*filter(None, (place.data_dir, place.cache)), *places_of(record)])
        return f"The models could not be asked again here: {said or type(error).__name__}"


def _needed(record: RunRecord, one: ReplicateResult) -> list[str]:
    """Return the distributions without which the model can't be built or asked."""
    parts = [*(part for _, part in parts_of(_plan(record, one))), record.run["dataset"]]
    return [str(part["plugin"]).partition(":")[0] for part in parts]


def _plan(record: RunRecord, one: ReplicateResult) -> Mapping[str, Any]:
    return next(trial.plan for trial in record.plans if trial.trial == one.trial)


# --- the models ---------------------------------------------------------------------------------------------------


def _ask(
    record: RunRecord,
    board: Leaderboard,
    kept: Sequence[ReplicateResult],
    images: Data,
    registry: Registry,
) -> Evaluated:
    """Return what the models of `kept`, all of one plan, say of the validation images."""
    device = loop.set_up_process(THREADS, gpu=False)
    data = to_device(images.images, images.division, images.info.shape, device)
    said = np.stack([_probabilities(record, one, data, registry) for one in kept])
    indices = images.division.validation
    labels = images.images.labels[indices]
    recorded = [one.val_correct for one in kept]
    return Evaluated(
        trial=kept[0].trial,
        classes=tuple(images.info.class_names),
        indices=indices,
        images=images.images.images[indices],
        labels=labels,
        probabilities=said,
        agreement=_agreement(said.argmax(2) == labels, recorded),
        votes=_votes(record, board, len(labels), kept[0].split),
    )


def _probabilities(record: RunRecord, one: ReplicateResult, data: DeviceData, registry: Registry) -> Any:
    """Return float32 (images, classes): a model's probabilities for the validation images."""
    model = loop.begin(_plan(record, one), one.seed, data, registry)
    weights.load_weights(model.module, read_weights(record.path, one))
    with torch.inference_mode():
        logits = torch.cat([part.logits for part in loop.predict(model, data.validation_images)])
        return logits.double().softmax(1).float().cpu().numpy()


def _agreement(right: Any, recorded: Sequence[str]) -> float:
    """Return the share of outcomes that are the ones the run recorded: other hardware rounds otherwise."""
    pairs = [(row, _bits(text)) for row, text in zip(right, recorded, strict=True) if len(text) == len(row)]
    return float(np.mean([row == bits for row, bits in pairs])) if pairs else float("nan")


def _votes(record: RunRecord, board: Leaderboard, count: int, split: Split | None) -> Votes:
    """Return how many of all confirmed models of that split got each image wrong, by the run's own record."""
    ranked = {row.trial for row in board.rows}
    mine = [r for r in record.replicates if r.trial in ranked and r.split == split]
    texts = [r.val_correct for r in mine if len(r.val_correct) == count]
    wrong = sum((~_bits(text) for text in texts), np.zeros(count, dtype=np.int64))
    return Votes(wrong=np.asarray(wrong, dtype=np.int64), models=len(texts))


def _bits(text: str) -> Any:
    return np.frombuffer(text.encode("ascii"), dtype=np.uint8) == ord("1")
