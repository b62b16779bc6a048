"""What runs in a worker process: a trial as a Ray Tune trainable, and a replicate as a Ray task.

Only plans travel here, and the source of plugins that are single files. The worker resolves names from its own
registry and loads the dataset once for all its trials.
A failure of the training is an answer like any other (`cause`, `message`), so that the process lives on for the next
trial: starting a new one costs seconds.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import ray
import torch
from ray import tune

from mnistlab import training, weights
from mnistlab.api import Config, DataPlace, Dataset, ImageShape, LabelledImages
from mnistlab.data import Division, images_digest, open_test, open_train, prepare_dataset
from mnistlab.data.device import DeviceData, to_device, upload, whole
from mnistlab.discovery import EVERYTHING, Selection
from mnistlab.errors import DataError
from mnistlab.registry import Registry, select
from mnistlab.results import REFIT, Cost
from mnistlab.seal import opened, seal_for_good
from mnistlab.training import Training
from mnistlab.tuning.capture import Capture
from mnistlab.tuning.cost import cost_of, count_macs

UNCOUNTED = -1
CHECKPOINT = "state.safetensors"
CHECKPOINT_SECONDS = 10.0  # a trial's state is kept about this often, so that no more of its work can be lost
CHECKPOINT_SHARE = 0.05  # of a trial's time, at most, goes into keeping it


@dataclass(frozen=True)
class Shared:
    """What all trials of a run have in common; sent to each worker once."""

    dataset: str  # distribution:name
    config: dict[str, Any]
    place: DataPlace
    shape: ImageShape
    train_sha256: str  # of the training images and labels, as `images_digest` gives it
    division: Division
    cpus: int
    gpus: float = 0.0
    plugins: Selection = EVERYTHING
    checkpoint_seconds: float = CHECKPOINT_SECONDS


_loaded: dict[str, DeviceData] = {}


def data_for(shared: Shared, registry: Registry, device: torch.device) -> DeviceData:
    """Return the run's data on `device`, loaded at the first call of this process.

    Raises:
        DataError: if this machine's copy is not the one that the driver has.
    """
    key = f"{shared.dataset} {shared.train_sha256} {shared.division.digest()} {device}"
    if key not in _loaded:
        images = _training_images(shared, registry)
        if images_digest(images) != shared.train_sha256:
            raise DataError(
                f"dataset '{shared.dataset}' on this machine differs from the driver's (sha256 of its images)"
            )
        _loaded.clear()  # one run at a time
        _loaded[key] = to_device(images, shared.division, shared.shape, device)
    return _loaded[key]


def _training_images(shared: Shared, registry: Registry) -> LabelledImages:
    """Return the training images; a machine that lacks the files (another node of a cluster) fetches them first.

    The driver has checked the dataset as a whole. Here only its training part is read: trials need no more.
    """
    dataset, config = dataset_of(shared, registry)
    try:
        return open_train(dataset, config, shared.place)
    except DataError:
        prepare_dataset(dataset, config, shared.place)
        return open_train(dataset, config, shared.place)


def dataset_of(shared: Shared, registry: Registry) -> tuple[Dataset[Config], Config]:
    """Return the run's dataset record and its config."""
    dataset = cast("Dataset[Config]", registry.find("dataset", shared.dataset).record)
    return dataset, dataset.config.model_validate(shared.config)


def device_of(shared: Shared) -> torch.device:
    """Set this process up for a trial's share and return the device that it gives."""
    return training.set_up_process(shared.cpus, gpu=shared.gpus > 0)


