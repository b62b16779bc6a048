"""A model that does as it is told: learns, refuses, breaks, dies. For tests of what the search makes of it."""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
import torch._dynamo  # the first optimizer would import it, for seconds in which its step would seem to hang
from torch import nn

from mnistlab.api import (
    Batch,
    Choice,
    Config,
    DataPlace,
    Dataset,
    DatasetInfo,
    Float,
    ImageShape,
    LabelledImages,
    Model,
    Prediction,
    hookimpl,
)
from mnistlab.plugins.registry import installed
from mnistlab.training.prediction import cross_entropy

MOODS = Choice(
    "good",
    "stuck",
    "nan",
    "raise",
    "step",
    "exit",
    "die",
    "noisy",
    "slow",
    "slower",
    "memory",
    "late",
    "lonely",
    "sociable",
    "curious",
    # worse ones
    "sleep",
    "lock",
    "loop",
    "deaf",
    "flood",
    "greedy",
    "fork",
    "mortal",
    "shy",
    "wrecking",
    # in what they say of images, or of how far they are off
    "wordy",
    "endless",
    "speechless",
)


class Moody(Config):
    mood: Annotated[str, MOODS] = "good"
    gain: Annotated[float, Float(0.5, 2.0)] = 1.0


class Net(nn.Module):
    def __init__(self, config: Moody, shape: ImageShape) -> None:
        super().__init__()
        self.mood, self.gain = config.mood, config.gain
        self.steps = 0
        self.head = nn.Linear(shape.pixels, shape.classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.gain * self.head(images.flatten(1))
        if WRECKED or (self.mood == "wrecking" and self.gain == 1.0):
            wreck_the_device()
        if self.mood == "stuck":
            constant = torch.zeros_like(logits)
            constant[:, 1] = -1.0
            return logits * 0 + constant
        self.steps += self.training
        if self.mood == "late" and self.steps > 10:  # the third of its epochs of four steps
            return logits * float("inf")
        if self.mood == "nan":
            return logits * float("nan")
        if self.mood == "step":
            raise RuntimeError("this plan breaks while it trains")
        if self.mood == "memory":
            raise torch.OutOfMemoryError("device out of memory, says the test")
        if self.mood == "noisy":
            print("\x1b[31mprinted by the model\x1b[0m")
            os.write(2, b"written to descriptor 2\n")
        time.sleep({"slow": 0.05, "lonely": 0.05, "slower": 0.5}.get(self.mood, 0.0))
        if self.mood == "lonely":
            Path(os.environ["MOODY_LONELY"]).touch()
        if self.mood == "sociable":
            meet()
        if self.mood == "shy" and not self.training and not self.steps:  # asked without having been trained here
            time.sleep(1e6)
        if self.mood in WORSE and self.steps == 6:  # in the second epoch
            WORSE[self.mood]()
        return logits


def meet() -> None:
    """Once the gate is open, wait until another process trains as well."""
    gate = Path(os.environ["MOODY_GATE"])
    if gate.exists():
        return
    met = gate.with_suffix(".met")
    met.with_suffix(f".met.{os.getpid()}").touch()
    wait_until(lambda: len(list(gate.parent.glob(f"{met.name}.*"))) > 1)


def come_to_the_gate() -> None:
    """Note that this process is there; while the gate is closed, only the first one passes."""
    gate = Path(os.environ["MOODY_GATE"])
    if gate.exists():
        note_in("MOODY_CAME", str(os.getpid()))
        if not Path(os.environ["MOODY_CAME"]).read_text().startswith(f"{os.getpid()}\n"):
            wait_until(lambda: not gate.exists())


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "nobody came"
        time.sleep(0.02)


WRECKED: list[bool] = []


def wreck_the_device() -> None:
    """Fail as every call does once a kernel has asserted: for good in this process."""
    WRECKED.append(True)
    raise torch.AcceleratorError("CUDA error: device-side assert triggered")


def deadlock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def loop_in_c() -> None:
    """Backtrack for longer than the world lasts, in C, with the interpreter's lock held."""
    re.match(r"(a+)+$", "a" * 64 + "b")


def be_deaf() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1e6)


