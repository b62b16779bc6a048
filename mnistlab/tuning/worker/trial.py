"""What trains trials: a worker, in a process of its own (see `trainable`) or in the driver's (see `local`).

Only plans travel here, and the source of plugins that are single files. The worker resolves names from its own
registry and loads the dataset once for all its trials.
A failure that is the plan's is an answer like any other (`cause`, `message`), so that the process lives on for the next
trial: starting a new one costs seconds. After any other failure a worker's own process ends (see `leaving`).
"""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch

from mnistlab.api import Config, DataPlace, Dataset, ImageShape, LabelledImages
from mnistlab.data import Division, images_digest, open_train, prepare_dataset
from mnistlab.data.device import DeviceData, to_device
from mnistlab.errors import DataError
from mnistlab.plugins.discovery import EVERYTHING, Selection
from mnistlab.plugins.registry import Registry, select
from mnistlab.training import loop, weights
from mnistlab.training.cost import count_macs
from mnistlab.training.loop import Training
from mnistlab.tuning.worker import gpu
from mnistlab.tuning.worker.leaving import judged, lacking, leave_unless_the_plans, one_line, place_here, say_in_log
from mnistlab.tuning.worker.output import hear_nondeterminism
from mnistlab.tuning.worker.watchdog import STALL_SECONDS, Watch

UNCOUNTED = -1
CHECKPOINT_SECONDS = 10.0  # a trial's state is kept about this often, so that no more of its work can be lost
CHECKPOINT_SHARE = 0.05  # of a trial's time, at most, goes into keeping it


@dataclass(frozen=True)
class Here:
    """Trials run in the driver's own process, which has the plugins, and does `tick` at each of their steps."""

    registry: Registry
    tick: Callable[[], None]


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
    stall_seconds: float = STALL_SECONDS  # without a step: then the worker is taken to hang
    trial_seconds: float | None = None  # that a trial may take, in all
    more_room: bool = False  # whether there is a larger share of the device than a trial is given at first
    more_nodes: bool = False  # whether a trial can be given to another node
    here: Here | None = None  # where trials run in the driver's own process


def watch_of(shared: Shared, log: int | None) -> Watch:
    """Return what watches the trainings of this process; a process of a worker's own is ended by way of its `log`."""
    return Watch(log, shared.stall_seconds, *([shared.here.tick] if shared.here else []))


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


def forget_data() -> None:
    """Let go of the data that this process has loaded."""
    _loaded.clear()
    give_back_memory()


def ready(shared: Shared) -> tuple[Registry, DeviceData]:
    """Return what every plan needs: the plugins, and the run's data on the device that this process is given.

    Raises:
        LackError: if this node lacks any of it.
    """
    with lacking("missing"):
        registry = shared.here.registry if shared.here else select(shared.plugins)
    with lacking("device"):
        device = device_of(shared)
    with lacking("data"):
        return registry, data_for(shared, registry, device)


def give_back_memory() -> None:
    """Let go of a GPU's memory that no tensor holds: other processes share the GPU.

    torch keeps what it has freed, and Ray keeps this process for the next trial or task, which may need less.
    """
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


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
    """Set this process up for a trial's share and return the device that it gives.

    The share of a GPU is what Ray has given to this trial or task: one that gets more room has more than the others.
    """
    if shared.here or not shared.gpus:
        return loop.set_up_process(shared.cpus, gpu=bool(shared.gpus))
    mine = gpu.given()
    gpu.keep_to(mine)
    device = loop.set_up_process(shared.cpus)
    if device.type == "cuda":
        gpu.limit_memory(mine.share)
    return device


class NoRoomError(Exception):
    """The device's memory was not enough for a trial, which is to be tried once more with a larger share of it."""


class Printed(Protocol):
    """What a trial has printed."""

    def take(self) -> str:
        """Return what was printed since the last call and forget it."""
        ...


