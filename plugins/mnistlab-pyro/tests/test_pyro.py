"""What the contract can't know: that the loss is Bayes' rule, that doubt marks mistakes, that nothing is shared."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from mnistlab_pyro import BayesianCnn, BayesianMlp, build_cnn, build_mlp
from mnistlab_pyro.network import BayesianNetwork
from torch.distributions import Normal, kl_divergence
from torch.func import functional_call

from mnistlab.api import Batch, DataPlace, ImageShape, Prediction
from mnistlab.data.device import DeviceData, as_unit, mean_and_std, standardise, upload
from mnistlab.plugins.registry import Kind, Registry, installed
from mnistlab.testing.fixtures import Lab
from mnistlab.training import loop
from mnistlab.training.weights import pack, unpack

SHAPE = ImageShape(1, 8, 8, 10)
MEASURES = ("predictive_entropy", "expected_entropy", "mutual_information")
NUMBERS = ("train_loss", "val_loss", "val_accuracy", *(f"val_{name}" for name in MEASURES))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    loop.set_up_process(1)
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return installed()


@cache
def digits() -> DeviceData:
    """400 images to learn from and 1,397 to judge: few and many, so that enough of them are judged wrongly."""
    record = installed().find("dataset", "digits").record
    place = DataPlace(data_dir=None, cache=Path(), offline=True)
    splits = [upload(record.load(record.config(), place, split), "cpu") for split in ("train", "test")]
    images, labels = (torch.cat(both) for both in zip(*splits, strict=True))
    mean, std = mean_and_std(images[:400])
    return DeviceData(
        shape=ImageShape(1, 28, 28, 10),
        train_images=images[:400],
        train_labels=labels[:400],
        validation_images=images[400:],
        validation_labels=labels[400:],
        mean=mean,
        std=std,
    )


def part(registry: Registry, kind: Kind, name: str, **config: Any) -> dict[str, Any]:
    offer = registry.find(kind, name)
    return {
        "name": name,
        "plugin": offer.qualified,
        "distribution": offer.distribution,
        "version": offer.version,
        "config": offer.record.config(**config).model_dump(),
    }


def plan(registry: Registry, model: str = "bayesian-mlp", epochs: int = 3, **config: Any) -> dict[str, Any]:
    sizes = {"width": 64} if model == "bayesian-mlp" else {"width": 8, "samples": 2}
    return {
        "model": part(registry, "model", model, **sizes | config),
        "optimizer": part(registry, "optimizer", "adamw", lr=0.005, weight_decay=1e-4),
        "transforms": [],
        "training": {"epochs": epochs, "batch_size": 32, "precision": "fp32", "label_smoothing": 0.0},
    }


def numbers(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return what must be the same each time; KeyError where a measure is missing."""
    return [{name: metrics[name] for name in NUMBERS} for metrics in history]


def network(**config: Any) -> BayesianNetwork:
    torch.manual_seed(0)
    module = build_mlp(BayesianMlp(**{"width": 32} | config), SHAPE)
    assert isinstance(module, BayesianNetwork)
    return module


def batch(count: int = 12, smoothing: float = 0.0, train_count: int = 600) -> Batch:
    images = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch(images=images, labels=torch.arange(count) % 10, label_smoothing=smoothing, train_count=train_count)


