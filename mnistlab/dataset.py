"""The dataset of an experiment: found or fetched, checked, split, and replaced only where that was allowed."""

from __future__ import annotations

from dataclasses import dataclass

from mnistlab.api import DataPlace, DatasetInfo, LabelledImages
from mnistlab.credentials import without_credentials
from mnistlab.data import Division, open_train, part_of, prepare_dataset, split_indices
from mnistlab.errors import DataUnavailableError
from mnistlab.experiment import DatasetChoice, Experiment
from mnistlab.seeds import Stream, derive
from mnistlab.spec import DataSpec, ExperimentSpec


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
    wished = _validation(spec, info, fallback=bool(reason))
    how = "stratified" if reason else spec.data.split
    seed = derive(spec.seed, Stream.SPLIT)
    division = split_indices(images.labels, images.groups, validation=wished, seed=seed, how=how)
    few = _train(spec, len(division.train), fallback=bool(reason))
    if few is not None:
        division = part_of(division, images.labels, train=few, seed=derive(spec.seed, Stream.PART))
    return Data(choice, info, images, division, place, reason)


def _validation(spec: ExperimentSpec, info: DatasetInfo, *, fallback: bool) -> float:
    """Return the validation part asked for; a fallback dataset too small for that number gives the usual share."""
    wished = spec.data.validation
    return DataSpec().validation if fallback and wished >= info.train_count / 2 else wished


def _train(spec: ExperimentSpec, there: int, *, fallback: bool) -> float | None:
    """Return the part to train on that is asked for; a fallback dataset too small for that number gives all."""
    wished = spec.data.train
    return None if wished is not None and fallback and wished >= there / 2 else wished