class Worker:
    """Trains one trial after the other: after `begin`, each `step` is an epoch.

    A task is JSON: plan, seed, the `budget` where it is less than the plan's and, after a change, `optimizer`. One with
    `room` has been given the largest share of a device already.
    """

    def __init__(self, shared: Shared, printed: Printed, watch: Watch) -> None:
        """Report what is `printed`; `watch` is told of each step of a training."""
        self._shared, self._printed, self._watch = shared, printed, watch

    def begin(self, task: str, state: Callable[[], bytes] | None = None) -> None:
        """Build the plan of a task; what goes wrong is kept for the first `step`: Ray would end the process for it.

        `state` returns the packed state from which a trial goes on that an earlier worker has begun.
        """
        self._task: Mapping[str, Any] = json.loads(task)
        self._went_on = False
        self._training: Training | None = None
        self._failure: BaseException | None = None
        self._cause = ""
        self._macs: int | None = UNCOUNTED
        self._kept, self._keeping = time.monotonic(), self._shared.checkpoint_seconds
        self._watch.begin(self._shared.trial_seconds)
        if torch.cuda.is_initialized():
            give_back_memory()  # of the trial before
        hear_nondeterminism()
        try:
            registry, data = ready(self._shared)
            packed = None if state is None else weights.unpack(state())
            with self._watch.over():
                plan, seed, budget = self._task["plan"], self._task["seed"], self._task.get("budget")
                self._training = loop.begin(plan, seed, data, registry, budget)
                self._training.on_step = self._watch.step
                if packed is not None:
                    loop.restore(self._training, packed)
                    self._went_on = True
            self._watch.begin(self._shared.trial_seconds, self._spent())
        except (Exception, SystemExit) as error:  # a plugin may raise anything; it is this trial's failure
            self._fail(error)

    def _spent(self) -> float:
        """Return how many seconds the trial has spent so far, at lower rungs and with other workers included."""
        epochs = sum(metrics["seconds"] for metrics in self._training.history) if self._training else 0.0
        return float(self._task.get("spent", 0.0)) + epochs

    def step(self) -> dict[str, Any]:
        """Train one epoch and report.

        Raises:
            NoRoomError: if the device's memory is not enough, and there is more of it.

        A failure that is not the plan's ends the worker (see `leaving`): its trial goes on with another one.
        """
        if self._training is not None and self._failure is None:
            try:
                with self._watch.over():
                    return self._report(loop.run_epoch(self._training))
            except (Exception, SystemExit) as error:
                self._fail(error)
        assert self._failure is not None
        if self._cause == "memory" and self._shared.more_room and not self._task.get("room"):
            raise NoRoomError(one_line(self._failure))  # ends this process, and with it what it holds
        leave_unless_the_plans(self._failure, self._cause, here=self._shared.here is not None)
        return self._answer() | {"cause": self._cause, "message": one_line(self._failure), "done": True}

    def _fail(self, error: BaseException) -> None:
        begun = self._training is not None and self._training.epoch > 0
        self._failure, self._cause = error, judged(error, more_nodes=self._shared.more_nodes, begun=begun)
        say_in_log(error)

    def _report(self, metrics: dict[str, float]) -> dict[str, Any]:
        assert self._training is not None
        done = self._training.epoch >= self._training.epochs
        parameters = loop.count_parameters(self._training.module)
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
            return {"state": weights.pack(loop.state(self._training))}
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
            "epochs": now.epochs if now else int(plan["training"]["epochs"]),
            "plan": json.dumps(plan),
            "seed": seed,
            "log": self._printed.take(),
            "place": place_here(),
            **({"budget": self._task["budget"]} if "budget" in self._task else {}),
        }

    def pack(self) -> bytes | None:
        """Return the training's state, for a trial that is paused or copied; None where there is none."""
        if self._training is None or self._failure is not None:
            return None
        try:
            with self._watch.over():
                return weights.pack(loop.state(self._training))
        except (Exception, SystemExit) as error:  # a plugin's own state; the next step says so
            self._fail(error)
            return None

    def refused(self, error: OSError) -> None:
        """Take note that the state could not be written; a disk that is full ends the worker."""
        self._fail(error)
        leave_unless_the_plans(error, self._cause, here=self._shared.here is not None)

    def take_over(self, packed: bytes) -> None:
        """Go on from a state, perhaps another trial's, perhaps with other optimizer settings."""
        if self._training is None:
            return
        saved = weights.unpack(packed)
        try:
            with self._watch.over():
                loop.restore(self._training, saved, self._task.get("optimizer"))
            self._watch.begin(self._shared.trial_seconds, self._spent())
            self._went_on = True
            self._kept = float("-inf")  # trials that pause often never train for long at a time
        except (Exception, SystemExit) as error:  # a plugin's own state; the next step says so
            self._fail(error)


def _counted(one: Training) -> int | None:
    """Return the multiply-accumulates for one image. Where they can't be counted, the training is good all the same."""
    try:
        return count_macs(one, one.data.validation_images[:1])
    except Exception:  # noqa: BLE001, RUF100 - a plugin may raise anything
        traceback.print_exc()
        return None