class PlanTrainable(tune.Trainable):
    """One trial: each `step` is an epoch. `config["task"]` is JSON: plan, seed and, after a change, `optimizer`.

    `config["state"]`, if there, refers to the packed state from which a trial goes on that an earlier worker has begun.
    """

    def setup(self, config: dict[str, Any], shared: Shared | None = None) -> None:
        """Begin the first trial of this process."""
        assert shared is not None
        seal_for_good()
        self._shared = shared
        self._capture = Capture()
        self._capture.start()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        """Build the plan; what goes wrong is kept for the first `step`, because Ray would end the process for it."""
        self._task = json.loads(config["task"])
        self._went_on = False
        self._training: Training | None = None
        self._failure: BaseException | None = None
        self._macs: int | None = UNCOUNTED
        self._kept, self._keeping = time.monotonic(), self._shared.checkpoint_seconds
        try:
            registry = select(self._shared.plugins)
            data = data_for(self._shared, registry, device_of(self._shared))
            self._training = training.begin(self._task["plan"], self._task["seed"], data, registry)
            if config.get("state") is not None:
                training.restore(self._training, weights.unpack(ray.get(config["state"])))
                self._went_on = True
        except (Exception, SystemExit) as error:  # a plugin may raise anything; it is this trial's failure
            self._fail(error)

    def step(self) -> dict[str, Any]:
        """Train one epoch and report."""
        if self._training is not None and self._failure is None:
            try:
                return self._report(training.run_epoch(self._training))
            except (Exception, SystemExit) as error:
                self._fail(error)
        assert self._failure is not None
        return self._answer() | {
            "cause": training.cause_of(self._failure),
            "message": _one_line(self._failure),
            "done": True,
        }

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        traceback.print_exception(error)  # into the trial's log

    def _report(self, metrics: dict[str, float]) -> dict[str, Any]:
        assert self._training is not None
        done = self._training.epoch >= self._training.epochs
        parameters = training.count_parameters(self._training.module)
        answer = self._answer() | metrics | {"parameters": parameters, "metrics": json.dumps(metrics), "done": done}
        if self._macs == UNCOUNTED:  # after an epoch: until then a lazy module may not have its parameters
            self._macs = _counted(self._training)
        answer["macs"] = self._macs
        if self._went_on:  # the epochs before this one may be another trial's
            answer["history"], self._went_on = json.dumps(self._training.history), False
        return answer if done else answer | self._state()

    def _state(self) -> dict[str, bytes]:
        """Return the training's state as `state`, where it is time to keep it; nothing where that can't be done."""
        began = time.monotonic()
        if self._training is None or began - self._kept < self._keeping:
            return {}
        try:
            return {"state": weights.pack(training.state(self._training))}
        except (Exception, SystemExit) as error:  # a plugin's own state: the trial goes on, and can't be gone on with
            traceback.print_exception(error)
            return {}
        finally:
            self._kept = time.monotonic()
            self._keeping = max(self._shared.checkpoint_seconds, (self._kept - began) / CHECKPOINT_SHARE)

    def _answer(self) -> dict[str, Any]:
        """Return what every report holds. Plan and metrics are strings so that Tune leaves them as they are."""
        now = self._training
        plan, seed = (now.plan, now.seed) if now else (self._task["plan"], self._task["seed"])
        return {
            "epoch": now.epoch if now else 0,
            "epochs": int(plan["training"]["epochs"]),
            "plan": json.dumps(plan),
            "seed": seed,
            "log": self._capture.take(),
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the training's state, for a trial that is paused or copied."""
        if self._training is None or self._failure is not None:
            return
        try:
            packed = weights.pack(training.state(self._training))
        except (Exception, SystemExit) as error:  # a plugin's own state; the next step says so
            self._fail(error)
        else:
            (Path(checkpoint_dir) / CHECKPOINT).write_bytes(packed)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a state, perhaps another trial's, perhaps with other optimizer settings."""
        path = Path(str(checkpoint)) / CHECKPOINT
        if self._training is None or not path.exists():
            return
        saved = weights.unpack(path.read_bytes())
        try:
            training.restore(self._training, saved, self._task.get("optimizer"))
            self._went_on = True
            self._kept = float("-inf")  # trials that pause often never train for long at a time
        except (Exception, SystemExit) as error:  # a plugin's own state; the next step says so
            self._fail(error)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


# --- replicates ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReplicateTask:
    """One (plan, seed) of the confirmation; number REFIT stands for the training on training and validation images."""

    trial: str
    replicate: int
    seed: int
    plan: dict[str, Any]

    def data(self, common: DeviceData) -> DeviceData:
        """Return what this is trained on."""
        return whole(common) if self.replicate == REFIT else common


@dataclass(frozen=True)
class ReplicateProgress:
    """A replicate has ended an epoch; `metrics` as `training.run_epoch` gives them."""

    epoch: int
    epochs: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class ReplicateAnswer:
    """What came of it. `correct` is bool (validation images,); `weights` are safetensors bytes."""

    history: tuple[dict[str, float], ...] = ()
    parameters: int = 0
    correct: npt.NDArray[np.bool_] | None = None
    weights: bytes = b""
    cost: Cost | None = None
    log: str = ""
    cause: str = ""
    message: str = ""


def train_replicate(shared: Shared, task: ReplicateTask) -> Iterator[ReplicateProgress | ReplicateAnswer]:
    """Train a plan on a fresh seed for its full budget: yield each epoch, then the answer; a failure is one too."""
    seal_for_good()
    capture = Capture()
    capture.start()
    history: list[dict[str, float]] = []
    answer = ReplicateAnswer()
    try:
        registry = select(shared.plugins)
        data = task.data(data_for(shared, registry, device_of(shared)))
        one = training.begin(task.plan, task.seed, data, registry)
        while one.epoch < one.epochs:
            history.append(training.run_epoch(one))
            yield ReplicateProgress(one.epoch, one.epochs, history[-1])
        found = training.evaluate(one, data.validation_images, data.validation_labels)
        answer = replace(
            answer,
            parameters=training.count_parameters(one.module),
            correct=found.correct.cpu().numpy(),
            weights=weights.pack_weights(one.module),
            cost=_measured(one),
        )
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        traceback.print_exception(error)
        answer = replace(answer, cause=training.cause_of(error), message=_one_line(error))
    yield replace(answer, history=tuple(history), log=capture.take())


def _counted(one: Training) -> int | None:
    """Return the multiply-accumulates for one image. Where they can't be counted, the training is good all the same."""
    try:
        return count_macs(one, one.data.validation_images[:1])
    except Exception:  # noqa: BLE001, RUF100 - a plugin may raise anything
        traceback.print_exc()
        return None


def _measured(one: Training) -> Cost | None:
    """Return what a prediction takes. Where that can't be measured, the training was good all the same."""
    try:
        return cost_of(one)
    except Exception:  # noqa: BLE001, RUF100 - a plugin may raise anything
        traceback.print_exc()
        return None


@dataclass(frozen=True)
class TestTask:
    """One trained model to be evaluated on the test set; `weights` are those of its replicate."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    replicate: ReplicateTask
    weights: bytes


@dataclass(frozen=True)
class TestAnswer:
    """What came of it. `correct` is bool (test images,), `loss` the mean cross-entropy in nats."""

    __test__ = False

    correct: npt.NDArray[np.bool_] | None = None
    loss: float = 0.0
    log: str = ""
    cause: str = ""
    message: str = ""


def evaluate_on_test(shared: Shared, task: TestTask) -> Iterator[TestAnswer]:
    """Evaluate a trained model on the test set and yield the answer.

    Only the confirmation sends this, once the ledger says so.
    """
    seal_for_good()
    capture = Capture()
    capture.start()
    try:
        registry, device = select(shared.plugins), device_of(shared)
        data = task.replicate.data(data_for(shared, registry, device))
        model = training.begin(task.replicate.plan, task.replicate.seed, data, registry)
        weights.load_weights(model.module, task.weights)
        with opened():
            test = open_test(*dataset_of(shared, registry), shared.place)
        images, labels = upload(test, device)
        found = training.evaluate(model, images, labels)
        yield TestAnswer(found.correct.cpu().numpy(), found.loss, capture.take())
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        traceback.print_exception(error)
        yield TestAnswer(log=capture.take(), cause=training.cause_of(error), message=_one_line(error))
