"""The training loop on a tiny dataset: what it feeds the model, what it reports, how it goes on and how it fails."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mnistlab.api import Batch, Config, Float, ImageShape, Model, Optimizer, Prediction, Record, Transform, TransformFn
from mnistlab.data.device import DeviceData, mean_and_std
from mnistlab.errors import PluginError
from mnistlab.plugins.registry import Found, Kind, Offer, Plugin, Registry, installed
from mnistlab.training import loop, precision
from mnistlab.training.causes import cause_of
from mnistlab.training.weights import load_weights, pack, pack_weights, unpack
from mnistlab.util.seeds import Stream, derive

seen: list[torch.Tensor] = []
moved: list[int] = []


class Plain(Config):
    gain: Annotated[float, Float(0.1, 2.0)] = 1.0


class Watcher(nn.Module):
    """A linear model that keeps what it is fed."""

    def __init__(self, config: Plain, shape: ImageShape) -> None:
        super().__init__()
        self.head, self.drop, self.gain = nn.Linear(shape.pixels, shape.classes), nn.Dropout(0.2), config.gain

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen.append(images.detach().clone())
        return self.gain * self.head(self.drop(images.flatten(1)))


def watch(config: Plain, shape: ImageShape) -> TransformFn:
    def move(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        assert images.dtype == torch.float32
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
        moved.append(len(images))
        return images + 0.01 * torch.rand(images.shape, generator=generator)

    return move


batches: list[Batch] = []


def squared_error(module: nn.Module, batch: Batch) -> torch.Tensor:
    assert module.training
    batches.append(batch)
    return (module(batch.images).softmax(1)[torch.arange(len(batch.labels)), batch.labels] - 1).square().mean()


def doubtful(module: nn.Module, images: torch.Tensor) -> Prediction:
    assert not module.training
    logits = module(images) + 0.1 * torch.randn(len(images), 2)
    return Prediction(
        logits=logits, measures={"doubt": torch.full((len(images),), 0.25), "draw": torch.rand(len(images))}
    )


class Halved:
    """Plain steps; what is evaluated is half of what is trained."""

    def __init__(self, config: Plain, module: nn.Module, _steps: int) -> None:
        self.optimizer, self.module = torch.optim.SGD(module.parameters(), 0.1 * config.gain), module
        self.evaluating = False

    def step(self) -> None:
        assert not self.evaluating
        self.optimizer.step()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def _switch(self, *, evaluating: bool) -> None:
        if evaluating != self.evaluating:
            with torch.no_grad():
                for parameter in self.module.parameters():
                    parameter.mul_(0.5 if evaluating else 2.0)
        self.evaluating = evaluating

    def train(self) -> None:
        self._switch(evaluating=False)

    def eval(self) -> None:
        self._switch(evaluating=True)

    def state_dict(self) -> dict[str, Any]:
        return {"evaluating": self.evaluating}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.evaluating = state["evaluating"]


class Broken(Watcher):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * float("inf")


OFFERS: dict[str, tuple[Kind, Record]] = {
    "watcher": ("model", Model(name="watcher", config=Plain, build=Watcher, summary="")),
    "own-loss": ("model", Model(name="own-loss", config=Plain, build=Watcher, summary="", loss=squared_error)),
    "doubtful": ("model", Model(name="doubtful", config=Plain, build=Watcher, summary="", predict=doubtful)),
    "halved": ("optimizer", Optimizer(name="halved", config=Plain, build=Halved, summary="")),
    "broken": ("model", Model(name="broken", config=Plain, build=Broken, summary="")),
    "watch": ("transform", Transform(name="watch", config=Plain, build=watch, summary="")),
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    found = Found("here", "1", "x", "x", "mnistlab.v1", lambda: None)
    plugin = Plugin(found, "ok", offers=tuple(Offer(kind, record, "here", "1") for kind, record in OFFERS.values()))
    return Registry((*installed().plugins, plugin))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    seen.clear()
    moved.clear()
    loop.set_up_process(1)
    yield
    torch.set_flush_denormal(False)  # the rest of the tests count on the arithmetic of every day


def part(registry: Registry, kind: Kind, name: str, **config: Any) -> dict[str, Any]:
    offer = registry.find(kind, name)
    values = offer.record.config(**config).model_dump()
    return {
        "name": name,
        "plugin": offer.qualified,
        "distribution": offer.distribution,
        "version": offer.version,
        "config": values,
    }


@pytest.fixture
def plan(registry: Registry) -> Callable[..., dict[str, Any]]:
    def make(
        model: str = "watcher", *, transforms: tuple[str, ...] = (), lr: float = 0.01, **more: Any
    ) -> dict[str, Any]:
        return {
            "model": part(registry, "model", model),
            "optimizer": part(registry, "optimizer", "adamw", lr=lr),
            "transforms": [part(registry, "transform", name) for name in transforms],
            "training": {"epochs": 4, "batch_size": 32, "precision": "fp32", "label_smoothing": 0.0} | more,
        }

    return make


@pytest.fixture(scope="module")
def data() -> DeviceData:
    """130 + 40 images of 8x8; the brighter half tells the class; the first pixel numbers the image."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(170) % 2
    images = torch.randint(0, 120, (170, 1, 8, 8), generator=generator)
    images[labels == 1, :, :, :4] += 100
    images[labels == 0, :, :, 4:] += 100
    images[:, 0, 0, 0] = torch.arange(170)
    images = images.to(torch.uint8)
    mean, std = mean_and_std(images[:130])
    return DeviceData(
        shape=ImageShape(1, 8, 8, 2),
        train_images=images[:130],
        train_labels=labels[:130],
        validation_images=images[130:],
        validation_labels=labels[130:],
        mean=mean,
        std=std,
    )