def divergence(module: BayesianNetwork) -> torch.Tensor:
    """Return KL(posterior, prior) in nats, in torch alone."""
    total = torch.zeros(())
    for name, mean in module.net.named_parameters():
        prior = torch.tensor(module.prior_scales[name])
        scale = prior * module.log_scales[name.replace(".", "_")].exp()
        total = total + kl_divergence(Normal(mean, scale), Normal(0.0, prior)).sum()
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kl_weight", [1.0, 0.01])
def test_the_loss_is_the_weighted_evidence_bound_per_image(smoothing: float, kl_weight: float) -> None:
    module, some = network(kl_weight=kl_weight), batch(smoothing=smoothing)
    torch.manual_seed(3)
    loss = module.negative_elbo(some)
    torch.manual_seed(3)  # the same weights
    logits = functional_call(module.net, module.guide(), (some.images,))
    likelihood = F.cross_entropy(logits, some.labels, label_smoothing=smoothing)
    expected = likelihood + kl_weight * divergence(module) / some.train_count
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    ours = torch.autograd.grad(loss, list(module.parameters()))
    theirs = torch.autograd.grad(expected, list(module.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


def test_the_prior_stands_in_the_same_relation_to_every_width() -> None:
    narrow, wide = network(width=32, prior_scale=2.0), network(width=512, prior_scale=2.0)
    assert narrow.prior_scales["3.weight"] == pytest.approx(2 / math.sqrt(32))
    assert wide.prior_scales["3.weight"] == pytest.approx(2 / math.sqrt(512))
    assert narrow.prior_scales["3.bias"] == 2.0


def test_the_parameters_are_those_of_the_posterior_and_pyros_store_stays_empty() -> None:
    settings, module = pyro.settings.get(), network()
    weights = 64 * 32 + 32 + 32 * 32 + 32 + 32 * 10 + 10
    assert loop.count_parameters(module) == 2 * weights
    module.negative_elbo(batch()).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in module.parameters())
    assert len(pyro.get_param_store()) == 0
    assert pyro.settings.get() == settings


def test_networks_share_nothing() -> None:
    first, second = network(), network()
    before = copy.deepcopy(second.state_dict())
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(1.0)
    first.negative_elbo(batch())
    assert all(torch.equal(value, before[name]) for name, value in second.state_dict().items())


def test_a_network_can_be_copied_and_pickled() -> None:
    module, some = network(), batch()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.manual_seed(2)
        expected = module.predict(some.images).logits
        torch.manual_seed(2)
        assert torch.equal(twin.predict(some.images).logits, expected)


def test_mixed_precision_changes_neither_draws_nor_divergences() -> None:
    module, some = network(), batch()
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    for enabled in (False, True):
        torch.manual_seed(4)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append((module.negative_elbo(some), module.predict(some.images).logits))
            assert module(some.images).dtype == torch.float32
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_measures_are_entropies_in_nats_of_the_mean_probabilities() -> None:
    module, some = network(samples=5, posterior_scale=0.5), batch(40)
    module.requires_grad_(requires_grad=False)
    torch.manual_seed(6)
    found = module.predict(some.images)
    torch.manual_seed(6)
    draws = [functional_call(module.net, module.guide(), (some.images,)).softmax(1).double() for _ in range(5)]
    each = torch.stack(draws)
    mean = each.mean(0)
    total, expected = -(mean * mean.log()).sum(1), -(each * each.log()).sum(2).mean(0)
    assert torch.allclose(found.logits.double(), mean.log(), atol=1e-4)
    assert set(found.measures) == set(MEASURES)
    assert torch.allclose(found.measures["predictive_entropy"].double(), total, atol=1e-4)
    assert torch.allclose(found.measures["expected_entropy"].double(), expected, atol=1e-4)
    assert torch.allclose(found.measures["mutual_information"].double(), total - expected, atol=1e-4)
    assert float(found.measures["mutual_information"].min()) > 0
    assert float(found.measures["predictive_entropy"].max()) <= math.log(10) + 1e-5


def test_doubt_about_an_image_does_not_depend_on_its_company() -> None:
    module, images = network(), batch(40).images
    found: list[Prediction] = []
    with torch.inference_mode():
        for some in (images, images[:1]):
            torch.manual_seed(0)
            found.append(module.predict(some))
    for name in MEASURES:
        assert torch.allclose(found[0].measures[name][:1], found[1].measures[name], atol=1e-5), name


def test_one_draw_knows_of_no_doubt_about_the_weights() -> None:
    with torch.inference_mode():
        found = network(samples=1).predict(batch().images)
    assert float(found.measures["mutual_information"].max()) < 1e-6


def test_weight_decay_pulls_the_posterior_towards_the_prior() -> None:
    module = network()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=1.0)
    before = float(divergence(module).detach())
    for _ in range(100):
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    assert float(divergence(module).detach()) < 1e-3 * before


def test_a_broken_posterior_gives_a_loss_that_the_training_recognises() -> None:
    module = network()
    with torch.no_grad():
        dict(module.named_parameters())["net.1.weight"].fill_(math.nan)
    with pytest.warns(UserWarning, match="NaN"):
        assert bool(module.negative_elbo(batch()).isnan())


