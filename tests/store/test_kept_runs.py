"""A run of each format is kept for good, cut off in the middle: every later version reads all of it, states too."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mnistlab.api import ImageShape, LabelledImages
from mnistlab.data import Division
from mnistlab.data.device import DeviceData, to_device
from mnistlab.plugins.registry import Registry
from mnistlab.store import read_events, read_run, read_weights
from mnistlab.store.checkpoints import newest_checkpoint
from mnistlab.store.fsck import check
from mnistlab.training import loop
from mnistlab.training.weights import unpack
from mnistlab.tuning.history import past_of

KEPT = sorted((Path(__file__).parents[1] / "assets").glob("run-of-format-*-cut-off"))
SHAPE = ImageShape(1, 8, 8, 2)  # of the images that they were trained on: a class for each half that may be bright
COUNT = 64


@pytest.fixture(params=KEPT, ids=lambda path: path.name)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / "run"))


def test_there_is_one_at_least() -> None:
    assert KEPT


def test_it_is_sound_and_amended_with_one_trial_done_and_one_that_goes_on(kept: Path) -> None:
    assert check(kept).findings == ()
    record, past = read_run(kept), past_of(read_events(kept))
    assert (record.number, record.test_openings) == (2, 1)
    assert [(one.trial, one.state) for one in record.trials] == [("0000", "complete")]
    assert [one.name for one in past.unended] == ["0001"]
    (replicate,) = record.replicates
    assert replicate.test is not None
    assert hashlib.sha256(read_weights(record.path, replicate)).hexdigest() == replicate.weights_sha256


def test_its_trial_goes_on_from_its_checkpoint(kept: Path, builtins: Registry) -> None:
    (one,) = past_of(read_events(kept)).unended
    found = newest_checkpoint(kept, one.name, max(one.history))
    assert found is not None
    epoch, state = found
    resumed = loop.begin(one.plan, one.seed, bright_halves(), builtins)
    loop.restore(resumed, unpack(state))
    assert resumed.epoch == epoch == 19
    assert resumed.history == [one.history[number] for number in range(1, epoch + 1)]
    metrics = loop.run_epoch(resumed)
    assert metrics["val_accuracy"] > 0.9  # what it had learnt is there


def bright_halves() -> DeviceData:
    rng = np.random.default_rng(1)
    labels = np.arange(COUNT) % 2
    images = rng.integers(0, 120, (COUNT, 1, 8, 8), dtype=np.uint8)
    images[labels == 1, :, :, :4] += 100
    images[labels == 0, :, :, 4:] += 100
    division = Division(train=np.arange(32), validation=np.arange(32, COUNT))
    return to_device(LabelledImages(images=images, labels=labels), division, SHAPE, torch.device("cpu"))