def run(plan: dict[str, Any], seed: int, data: DeviceData, registry: Registry) -> list[dict[str, float]]:
    """Train and return the numbers of each epoch that must be the same each time."""
    history: list[dict[str, float]] = []
    loop.train(plan, seed, data, registry, lambda _, metrics: history.append(metrics))
    return [{k: m[k] for k in ("train_loss", "val_loss", "val_accuracy")} for m in history]


def test_it_learns_and_reports_every_epoch(plan, data, registry) -> None:
    history: list[tuple[int, dict[str, float]]] = []
    done = loop.train(plan(), 0, data, registry, lambda epoch, metrics: history.append((epoch, metrics)))
    assert [epoch for epoch, _ in history] == [1, 2, 3, 4]
    last = history[-1][1]
    assert set(last) == {"train_loss", "val_loss", "val_accuracy", "images_per_second", "seconds"}
    assert last["val_accuracy"] > 0.9
    assert last["train_loss"] < history[0][1]["train_loss"]
    assert last["images_per_second"] > 0
    found = loop.evaluate(done, data.validation_images, data.validation_labels)
    loss, correct = found.loss, found.correct
    assert loss == last["val_loss"]
    assert float(correct.double().mean()) == last["val_accuracy"]


def test_each_epoch_sees_every_image_once_in_even_batches_and_another_order(plan, data, registry) -> None:
    run(plan(epochs=2, batch_size=32), 0, data, registry)
    sizes = [len(batch) for batch in seen]
    assert sizes == [26, 26, 26, 26, 26, 40] * 2  # 130 images in batches of at most 32, then validation
    pixels = [(batch[:, 0, 0, 0] * data.std.flatten() + data.mean.flatten()) * 255 for batch in seen]
    first, second = torch.cat(pixels[:5]).round().int(), torch.cat(pixels[6:11]).round().int()
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(130))
    assert first.tolist() != second.tolist()


def test_what_the_model_sees_is_normalised_by_the_training_part_and_channels_last(plan, data, registry) -> None:
    run(plan(epochs=1), 0, data, registry)
    fed = torch.cat(seen[:5])
    assert float(fed.mean()) == pytest.approx(0, abs=1e-5)
    assert float(fed.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in seen)


def test_transforms_touch_training_images_only(plan, data, registry) -> None:
    run(plan(transforms=("watch",), epochs=1), 0, data, registry)
    assert moved == [26] * 5
    validated = (seen[-1] * data.std + data.mean) * 255
    assert torch.equal(validated.round().to(torch.uint8), data.validation_images)


def test_same_plan_and_seed_give_the_same_numbers_and_another_seed_others(plan, data, registry) -> None:
    one = run(plan(transforms=("watch",)), 5, data, registry)
    torch.rand(3)  # whatever the process did before must not matter
    assert run(plan(transforms=("watch",)), 5, data, registry) == one
    assert run(plan(transforms=("watch",)), 6, data, registry) != one