@pytest.mark.parametrize("model", ["bayesian-mlp", "bayesian-cnn"])
def test_training_reports_doubt_and_repeats_itself_exactly(model: str, registry: Registry) -> None:
    def run(seed: int) -> list[dict[str, float]]:
        return numbers(loop.train(plan(registry, model, epochs=2), seed, digits(), registry).history)

    first = run(5)
    assert run(6) != first
    assert run(5) == first
    assert all(0 < metrics["val_mutual_information"] < metrics["val_predictive_entropy"] for metrics in first)
    assert first[1]["train_loss"] < first[0]["train_loss"]


@pytest.mark.parametrize("model", ["bayesian-mlp", "bayesian-cnn"])
def test_a_saved_training_goes_on_bit_for_bit(model: str, registry: Registry) -> None:
    what = plan(registry, model, epochs=2)
    whole = loop.train(what, 1, digits(), registry)
    half = loop.begin(what, 1, digits(), registry)
    loop.run_epoch(half)
    saved = pack(loop.state(half))
    torch.rand(5)
    other = loop.begin(what, 99, digits(), registry)
    loop.restore(other, unpack(saved))
    while other.epoch < 2:
        loop.run_epoch(other)
    assert numbers(other.history) == numbers(whole.history)
    weights = other.module.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.module.state_dict().items())


def judge(registry: Registry) -> tuple[Prediction, torch.Tensor]:
    """Train for a short while; return what the network says of images it has not seen, and where it is right."""
    data = digits()
    done = loop.train(plan(registry, epochs=12, posterior_scale=0.3), 0, data, registry)
    done.module.eval()
    torch.manual_seed(0)
    with torch.inference_mode():
        images = standardise(as_unit(data.validation_images), data.mean, data.std)
        found = done.predict(done.module, images)
    return found, found.logits.argmax(1) == data.validation_labels


def test_wrong_predictions_are_the_doubtful_ones(registry: Registry) -> None:
    found, right = judge(registry)
    assert float(right.double().mean()) > 0.8
    assert int((~right).sum()) >= 20, "too few mistakes to compare"
    for name in MEASURES:
        good, bad = found.measures[name][right].double(), found.measures[name][~right].double()
        error = math.sqrt(float(good.var()) / len(good) + float(bad.var()) / len(bad))
        assert float(bad.mean() - good.mean()) > 4 * error, name


EXPERIMENT = """
name = "doubt"
[plugins]
allow = ["mnistlab-pyro"]
[data]
dataset = "digits"
[model.bayesian-mlp]
width = 64
posterior_scale = 0.2
[optimizer.adamw]
weight_decay = 1e-4
lr = 0.01
[training]
epochs = 4
batch_size = 32
[search]
trials = 1
[confirm]
top = 1
baseline = false
seeds = 1
"""


def test_a_search_records_doubt_with_every_trial_and_replicate(lab: Lab) -> None:
    lab.write("doubt.toml", EXPERIMENT)
    ran = lab.run("search", "doubt.toml", "--executor", "local")
    assert ran.code == 0, ran.err
    found = lab.last_run()
    (trial,) = found.trials
    assert trial.metrics["val_accuracy"] > 0.9
    for epoch in trial.history:
        parts = epoch["val_expected_entropy"] + epoch["val_mutual_information"]
        assert epoch["val_predictive_entropy"] == pytest.approx(parts, rel=1e-3)
    assert trial.history[-1]["val_predictive_entropy"] < trial.history[0]["val_predictive_entropy"]
    (replicate,) = found.replicates
    assert replicate.metrics["val_mutual_information"] > 0


@pytest.mark.e2e
def test_listing_the_plugin_imports_neither_pyro_nor_torch() -> None:
    code = (
        "import sys, mnistlab_pyro as p; p.mnistlab_models(); sys.exit(not {'pyro', 'torch'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_images_too_small_to_be_halved_are_refused_with_what_would_do() -> None:
    with pytest.raises(ValueError, match=r"depth = 3 .* 8 pixels, but the images are 12 x 6; depth may be at most 2"):
        build_cnn(BayesianCnn(depth=3), ImageShape(1, 12, 6, 10))
    assert isinstance(build_cnn(BayesianCnn(depth=2), ImageShape(1, 12, 6, 10)), BayesianNetwork)
