"""The contract of models."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from mnistlab.api import Batch, Config, ImageShape, Model, Prediction
from mnistlab.plugins.registry import Offer
from mnistlab.testing.base import Contract
from mnistlab.testing.traces import at, undisturbed
from mnistlab.training.precision import autocast
from mnistlab.training.prediction import OWN_METRICS, cross_entropy, point_prediction

TRAIN_COUNT = 1000
STEPS = 30
CPU = torch.device("cpu")


def build(offer: Offer, config: Config, shape: ImageShape, seed: int = 0) -> nn.Module:
    """Build a model as the training does: seeded, then channels_last."""
    torch.manual_seed(seed)
    with at(f"{offer.name} at {config!r} for {shape}"):
        module = cast("Model[Config]", offer.record).build(config, shape)
    assert isinstance(module, nn.Module), f"{offer.name}: build returned {type(module).__name__}, not a torch module"
    return module.to(memory_format=torch.channels_last)


def images(shape: ImageShape, count: int, seed: int = 1) -> Tensor:
    """Return standardised noise, float32 (count, C, H, W), channels_last as the training feeds it."""
    drawn = torch.randn(count, shape.channels, shape.height, shape.width, generator=torch.Generator().manual_seed(seed))
    return drawn.contiguous(memory_format=torch.channels_last)


def batch(shape: ImageShape, count: int) -> Batch:
    """Return images with labels of every class in turn."""
    labels = torch.arange(count) % shape.classes
    return Batch(images=images(shape, count), labels=labels, label_smoothing=0.0, train_count=TRAIN_COUNT)


def prediction(offer: Offer, module: nn.Module, pixels: Tensor) -> Prediction:
    """Ask the model in evaluation mode, with random draws seeded as the training seeds them."""
    predict = cast("Model[Config]", offer.record).predict or point_prediction
    module.eval()
    torch.manual_seed(2)
    with torch.inference_mode():
        found = predict(module, pixels)
    assert isinstance(found, Prediction), f"{offer.name}: predict must return a Prediction, not {type(found).__name__}"  # pyright: ignore[reportUnnecessaryIsInstance] - a stranger's code
    return found


def logits(offer: Offer, module: nn.Module, pixels: Tensor) -> Tensor:
    """Return the logits of the model's prediction."""
    return prediction(offer, module, pixels).logits


def loss(offer: Offer, module: nn.Module, some: Batch) -> Tensor:
    """Return the model's loss in training mode."""
    module.train()
    return (cast("Model[Config]", offer.record).loss or cross_entropy)(module, some)


