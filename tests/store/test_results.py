from __future__ import annotations

import json

import pytest

from mnistlab.store import results
from mnistlab.store.results import (
    PerImage,
    ReplicateResult,
    TestScore,
    TrialResult,
    replicate_from_json,
    trial_from_json,
)

EPOCHS = ({"val_accuracy": 0.5, "val_loss": 1.0}, {"val_accuracy": 0.75, "val_loss": 0.5})
PLAN = {"model": {"name": "cnn", "config": {"depth": 3}}, "transforms": [{"name": "shift"}]}


def through(result):
    return json.loads(json.dumps(results.to_json(result)))


@pytest.mark.parametrize("state", ["complete", "pruned", "interrupted", "failed"])
def test_a_trial_comes_back_from_json(state):
    trial = TrialResult(
        trial="0003", number=3, state=state, seed=9, plan=PLAN, label="cnn", history=EPOCHS, metrics=EPOCHS[-1],
        seconds=1.5, cause="nan", message="the loss is NaN",
    )  # fmt: skip
    assert trial_from_json(through(trial)) == trial
    assert trial_from_json(through(trial) | {"of a newer version": 1}) == trial


@pytest.mark.parametrize("test", [None, TestScore(correct=98, images=100, loss=0.1)])
def test_a_replicate_comes_back_from_json(test):
    replicate = ReplicateResult(
        trial="0003", replicate=2, seed=9, metrics=EPOCHS[-1], history=EPOCHS, val_correct="1101", test=test,
        test_correct="11", weights_sha256="ab", per_image=PerImage(sha256="cd", images=4, sd={"val_loss": 0.5}),
    )  # fmt: skip
    assert replicate_from_json(through(replicate)) == replicate
    assert replicate_from_json(through(replicate) | {"of a newer version": 1}) == replicate
    newer = through(replicate)
    newer["per_image"]["of a newer version"] = 1
    assert replicate_from_json(newer) == replicate


def test_a_result_of_before_values_were_kept_for_each_image_has_none():
    older = through(ReplicateResult(trial="0003", replicate=2, seed=9))
    del older["per_image"]
    assert replicate_from_json(older).per_image is None


@pytest.mark.parametrize("body", [5, {"sha256": "cd"}, {"sha256": "cd", "images": 4, "sd": {"val_loss": "much"}}])
def test_a_record_of_values_for_each_image_that_is_none_is_refused(body):
    with pytest.raises((TypeError, ValueError)):
        replicate_from_json(through(ReplicateResult(trial="0003", replicate=2, seed=9)) | {"per_image": body})


def test_the_accuracy_of_a_score():
    assert TestScore(correct=98, images=200, loss=0.1).accuracy == 0.49