def test_no_two_random_streams_of_a_training_begin_alike(plan, data, registry) -> None:
    begun = loop.begin(plan(), 5, data, registry)
    seeds = [begun.order.initial_seed(), begun.draws.initial_seed()]
    seeds += [derive(5, stream) for stream in (Stream.WEIGHTS, Stream.PREDICTION)]
    assert len(set(seeds)) == 4


def test_a_saved_training_goes_on_bit_for_bit(plan, data, registry) -> None:
    whole = run(plan(transforms=("watch",)), 1, data, registry)
    half = loop.begin(plan(transforms=("watch",)), 1, data, registry)
    loop.run_epoch(half)
    loop.run_epoch(half)
    saved = pack(loop.state(half))
    torch.rand(5)
    other = loop.begin(plan(transforms=("watch",)), 99, data, registry)
    loop.restore(other, unpack(saved))
    rest = [loop.run_epoch(other) for _ in range(2)]
    assert [{k: m[k] for k in whole[0]} for m in rest] == whole[2:]
    assert other.epoch == 4


def test_a_change_of_optimizer_is_in_the_plan_and_the_plan_repeats_it(plan, data, registry) -> None:
    first = loop.begin(plan(), 1, data, registry)
    history = [loop.run_epoch(first), loop.run_epoch(first)]
    saved = pack(loop.state(first))  # before anything else draws from the process's generator
    changed = loop.begin(plan(), 1, data, registry)
    other = part(registry, "optimizer", "adamw", lr=0.002)
    loop.restore(changed, unpack(saved), other)
    history += [loop.run_epoch(changed), loop.run_epoch(changed)]
    assert changed.plan["changes"] == [{"epoch": 2, "optimizer": other}]
    again = run(json.loads(json.dumps(changed.plan)), 1, data, registry)
    assert again == [{k: m[k] for k in again[0]} for m in history]
    assert again != run(plan(), 1, data, registry)


def test_a_changed_training_is_resumed_with_its_changes_and_not_its_first_settings(plan, data, registry) -> None:
    other = part(registry, "optimizer", "adamw", lr=0.002)
    changed = plan() | {"changes": [{"epoch": 1, "optimizer": other}]}
    whole = run(changed, 1, data, registry)
    half = loop.begin(changed, 1, data, registry)
    loop.run_epoch(half)
    loop.run_epoch(half)
    saved = unpack(pack(loop.state(half)))
    torch.rand(5)
    resumed = loop.begin(saved["plan"], saved["seed"], data, registry)
    loop.restore(resumed, saved)
    rest = [loop.run_epoch(resumed) for _ in range(2)]
    assert [{k: m[k] for k in whole[0]} for m in rest] == whole[2:]
    assert resumed.plan == changed
    assert loop.optimizer_at(changed, 0) == changed["optimizer"]
    assert loop.optimizer_at(changed, 1) == loop.optimizer_at(changed, math.inf) == other


def test_a_loss_that_is_not_finite_fails_at_once(plan, data, registry) -> None:
    with pytest.raises(loop.DivergedError, match="epoch 1"):
        run(plan("broken"), 0, data, registry)
    assert cause_of(loop.DivergedError("x")) == "nan"


def test_another_version_of_a_plugin_is_refused(plan, data, registry) -> None:
    wrong = plan()
    wrong["model"]["version"] = "0.9"
    with pytest.raises(loop.VersionError, match=r"here:watcher.*version 1 here.*made with 0\.9") as caught:
        loop.begin(wrong, 0, data, registry)
    assert cause_of(caught.value) == "version"
    wrong["model"]["plugin"] = "here:wacher"
    with pytest.raises(PluginError, match="did you mean 'here:watcher'"):
        loop.begin(wrong, 0, data, registry)


def test_causes_have_words() -> None:
    assert cause_of(torch.OutOfMemoryError("x")) == "memory"
    assert cause_of(MemoryError()) == "memory"
    assert cause_of(ValueError("x")) == "plugin"


def test_bf16_is_a_fixed_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, cpu = nn.Sequential(nn.Conv2d(1, 2, 3)), torch.device("cpu")
    assert loop.uses_bf16("bf16", cpu, nn.Linear(1, 1), 1)
    assert not loop.uses_bf16("fp32", cpu, conv, 512)
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    assert loop.uses_bf16("auto", cpu, conv, 8)
    assert loop.uses_bf16("auto", cpu, nn.Linear(1, 1), 128)
    assert not loop.uses_bf16("auto", cpu, nn.Linear(1, 1), 64)
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    assert not loop.uses_bf16("auto", cpu, conv, 512)


