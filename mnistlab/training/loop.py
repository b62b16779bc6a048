"""Training one plan: the straight loop, read from top to bottom. It knows no ray.

The whole set lies on the device as uint8; a batch is an index into it, transformed and normalised there, without a
DataLoader (the idea is tuomaso's train_mnist_fast and K. Jordan's airbench). Weights and images are channels_last, and
convolutions run in bfloat16 where the hardware has it.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor, nn

from mnistlab.api import (
    AveragingStepper,
    Batch,
    Config,
    ImageShape,
    LossFn,
    Model,
    Optimizer,
    PredictFn,
    Prediction,
    Stepper,
    Transform,
    TransformFn,
)
from mnistlab.data.device import DeviceData, as_unit, standardise
from mnistlab.errors import VersionError
from mnistlab.plugins.registry import Kind, Registry
from mnistlab.training.causes import DivergedError
from mnistlab.training.precision import autocast, reproducible, uses_bf16
from mnistlab.training.prediction import cross_entropy_over, point_prediction, require_prediction
from mnistlab.util.seeds import Stream, derive

Plan = Mapping[str, Any]
EpochMetrics = dict[str, float]
Report = Callable[[int, EpochMetrics], None]

EVALUATION_BATCH = 1000
NAN_CHECK_STEPS = 32  # asking a GPU for the loss at every step would make it wait for the host


@dataclass
class Training:
    """A training that has begun: everything that changes from epoch to epoch. Made by `begin`."""

    plan: dict[str, Any]
    seed: int
    data: DeviceData
    module: nn.Module
    loss: LossFn
    predict: PredictFn
    stepper: Stepper
    transforms: tuple[TransformFn, ...]
    registry: Registry
    order: torch.Generator  # on the CPU: which images make a batch
    draws: torch.Generator  # on the device: what the transforms draw
    bf16: bool
    budget: float  # epochs; one below 1 is that share of the images, once
    history: list[EpochMetrics] = field(default_factory=list["EpochMetrics"])  # one entry an epoch
    on_step: Callable[[], None] = lambda: None  # called whenever a batch is trained, or a part of the images predicted

    @property
    def epoch(self) -> int:
        """Return how many epochs have ended."""
        return len(self.history)

    @property
    def epochs(self) -> int:
        """Return how many epochs this training has."""
        return max(1, round(self.budget))

    @property
    def images(self) -> int:
        """Return how many images an epoch has."""
        return _images_of(self.budget, self.data)

    @property
    def batches(self) -> int:
        """Return the steps of an epoch; all batches are of one size, give or take one image."""
        return _batches(self.plan, self.images)


# --- building -----------------------------------------------------------------------------------------------------


def begin(plan: Plan, seed: int, data: DeviceData, registry: Registry, budget: float | None = None) -> Training:
    """Build model, optimizer and transforms of `plan` on the data's device, with all random streams set by `seed`.

    The schedule of the optimizer ends with the `budget`: so many epochs, of one below 1 that share of the images; by
    default all epochs of the plan.

    Raises:
        PluginError: if a plugin is missing here or of another version than the plan was made with.
        Exception: whatever a plugin's build function raises.
    """
    device = data.train_images.device
    _seed_process(derive(seed, Stream.WEIGHTS))  # initial weights, then dropout
    model, config = cast("tuple[Model[Config], Config]", resolve("model", plan["model"], registry))
    with reproducible(device):
        module = model.build(config, data.shape).to(device).to(memory_format=torch.channels_last)
    transforms = tuple(_build_transform(part, data.shape, registry) for part in plan["transforms"])
    settings = plan["training"]
    budget = float(settings["epochs"]) if budget is None else budget
    steps = max(1, round(budget)) * _batches(plan, _images_of(budget, data))
    return Training(
        plan=dict(plan),
        seed=seed,
        data=data,
        module=module,
        loss=model.loss or cross_entropy_over(data.shape.classes),
        predict=model.predict or point_prediction,
        stepper=_build_stepper(plan["optimizer"], module, steps, registry),
        transforms=transforms,
        registry=registry,
        order=torch.Generator().manual_seed(derive(seed, Stream.ORDER)),
        draws=torch.Generator(device).manual_seed(derive(seed, Stream.TRANSFORMS)),
        bf16=uses_bf16(str(settings["precision"]), device, module, int(settings["batch_size"])),
        budget=budget,
    )


def _seed_process(seed: int) -> None:
    """Seed the generators of this process: torch's for ours, the others for plugins that draw from them."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002, RUF100 - what plugins of others use


