"""A model trained here, its weights in a run directory, asked again as a report does."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mnistlab.api import DataPlace
from mnistlab.data import loading, open_train, prepare_dataset
from mnistlab.data.device import to_device
from mnistlab.data.splits import split_indices
from mnistlab.leaderboard import rank
from mnistlab.plugins.discovery import Selection
from mnistlab.plugins.registry import installed
from mnistlab.report.predictions import evaluated
from mnistlab.store.results import RunRecord
from mnistlab.training import loop, weights
from tests.report.runs import record, trial

PLUGINS = Selection(only_built_in=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> DataPlace:
    return DataPlace(data_dir=None, cache=tmp_path_factory.mktemp("cache"), offline=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, place: DataPlace) -> RunRecord:
    """A run with one trial, confirmed on two seeds, on the digits of scikit-learn."""
    registry = installed()
    offer = registry.find("dataset", "digits")
    info = prepare_dataset(offer.record, offer.record.config(), place)
    images = open_train(offer.record, offer.record.config(), place)
    division = split_indices(images.labels, None, validation=300, seed=1)
    data = to_device(images, division, info.shape, loop.set_up_process(1, gpu=False))
    of = record(count=1)
    settings = {"epochs": 2, "batch_size": 64, "label_smoothing": 0.0, "precision": "fp32"}
    plan = {
        "model": part("model", "mlp"),
        "optimizer": part("optimizer", "adamw"),
        "transforms": [],
        "training": settings,
    }
    path = tmp_path_factory.mktemp("run")
    replicates = []
    for one in of.replicates[:2]:
        done = loop.train(plan, one.seed, data, registry)
        found = loop.evaluate(done, data.validation_images, data.validation_labels)
        folder = path / "trials" / one.trial / "replicates" / str(one.replicate)
        folder.mkdir(parents=True)
        packed = weights.pack_weights(done.module)
        (folder / "weights.safetensors").write_bytes(packed)
        outcomes = "".join("01"[int(right)] for right in found.correct)
        sha256 = hashlib.sha256(packed).hexdigest()
        replicates.append(replace(one, val_correct=outcomes, metrics=done.history[-1], weights_sha256=sha256))
    about = {**of.run["dataset"], "sha256": dict(info.sha256), "split_sha256": division.digest()}
    about |= {"validation_indices": division.validation.tolist(), "test": info.test_count}
    about |= {"train": len(division.train), "validation": len(division.validation)}
    run = {**of.run, "dataset": about, "experiment": {"data": {"dataset": "digits"}, "confirm": {"seeds": 2}}}
    return RunRecord(
        path=str(path), run=run, trials=(trial(0, 0.9, plan=plan),), replicates=tuple(replicates), test_openings=1
    )


def part(kind: Any, name: str) -> dict[str, Any]:
    offer = installed().find(kind, name)
    config = json.loads(offer.record.config().model_dump_json())
    return {"name": name, "plugin": offer.qualified, "version": offer.version, "config": config}


def test_asking_them_changes_nothing_in_the_process_of_a_notebook(made: RunRecord, place: DataPlace) -> None:
    def state() -> list[object]:
        denormal = torch.tensor(1e-310, dtype=torch.float64) * 1
        return [torch.get_num_threads(), denormal.item(), torch.rand(1).item(), random.random(), np.random.rand()]

    def seed() -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(False)
        torch.manual_seed(5)
        random.seed(5)
        np.random.seed(5)

    seed()
    before = state()
    seed()
    assert not isinstance(evaluated(made, rank(made), PLUGINS, place), str)
    assert state() == before


def test_the_models_say_again_what_the_run_recorded(made: RunRecord, place: DataPlace) -> None:
    found = evaluated(made, rank(made), PLUGINS, place)
    assert not isinstance(found, str), found
    assert found.probabilities.shape == (2, 300, 10)
    assert found.probabilities.sum(2) == pytest.approx(np.ones((2, 300)), abs=1e-5)
    assert found.agreement == 1.0
    recorded = sum(np.array([int(bit) for bit in one.val_correct]) for one in made.replicates)
    assert (found.votes.wrong == 2 - recorded).all()
    assert found.indices.tolist() == made.run["dataset"]["validation_indices"]
    assert found.images.shape == (300, 1, 28, 28)


def test_the_test_set_stays_shut(made: RunRecord, place: DataPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    splits: list[str] = []
    real = loading._load

    def watched(dataset: Any, config: Any, where: DataPlace, split: Any) -> Any:
        splits.append(split)
        return real(dataset, config, where, split)

    monkeypatch.setattr(loading, "_load", watched)
    assert not isinstance(evaluated(made, rank(made), PLUGINS, place), str)
    assert splits == ["train"]


def test_weights_that_are_not_the_run_s_are_not_asked(made: RunRecord, place: DataPlace) -> None:
    other = replace(made, replicates=tuple(replace(one, weights_sha256="0" * 64) for one in made.replicates))
    said = evaluated(other, rank(other), PLUGINS, place)
    assert isinstance(said, str)
    assert "is damaged" in said


def test_nothing_is_left_in_the_run_directory(made: RunRecord, place: DataPlace) -> None:
    before = sorted(path for path in Path(made.path).rglob("*"))
    evaluated(made, rank(made), PLUGINS, place)
    assert sorted(path for path in Path(made.path).rglob("*")) == before


def test_a_run_that_confirmed_nothing_says_so(made: RunRecord, place: DataPlace) -> None:
    plain = replace(made, replicates=())
    assert "No plan of this run was confirmed" in str(evaluated(plain, rank(plain), PLUGINS, place))


def test_weights_that_are_gone_are_said_to_be(made: RunRecord, place: DataPlace, tmp_path: Path) -> None:
    moved = replace(made, path=str(tmp_path))
    assert "no longer in the run directory" in str(evaluated(moved, rank(moved), PLUGINS, place))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": {"digits": "0" * 64}}, "was made with other data than is here"),
        ({"split_sha256": "0" * 64}, "its split is not the one that its sha256 stands for"),
        ({"plugin": "mnistlab-nowhere:letters"}, "letters"),
    ],
)
def test_other_data_is_refused_in_words(made: RunRecord, place: DataPlace, change: Any, said: str) -> None:
    other = replace(made, run={**made.run, "dataset": {**made.run["dataset"], **change}})
    assert said in str(evaluated(other, rank(other), PLUGINS, place))