def test_a_share_without_a_gpu_trains_on_the_cpu_even_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert loop.set_up_process(2, gpu=False) == torch.device("cpu")
    assert torch.get_num_threads() == 2
    loop.set_up_process(1, gpu=False)
    assert torch.get_num_threads() == 1


def test_weights_are_stored_under_their_own_names(plan, data, registry, tmp_path) -> None:
    done = loop.begin(plan(), 0, data, registry)
    (tmp_path / "w").write_bytes(pack_weights(done.module))
    stored = load_file(tmp_path / "w")
    assert set(stored) == set(done.module.state_dict())
    other = loop.begin(plan(), 1, data, registry)
    load_weights(other.module, (tmp_path / "w").read_bytes())
    assert all(torch.equal(a, b) for a, b in zip(other.module.parameters(), done.module.parameters(), strict=True))


def test_plugins_that_draw_from_other_generators_are_seeded_too(plan, data, registry) -> None:
    drawn = []
    for _ in range(2):
        loop.begin(plan(), 4, data, registry)
        drawn.append((random.random(), float(np.random.rand())))
    assert drawn[0] == drawn[1]


def test_parameters_are_counted(data, registry, plan) -> None:
    assert loop.count_parameters(loop.begin(plan(), 0, data, registry).module) == 64 * 2 + 2


# --- models and steppers that answer more --------------------------------------------------------------------------


def test_a_model_may_have_its_own_loss(plan, data, registry) -> None:
    batches.clear()
    history = run(plan("own-loss", epochs=2, label_smoothing=0.1), 0, data, registry)
    assert [len(batch.labels) for batch in batches[:5]] == [26] * 5
    assert {(batch.train_count, batch.label_smoothing) for batch in batches} == {(130, 0.1)}
    assert 0 < history[1]["train_loss"] < history[0]["train_loss"] < 1
    assert history != run(plan(epochs=2, label_smoothing=0.1), 0, data, registry)


def test_what_a_prediction_measures_becomes_a_metric(plan, data, registry) -> None:
    metrics: list[dict[str, float]] = []
    loop.train(plan("doubtful", epochs=1), 0, data, registry, lambda _, found: metrics.append(found))
    assert metrics[0]["val_doubt"] == 0.25
    assert 0.3 < metrics[0]["val_draw"] < 0.7


def test_what_the_means_are_over_is_known_of_each_image(plan, data, registry) -> None:
    done = loop.train(plan("doubtful", epochs=1), 0, data, registry)
    found = loop.evaluate(done, data.validation_images, data.validation_labels)
    assert found.per_image.keys() == {"loss", *found.measures}
    assert {values.shape for values in found.per_image.values()} == {data.validation_labels.shape}
    means = {name: float(values.mean()) for name, values in found.per_image.items()}
    assert means == pytest.approx({"loss": found.loss, **found.measures})
    assert done.history[-1]["val_loss"] == found.loss


def test_a_measure_that_is_no_number_fails_its_training_and_not_the_search(plan, data, registry, monkeypatch) -> None:
    evaluate = loop.evaluate

    def doubtful(*arguments):
        return replace(evaluate(*arguments), measures={"doubt": float("nan")})

    monkeypatch.setattr(loop, "evaluate", doubtful)
    with pytest.raises(loop.DivergedError, match="the validation doubt became nan in epoch 1") as caught:
        run(plan(epochs=1), 0, data, registry)
    assert cause_of(caught.value) == "nan"


def test_a_random_prediction_can_be_repeated_and_disturbs_no_training(plan, data, registry) -> None:
    done = loop.train(plan("doubtful"), 0, data, registry)
    before = torch.get_rng_state()
    first, second = (loop.evaluate(done, data.validation_images, data.validation_labels) for _ in range(2))
    assert (first.loss, first.measures) == (second.loss, second.measures)
    assert torch.equal(before, torch.get_rng_state())
    losses = [epoch["train_loss"] for epoch in run(plan("doubtful"), 0, data, registry)]
    assert losses == [epoch["train_loss"] for epoch in run(plan(), 0, data, registry)]