def resolve(kind: Kind, part: Mapping[str, Any], registry: Registry) -> tuple[Any, Config]:
    """Return the record and the config that a part of a plan names.

    Raises:
        PluginError: if no installed plugin offers it, or (VersionError) in another version than the plan says.
    """
    offer = registry.find(kind, str(part["plugin"]))
    if offer.version != part["version"]:
        here, made = offer.version, part["version"]
        raise VersionError(f"{kind} '{part['plugin']}' is of version {here} here, but the plan was made with {made}")
    return offer.record, offer.record.config.model_validate(part["config"])


def _build_transform(part: Mapping[str, Any], shape: ImageShape, registry: Registry) -> TransformFn:
    transform, config = cast("tuple[Transform[Config], Config]", resolve("transform", part, registry))
    return transform.build(config, shape)


def _build_stepper(part: Mapping[str, Any], module: nn.Module, steps: int, registry: Registry) -> Stepper:
    optimizer, config = cast("tuple[Optimizer[Config], Config]", resolve("optimizer", part, registry))
    return optimizer.build(config, module, steps)


def _rebuild_stepper(training: Training) -> Stepper:
    """Return the stepper that the plan asks for after the epochs that have ended."""
    part, steps = optimizer_at(training.plan, training.epoch), training.epochs * training.batches
    return _build_stepper(part, training.module, steps, training.registry)


def _batches(plan: Plan, images: int) -> int:
    return math.ceil(images / int(plan["training"]["batch_size"]))


def _images_of(budget: float, data: DeviceData) -> int:
    """Return how many of the training images an epoch of such a budget has."""
    return math.ceil(min(1.0, budget) * len(data.train_images))


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


# --- training -----------------------------------------------------------------------------------------------------


def train(plan: Plan, seed: int, data: DeviceData, registry: Registry, report: Report | None = None) -> Training:
    """Train `plan` for its full budget; `report(epoch, metrics)` is called after each epoch.

    Raises:
        DivergedError: if the loss becomes NaN or infinite.
    """
    training = begin(plan, seed, data, registry)
    while training.epoch < training.epochs:
        metrics = run_epoch(training)
        if report:
            report(training.epoch, metrics)
    return training


def run_epoch(training: Training) -> EpochMetrics:
    """Train one epoch, then validate.

    Returns:
        train_loss, val_loss (nats), val_accuracy (share), images_per_second (training only), seconds (all of it), and
        the mean of each measure of the model's predictions as val_NAME.

    Raises:
        DivergedError: if the loss becomes NaN or infinite.
    """
    start = time.perf_counter()
    _apply_changes(training)
    with reproducible(training.data.train_images.device):
        loss = _train_epoch(training)
    trained = time.perf_counter()
    found = evaluate(training, training.data.validation_images, training.data.validation_labels)
    for name, value in {"loss": found.loss, **found.measures}.items():  # a stream of events has no word for NaN
        if not math.isfinite(value):
            raise DivergedError(f"the validation {name} became {value} in epoch {training.epoch + 1}")
    metrics = {f"val_{name}": value for name, value in found.measures.items()} | {
        "train_loss": loss,
        "val_loss": found.loss,
        "val_accuracy": float(found.correct.double().mean()),
        "images_per_second": training.images / (trained - start),
        "seconds": time.perf_counter() - start,
    }
    training.history.append(metrics)
    return metrics


def _train_epoch(training: Training) -> float:
    """Make one pass over the training images in a fresh random order; return the mean loss.

    Of a budget below one epoch, so many of them are trained.
    """
    data, module, stepper = training.data, training.module, training.stepper
    device = data.train_images.device
    smoothing = float(training.plan["training"]["label_smoothing"])
    order = torch.randperm(len(data.train_images), generator=training.order)[: training.images].to(device)
    total = torch.zeros((), device=device)
    module.train()
    if isinstance(stepper, AveragingStepper):
        stepper.train()
    for step, index in enumerate(order.tensor_split(training.batches), 1):
        images = _images(training, data.train_images[index], augment=True)
        batch = Batch(images=images, labels=data.train_labels[index], label_smoothing=smoothing, train_count=len(order))
        with autocast(device, bf16=training.bf16):
            loss = training.loss(module, batch)
        stepper.zero_grad()
        loss.backward()
        stepper.step()
        total += loss.detach() * len(index)
        training.on_step()
        if step % NAN_CHECK_STEPS == 0 or step == training.batches:
            value = float(total)
            if not math.isfinite(value):
                raise DivergedError(f"the training loss became {value} in epoch {training.epoch + 1}, by step {step}")
    if isinstance(stepper, AveragingStepper):
        stepper.eval()
    return float(total) / len(order)


