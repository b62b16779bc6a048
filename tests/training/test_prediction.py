"""A model whose answer does not fit the dataset is refused with both numbers, before a loss is taken of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mnistlab.api import Batch, Config, ImageShape, Model, Prediction
from mnistlab.errors import PluginError
from mnistlab.training.causes import cause_of
from mnistlab.training.prediction import cross_entropy, cross_entropy_over, probe, require_logits, require_prediction

SHAPE = ImageShape(1, 2, 3, 10)
BATCH = Batch(images=torch.rand(4, 1, 2, 3), labels=torch.tensor([0, 3, 9, 9]), label_smoothing=0.1, train_count=4)


class Nothing(Config):
    pass


def net(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(SHAPE.pixels, outputs))


def model(outputs: int, **changes: Any) -> Model[Nothing]:
    return Model(name="net", config=Nothing, build=lambda config, shape: net(outputs), summary="A net.", **changes)


@pytest.mark.parametrize("outputs", [7, 12])
def test_too_few_and_too_many_logits_are_refused(outputs: int) -> None:
    with pytest.raises(PluginError) as caught:
        cross_entropy_over(10)(net(outputs), BATCH)
    said = f"the model gives (N, {outputs}), but the dataset has 10 classes: its logits must be (N, 10)"
    assert str(caught.value) == said
    assert cause_of(caught.value) == "plugin"


def test_a_model_that_fits_has_the_plain_loss() -> None:
    module = net(10)
    assert torch.equal(cross_entropy_over(10)(module, BATCH), cross_entropy(module, BATCH))


@pytest.mark.parametrize(
    ("logits", "gives"),
    [
        (torch.zeros(4, 10, 1, 1), "(N, 10, 1, 1)"),
        (torch.zeros(2, 10), "(2, 10)"),
        (torch.zeros(10), "(10)"),
        ((torch.zeros(4, 10), None), "a tuple"),
    ],
)
def test_what_is_not_a_logit_for_each_image_and_class_is_described(logits: object, gives: str) -> None:
    with pytest.raises(PluginError) as caught:
        require_logits(logits, 4, 10)
    assert str(caught.value).startswith(f"the model gives {gives}, but the dataset has 10 classes")


@pytest.mark.parametrize(
    ("measures", "said"),
    [
        ({"doubt": "high"}, "the model's measure 'doubt' is a str, but must be a tensor of N floats"),
        ({"doubt": 0.5}, "the model's measure 'doubt' is a float, but must be a tensor of N floats"),
        ({"fine": torch.zeros(4), "doubt": torch.zeros(4, 2)}, "'doubt' is torch.float32 (N, 2), but must be"),
        ({"doubt": torch.zeros(4, dtype=torch.int64)}, "'doubt' is torch.int64 (N), but must be a tensor of N floats"),
        ({"loss": torch.zeros(4)}, "the model measures 'loss', but val_loss is the training's own: name it otherwise"),
    ],
)
def test_what_can_not_be_averaged_is_no_measure(measures: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError) as caught:
        require_prediction(Prediction(logits=torch.zeros(4, 10), measures=measures), 4, 10)
    assert said in str(caught.value)


def test_what_is_no_prediction_is_refused() -> None:
    with pytest.raises(PluginError, match="predict gives a Tensor, but must give a Prediction"):
        require_prediction(torch.zeros(4, 10), 4, 10)


def test_a_probe_asks_as_an_evaluation_would() -> None:
    asked: list[tuple[torch.Size, bool]] = []

    def predict(module: nn.Module, images: torch.Tensor) -> Prediction:
        asked.append((images.shape, module.training))
        return Prediction(logits=module(images)[:, :10])

    probe(model(10), Nothing(), SHAPE)
    probe(model(12, predict=predict), Nothing(), SHAPE)
    assert asked == [((2, 1, 2, 3), False)]
    with pytest.raises(PluginError, match=r"gives \(N, 12\), but the dataset has 10 classes"):
        probe(model(12), Nothing(), SHAPE)