def test_an_averaging_stepper_is_switched_around_the_steps_of_an_epoch(plan, data, registry) -> None:
    halved = plan(epochs=3) | {"optimizer": part(registry, "optimizer", "halved")}
    straight = loop.train(halved, 0, data, registry)
    assert straight.stepper.evaluating
    assert float(straight.module.head.weight.detach().abs().max()) < 2
    stopped = loop.begin(halved, 0, data, registry)
    loop.run_epoch(stopped)
    saved = unpack(pack(loop.state(stopped)))
    going_on = loop.begin(halved, 0, data, registry)
    loop.restore(going_on, saved)
    for _ in range(2):
        loop.run_epoch(going_on)
    assert torch.equal(going_on.module.head.weight, straight.module.head.weight)


def test_the_evaluation_of_stored_weights_leaves_them_alone(plan, data, registry) -> None:
    halved = plan(epochs=1) | {"optimizer": part(registry, "optimizer", "halved")}
    done = loop.train(halved, 0, data, registry)
    again = loop.begin(halved, 0, data, registry)
    load_weights(again.module, pack_weights(done.module))
    images, labels = data.validation_images, data.validation_labels
    assert loop.evaluate(again, images, labels).loss == loop.evaluate(done, images, labels).loss


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_a_convolutional_net_goes_on_bit_for_bit_from_a_packed_state(plan, data, registry, optimizer: str) -> None:
    """Its weights are channels_last; moments that are laid out otherwise were once added to the wrong elements."""
    net = part(registry, "model", "cnn", depth=2, channels=8, dropout=0.1)
    what = plan(epochs=3) | {"model": net, "optimizer": part(registry, "optimizer", optimizer)}
    straight = loop.train(what, 0, data, registry)
    stopped = loop.begin(what, 0, data, registry)
    loop.run_epoch(stopped)
    saved = unpack(pack(loop.state(stopped)))
    going_on = loop.begin(what, 9, data, registry)
    loop.restore(going_on, saved)
    while going_on.epoch < 3:
        loop.run_epoch(going_on)
    weights = going_on.module.state_dict()
    assert [n for n, value in straight.module.state_dict().items() if not torch.equal(value, weights[n])] == []


# --- a smaller budget ---------------------------------------------------------------------------------------------


def test_a_training_of_fewer_epochs_is_that_of_a_plan_with_so_many(plan, data, registry) -> None:
    short = loop.begin(plan(epochs=4), 0, data, registry, 2.0)
    while short.epoch < short.epochs:
        loop.run_epoch(short)
    whole = loop.train(plan(epochs=2), 0, data, registry)
    assert pack_weights(short.module) == pack_weights(whole.module)


def test_half_an_epoch_trains_half_of_the_images_once(plan, data, registry) -> None:
    half = loop.begin(plan(batch_size=32), 0, data, registry, 0.5)
    loop.run_epoch(half)
    assert (half.epoch, half.epochs, half.batches) == (1, 1, 3)
    assert [len(batch) for batch in seen] == [22, 22, 21, 40]
    pixels = [(batch[:, 0, 0, 0] * data.std.flatten() + data.mean.flatten()) * 255 for batch in seen]
    assert len(set(torch.cat(pixels[:3]).round().int().tolist())) == 65


@pytest.mark.parametrize("budget", [0.5, 1.0, 3.0])
def test_the_schedule_ends_with_the_budget(plan, data, registry, budget) -> None:
    begun, rates = loop.begin(plan(lr=0.01), 0, data, registry, budget), list[float]()
    stepper: Any = begun.stepper
    begun.on_step = lambda: rates.extend(stepper.learning_rates)
    while begun.epoch < begun.epochs:
        loop.run_epoch(begun)
    assert rates[-1] < 0.01 * max(rates)


def test_a_training_of_a_smaller_budget_goes_on_bit_for_bit(plan, data, registry) -> None:
    whole = loop.begin(plan(), 0, data, registry, 2.0)
    loop.run_epoch(whole)
    kept = unpack(pack(loop.state(whole)))
    loop.run_epoch(whole)
    again = loop.begin(plan(), 0, data, registry, 2.0)
    loop.restore(again, kept)
    loop.run_epoch(again)
    assert pack_weights(again.module) == pack_weights(whole.module)