class ModelContract(Contract):
    """What every model must keep. Each test that takes `model` runs once for each model of the plugin."""

    def warmed(self, model: Offer, seed: int = 0) -> nn.Module:
        """Return the model of all defaults after one batch, so that batch norm has statistics of its own."""
        module = build(model, self.point(model), self.shapes[0], seed)
        with torch.no_grad():
            loss(model, module, batch(self.shapes[0], 16))
        return module

    def test_model_builds_everywhere_in_its_domain(self, model: Offer) -> None:
        """Build at the defaults, at every corner and in between, for every shape, and classify two images."""
        for config in self.points(model):
            for shape in self.shapes:
                where = f"{model.name} at {config!r} for {shape}"
                with at(where):
                    found = prediction(model, build(model, config, shape), images(shape, 2))
                check_prediction(found, 2, shape, where)

    @pytest.mark.parametrize("count", [1, 7, 64])
    def test_model_takes_any_number_of_images(self, model: Offer, count: int) -> None:
        """Classify 1, 7 and 64 images: float32 (N, classes), all finite."""
        for shape in self.shapes:
            module, where = build(model, self.point(model), shape), f"{model.name} for {shape}"
            with at(f"{where} and {count} images"):
                found = prediction(model, module, images(shape, count))
            check_prediction(found, count, shape, where)

    def test_model_judges_each_image_by_itself(self, model: Offer) -> None:
        """In evaluation mode, a row does not depend on the other rows of its batch."""
        module, pixels = self.warmed(model), images(self.shapes[0], 5)
        together = logits(model, module, pixels)
        alone = torch.cat([logits(model, module, row[None]) for row in pixels])
        worst = float((together - alone).abs().max())
        assert torch.allclose(together, alone, rtol=1e-3, atol=1e-4), (
            f"{model.name}: in evaluation mode an image's logits change by up to {worst:.3g} with the rest of its batch"
        )

    def test_model_leaves_its_input_alone(self, model: Offer) -> None:
        """Neither training nor evaluation writes into the images."""
        module, some = self.warmed(model), batch(self.shapes[0], 4)
        before = some.images.clone()
        loss(model, module, some)
        logits(model, module, some.images)
        assert torch.equal(before, some.images), f"{model.name} changes the images that it is given"

    def test_model_uses_every_parameter(self, model: Offer) -> None:
        """Every trainable parameter gets a finite gradient."""
        module = build(model, self.point(model), self.shapes[0])
        loss(model, module, batch(self.shapes[0], 16)).backward()
        trained = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
        assert trained, f"{model.name} has no trainable parameter"
        unused = [name for name, grad in trained.items() if grad is None]
        assert not unused, f"{model.name}: these parameters get no gradient: {', '.join(unused)}"
        wild = [name for name, grad in trained.items() if grad is not None and not grad.isfinite().all()]
        assert not wild, f"{model.name}: these parameters get a gradient that is not finite: {', '.join(wild)}"

    def test_model_learns(self, model: Offer) -> None:
        """A few steps of Adam on one batch lower the loss."""
        module, some = build(model, self.point(model), self.shapes[0]), batch(self.shapes[0], 32)
        optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 2e-3)
        losses: list[float] = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            value = loss(model, module, some)
            assert value.ndim == 0, f"{model.name}: its loss must be a scalar, but its shape is {tuple(value.shape)}"
            value.backward()
            optimizer.step()
            losses.append(float(value.detach()))
        first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
        assert last < first, f"{model.name}: {STEPS} steps on one batch took its loss from {first:.4g} to {last:.4g}"

    def test_model_starts_from_its_seed(self, model: Offer) -> None:
        """The same seed gives the same weights, and another seed is not overruled."""
        one, same, other = (build(model, self.point(model), self.shapes[0], seed).state_dict() for seed in (5, 5, 6))
        different = [name for name, value in one.items() if not torch.equal(value, same[name])]
        assert not different, f"{model.name}: the same seed gives other weights in {', '.join(different)}"
        floats = [name for name, value in one.items() if value.is_floating_point()]
        assert any(not torch.equal(one[name], other[name]) for name in floats), (
            f"{model.name}: seeds 5 and 6 give the same weights; does build() seed a generator itself?"
        )

    def test_model_draws_from_torch_only(self, model: Offer) -> None:
        """Building leaves the generators of Python and numpy alone; those of torch it may use."""
        config, state = self.point(model), torch.get_rng_state()
        with undisturbed(f"building {model.name}"):
            build(model, config, self.shapes[0])
            torch.set_rng_state(state)

    def test_model_works_in_bfloat16(self, model: Offer) -> None:
        """Under `torch.autocast`, as the training uses it where the hardware gains, loss and gradients are finite."""
        module, some = build(model, self.point(model), self.shapes[0]), batch(self.shapes[0], 16)
        with at(f"{model.name} inside torch.autocast(bfloat16)"):
            with autocast(CPU, bf16=True):
                value = loss(model, module, some)
            value.backward()
            with autocast(CPU, bf16=True):
                found = logits(model, module, some.images)
        wild = [name for name, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        assert value.isfinite(), f"{model.name}: in bfloat16 its loss is {float(value.detach())}"
        assert not wild, f"{model.name}: in bfloat16 these parameters get no finite gradient: {', '.join(wild)}"
        assert found.isfinite().all(), f"{model.name}: in bfloat16 its logits are not finite"

    def test_model_state_survives_a_round_trip(self, model: Offer) -> None:
        """Weights that are loaded into a fresh model classify as the old one did."""
        first, second = self.warmed(model, 1), build(model, self.point(model), self.shapes[0], 2)
        second.load_state_dict(first.state_dict())
        pixels = images(self.shapes[0], 4)
        assert torch.equal(logits(model, first, pixels), logits(model, second, pixels)), (
            f"{model.name}: a fresh model with the state_dict of another answers differently; is a tensor no buffer?"
        )


def check_prediction(found: Prediction, count: int, shape: ImageShape, where: str) -> None:
    """Fail unless the logits are as they must be, and every measure is a number for each image."""
    check_logits(found.logits, count, shape, where)
    for name, values in found.measures.items():
        assert name not in OWN_METRICS, f"{where}: measure '{name}' would hide the training's own val_{name}"
        form = f"{where}: measure '{name}' must be finite floats of shape {(count,)}"
        assert tuple(values.shape) == (count,), f"{form}, but is of shape {tuple(values.shape)}"
        assert values.is_floating_point(), f"{form}, but is {values.dtype}"
        assert values.isfinite().all(), f"{form}, but is not finite"


def check_logits(found: Tensor, count: int, shape: ImageShape, where: str) -> None:
    """Fail unless `found` is float32 (count, classes) and finite."""
    assert tuple(found.shape) == (count, shape.classes), (
        f"{where}: logits must be of shape {(count, shape.classes)}, but are {tuple(found.shape)}"
    )
    assert found.dtype == torch.float32, f"{where}: logits must be float32, but are {found.dtype}"
    assert found.isfinite().all(), f"{where}: logits must be finite"