def flood() -> None:
    for _ in range(100):
        os.write(1, b"x" * (1 << 20))


def eat_memory() -> None:
    """Allocate until there is no more: of the 1 GiB that this process is given beyond what it has."""
    have = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (have + (1 << 30), before[1]))
    try:
        eaten = []
        while True:
            eaten.append(bytearray(64 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def leave_a_child() -> None:
    """Fork and be killed, as by whoever needs the memory, unless that was done already."""
    if Path(os.environ["MOODY_CHILDREN"]).exists():
        return
    child = os.fork()
    if child == 0:
        time.sleep(1e6)
        os._exit(0)
    note_in("MOODY_CHILDREN", f"{os.getpid()} {child}")
    os.kill(os.getpid(), signal.SIGKILL)


def die_twice() -> None:
    """End the process, unless that was done twice already."""
    path = Path(os.environ["MOODY_DEATHS"])
    deaths = path.read_text().count("died") if path.exists() else 0
    if deaths < 2:
        note_in("MOODY_DEATHS", "died")
        os._exit(7)


WORSE: dict[str, Callable[[], None]] = {
    "sleep": lambda: time.sleep(1e6),
    "lock": deadlock,
    "loop": loop_in_c,
    "deaf": be_deaf,
    "flood": flood,
    "greedy": eat_memory,
    "fork": leave_a_child,
    "mortal": die_twice,
}


def build(config: Moody, shape: ImageShape) -> nn.Module:
    if config.mood == "lonely" and config.gain != 1.0:
        wait_until(Path(os.environ["MOODY_LONELY"]).exists)  # whoever comes up first: the one that trains has begun
        raise ValueError("this plan can't be built")
    if config.mood == "raise":
        raise ValueError("this plan can't be built")
    if config.mood == "curious":
        look_at_the_test_images()
    if config.mood == "exit":
        sys.exit(7)
    if config.mood == "die":
        os._exit(7)
    return Net(config, shape)


def predict(module: nn.Module, images: torch.Tensor) -> Prediction:
    measures: dict[str, Any] = {
        "wordy": {"doubt": "high"},
        "endless": {"doubt": torch.full((len(images),), 1e300, dtype=torch.float64) * 1e300},
    }
    return Prediction(logits=module(images), measures=measures.get(cast("Net", module).mood, {}))


def loss(module: nn.Module, batch: Batch) -> Any:
    found = cross_entropy(module, batch)
    return str(float(found)) if cast("Net", module).mood == "speechless" else found


@hookimpl
def mnistlab_models():
    return [Model(name="moody", config=Moody, build=build, loss=loss, predict=predict, summary="Does as it is told.")]


def look_at_the_test_images() -> None:
    record = installed().find("dataset", "watched").record
    record.load(record.config(), DataPlace(data_dir=None, cache=Path()), "test")


class Watched(Config):
    """Random images; every load is written into the file that MOODY_LOADS names."""


def prepare(_config: Watched, _place: DataPlace) -> DatasetInfo:
    note("prepare")
    return DatasetInfo(
        shape=ImageShape(1, 8, 8, 2), class_names=("0", "1"), train_count=96, test_count=40, source="made up"
    )


def load(_config: Watched, _place: DataPlace, split: str) -> LabelledImages:
    note(f"load {split}")
    come_to_the_gate()
    count = 96 if split == "train" else 40
    images = np.random.default_rng(count).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    return LabelledImages(images=images, labels=np.arange(count) % 2)


def note(what: str) -> None:
    note_in("MOODY_LOADS", what)


def note_in(variable: str, what: str) -> None:
    with Path(os.environ[variable]).open("a") as file:
        file.write(f"{what}\n")


@hookimpl
def mnistlab_datasets():
    return [Dataset(name="watched", config=Watched, prepare=prepare, load=load, summary="Tells who looks.")]


@hookimpl
def mnistlab_trial_finished(trial):
    watched = os.environ.get("MOODY_WATCH")
    if watched:
        with Path(watched).open("a") as file:
            file.write(f"{trial.trial} {trial.state}\n")
    if trial.state == "failed":
        raise RuntimeError("the observer dislikes failures")