def _images(training: Training, images: Tensor, *, augment: bool) -> Tensor:
    """Return uint8 (N, C, H, W) as normalised floats, channels_last; transformed where `augment` says so."""
    data = training.data
    pixels = as_unit(images)
    for transform in training.transforms if augment else ():
        pixels = transform(pixels, training.draws)
    return standardise(pixels, data.mean, data.std).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of N images: the mean cross-entropy (nats), bool (N,) and the mean of each measure.

    `per_image` holds what the means are over, float (N,): `loss`, and each measure under its name.
    """

    loss: float
    correct: Tensor
    measures: Mapping[str, float]
    per_image: Mapping[str, Tensor]


def evaluate(training: Training, images: Tensor, labels: Tensor) -> Evaluation:
    """Evaluate the model on uint8 (N, C, H, W) and int64 (N,), both on its device.

    A prediction that draws at random gives the same numbers at every evaluation, and disturbs no other stream.
    """
    with reproducible(images.device), torch.inference_mode():
        parts = predict(training, images)
        logits = torch.cat([part.logits for part in parts]).float()
        measures = {name: torch.cat([part.measures[name] for part in parts]).double() for name in parts[0].measures}
        means = {name: float(values.mean()) for name, values in measures.items()}
        loss = float(F.cross_entropy(logits.double(), labels))  # not the mean of `losses`: other sums, other last bits
        losses = F.cross_entropy(logits.double(), labels, reduction="none")
        return Evaluation(loss, logits.argmax(1) == labels, means, {"loss": losses, **measures})


def predict(training: Training, images: Tensor) -> list[Prediction]:
    """Return what the model says of uint8 (N, C, H, W) on its device, in parts of at most `EVALUATION_BATCH` images."""
    training.module.eval()
    in_its_precision = autocast(images.device, bf16=training.bf16)
    with torch.random.fork_rng([images.device] * images.is_cuda), torch.inference_mode(), in_its_precision:
        torch.manual_seed(derive(training.seed, Stream.PREDICTION))
        return [_predict_part(training, some) for some in images.split(EVALUATION_BATCH)]


def _predict_part(training: Training, images: Tensor) -> Prediction:
    found = training.predict(training.module, _images(training, images, augment=False))
    require_prediction(found, len(images), training.data.shape.classes)
    training.on_step()
    return found


# --- going on from a state ----------------------------------------------------------------------------------------


def state(training: Training) -> dict[str, Any]:
    """Return everything that `restore` needs to go on bit for bit: weights, optimizer, random streams, epoch."""
    cuda = training.draws.device.type == "cuda"
    return {
        "plan": training.plan,
        "seed": training.seed,
        "history": training.history,
        "module": training.module.state_dict(),
        "stepper": training.stepper.state_dict(),
        "order": training.order.get_state(),
        "draws": training.draws.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(training.draws.device) if cuda else None,
    }


def restore(training: Training, saved: Mapping[str, Any], optimizer: Mapping[str, Any] | None = None) -> None:
    """Go on from `saved`, a state of the same model; with `optimizer`, under other settings from here on.

    The change is written into the plan (`changes`), so that a plan that was changed while it ran (population-based
    training) can be trained again from the start, as confirmation does.
    """
    training.plan = dict(saved["plan"])
    training.seed, training.history = int(saved["seed"]), list(saved["history"])
    if optimizer is not None and optimizer != optimizer_at(training.plan, training.epoch):
        change = {"epoch": training.epoch, "optimizer": dict(optimizer)}
        training.plan["changes"] = [*training.plan.get("changes", []), change]
    training.module.load_state_dict(saved["module"])
    training.stepper = _rebuild_stepper(training)
    training.stepper.load_state_dict(saved["stepper"])
    training.order.set_state(saved["order"])
    training.draws.set_state(saved["draws"])
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] is not None:
        torch.cuda.set_rng_state(saved["cuda"], training.draws.device)


def optimizer_at(plan: Plan, epoch: float) -> Mapping[str, Any]:
    """Return the optimizer part that holds after `epoch` epochs; with infinity, the last one of all."""
    changes = [change for change in plan.get("changes", []) if change["epoch"] <= epoch]
    return changes[-1]["optimizer"] if changes else plan["optimizer"]


def _apply_changes(training: Training) -> None:
    """Take up other optimizer settings where the plan changes them at this epoch."""
    if any(change["epoch"] == training.epoch for change in training.plan.get("changes", [])):
        kept = training.stepper.state_dict()
        training.stepper = _rebuild_stepper(training)
        training.stepper.load_state_dict(kept)


# --- where to train -----------------------------------------------------------------------------------------------


def set_up_process(threads: int, *, gpu: bool = True) -> torch.device:
    """Set threads for this process, as long as it lives, and return the device to train on.

    That is a GPU where there is one and `gpu` allows it.
    """
    torch.set_num_threads(max(1, threads))
    torch.set_flush_denormal(True)
    if not (gpu and torch.cuda.is_available()):
        return torch.device("cpu")
    # cuBLAS reads it when it starts; without it, its sums may come in another order (see `precision.deterministic`).
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda", 0)  # Ray shows a worker its own GPU only
