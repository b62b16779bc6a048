"""The dataset of an experiment: found or fetched, checked, split, and replaced only where that was allowed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mnistlab.api import DataPlace, DatasetInfo, LabelledImages
from mnistlab.data import Division, images_digest, open_train, part_of, prepare_dataset, split_indices
from mnistlab.errors import DataUnavailableError
from mnistlab.experiment.earlier import compared, looked_at
from mnistlab.experiment.loader import DatasetChoice, Experiment
from mnistlab.experiment.portfolio import most_looks
from mnistlab.experiment.spec import DataSpec
from mnistlab.util.credentials import without_credentials
from mnistlab.util.seeds import split_seeds


@dataclass(frozen=True)
class Data:
    """The dataset that a run uses, found whole and split; `fallback` says why it is not the one asked for.

    `place` is where whoever loads it again has to look.
    """

    choice: DatasetChoice
    info: DatasetInfo
    images: LabelledImages  # the whole training part
    division: Division
    place: DataPlace
    fallback: str = ""


def find_data(experiment: Experiment, place: DataPlace) -> Data:
    """Find or fetch the experiment's dataset, check all of it and split its training part.

    The fallback is taken only where the dataset can be neither found nor fetched; data that is there but wrong is an
    error.

    Raises:
        DataError: if the data is wrong, or missing and there is no fallback.
    """
    choice, reason = experiment.dataset, ""
    try:
        info = prepare_dataset(choice.record, choice.config, place)
    except DataUnavailableError as error:
        if experiment.fallback is None:
            raise
        choice = experiment.fallback
        reason = without_credentials(str(error).splitlines()[0])  # the rest says where was looked
        info = prepare_dataset(choice.record, choice.config, place)
    spec = experiment.spec
    images = open_train(choice.record, choice.config, place)
    division = divided(spec.data, spec.seed, images, info, fallback=bool(reason))
    found = Data(choice, info, images, division, place, reason)
    if spec.confirm.top and spec.confirm.splits == "fresh" and spec.data.split == "writer":  # whose draws may fail
        for number in range(1, spec.confirm.seeds + 1):
            fresh_division(spec.data, spec.seed, found, number)
    return found


def fresh_division(data: DataSpec, seed: int, found: Data, number: int) -> Division:
    """Return the split that replicate `number` of a run draws for itself, whatever its plan.

    Raises:
        DataError: if a part of it would lack a class.
    """
    return divided(data, seed, found.images, found.info, number, fallback=bool(found.fallback))


def divided(
    data: DataSpec, seed: int, images: LabelledImages, info: DatasetInfo, number: int = 0, *, fallback: bool
) -> Division:
    """Return the split of the training images that a run has asked for: its own, or that of replicate `number`.

    Raises:
        DataError: if a part of it would lack a class, or there are too few images.
    """
    wished, (seed, seed_of_part) = _validation(data, info, fallback=fallback), split_seeds(seed, number)
    how = "stratified" if fallback else data.split
    division = split_indices(images.labels, images.groups, validation=wished, seed=seed, how=how)
    few = _train(data, len(division.train), fallback=fallback)
    return division if few is None else part_of(division, images.labels, train=few, seed=seed_of_part)


def _validation(data: DataSpec, info: DatasetInfo, *, fallback: bool) -> float:
    """Return the validation part asked for; a fallback dataset too small for that number gives the usual share."""
    wished = data.validation
    return DataSpec().validation if fallback and wished >= info.train_count / 2 else wished


def _train(data: DataSpec, there: int, *, fallback: bool) -> float | None:
    """Return the part to train on that is asked for; a fallback dataset too small for that number gives all."""
    wished = data.train
    return None if wished is not None and fallback and wished >= there / 2 else wished


def started_from(wanted: Experiment, data: Data) -> Experiment:
    """Return the experiment with what it takes from earlier runs, now that it is known on what it trains."""
    images, most = images_digest(data.images), most_looks(wanted.spec.search) - 1
    alike = compared(wanted.earlier, images, len(data.division.train), wanted.space.epochs)
    return replace(wanted, earlier=looked_at(wanted.space, alike, most))
