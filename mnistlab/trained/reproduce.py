"""The same plan with the same seed once more, and whether the numbers agree."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mnistlab.data.device import DeviceData, to_device
from mnistlab.experiment.dataset import Data
from mnistlab.experiment.versions import version_here
from mnistlab.plugins.registry import Registry
from mnistlab.store.results import ReplicateResult, RunRecord, TrialResult
from mnistlab.trained.selection import Chosen
from mnistlab.training import loop, weights
from mnistlab.training.causes import cause_of

TIMES = frozenset({"images_per_second", "seconds"})  # they tell of the machine, not of the training


@dataclass(frozen=True)
class Apart:
    """A number that came out otherwise than in the run; `now` is None where it did not come out at all."""

    epoch: int
    metric: str
    then: float
    now: float | None

    @property
    def distance(self) -> float:
        """Return how far they are apart."""
        return float("inf") if self.now is None else abs(self.now - self.then)


@dataclass(frozen=True)
class Epoch:
    """An epoch that was trained again: its metrics, and those of them that differ from the run's."""

    number: int
    metrics: Mapping[str, float]
    apart: tuple[Apart, ...]


@dataclass
class Again:
    """A training that is done again. Filled while `epochs` is consumed."""

    chosen: Chosen
    plan: Mapping[str, Any]
    data: DeviceData
    registry: Registry
    numbers: int = 0  # that were compared
    apart: list[Apart] = field(default_factory=list[Apart])
    weights_agree: bool | None = None  # None: the run kept no weights of this training
    broke: str = ""  # the word for why it failed this time; "" if it did not

    @property
    def agrees(self) -> bool:
        """Return whether everything that could be compared is exactly as it was in the run."""
        return not self.apart and self.weights_agree is not False and self.broke == self.chosen.result.cause

    def largest(self) -> list[Apart]:
        """Return of each metric that differs the epoch in which it is furthest from the run's."""
        names = dict.fromkeys(one.metric for one in self.apart)
        return [max((a for a in self.apart if a.metric == name), key=lambda a: a.distance) for name in names]

    def epochs(self) -> Iterator[Epoch]:
        """Train as many epochs as the run did and compare each with the run's.

        Raises:
            Exception: whatever a plugin raises, unless the run's training failed for the same kind of cause.
        """
        history = self.chosen.result.history
        try:
            begun = loop.begin(self.plan, self.chosen.result.seed, self.data, self.registry, _budget(self.chosen))
            for then in history:
                metrics = loop.run_epoch(begun)
                apart = compare(begun.epoch, then, metrics)
                self.apart += apart
                self.numbers += len(then.keys() - TIMES)
                yield Epoch(begun.epoch, metrics, apart)
            if self.chosen.result.cause and begun.epoch < begun.epochs:
                loop.run_epoch(begun)  # the one in which the run's training failed
        except (Exception, SystemExit) as error:
            self.broke = cause_of(error)
            if self.broke not in {self.chosen.result.cause, "nan"}:
                raise
        else:
            self.weights_agree = _same_weights(self.chosen, begun)


def again(chosen: Chosen, plan: Mapping[str, Any], data: Data, registry: Registry, device: torch.device) -> Again:
    """Return the training of `chosen` made ready to be done again on `device`.

    `plan` is the run's, perhaps with other versions of its plugins.
    """
    uploaded = to_device(data.images, data.division, data.info.shape, device)
    return Again(chosen, plan, uploaded, registry)


def _budget(chosen: Chosen) -> float | None:
    """Return the budget of a trial's last training, None for the plan's."""
    return chosen.result.budget if isinstance(chosen.result, TrialResult) else None


def compare(epoch: int, then: Mapping[str, float], now: Mapping[str, float]) -> tuple[Apart, ...]:
    """Return the metrics of an epoch that are not exactly the run's; times are left out."""
    names = [name for name in then if name not in TIMES]
    return tuple(Apart(epoch, name, then[name], now.get(name)) for name in names if now.get(name) != then[name])


def _same_weights(chosen: Chosen, begun: loop.Training) -> bool | None:
    result = chosen.result
    if not isinstance(result, ReplicateResult) or not result.weights_sha256:
        return None
    return hashlib.sha256(weights.pack_weights(begun.module)).hexdigest() == result.weights_sha256


# --- where two machines may differ --------------------------------------------------------------------------------


def machine_here(device: torch.device, threads: int) -> dict[str, str]:
    """Return what is known of this process's machine under the words that `differences` uses."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "processor": platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "CPU threads": str(threads),
    }


def differences(record: RunRecord, here: Mapping[str, str]) -> Iterator[str]:
    """Yield in words what of the machine and the versions in `run.json` is another here.

    A run on GPUs differs in its device unless the GPU here is one that it names.
    """
    machine: Mapping[str, Any] = record.run.get("machine", {})
    on_gpu, named = float(machine.get("gpus_per_trial", 0)) > 0, str(machine.get("device", ""))
    if on_gpu != (here["device"] != "CPU") or (on_gpu and here["device"] not in named):
        yield f"device: {here['device']} here, {named if on_gpu else 'CPU'} then"
    then = {
        "processor": machine.get("processor"),
        "system": machine.get("system"),
        "CPU threads": machine.get("cpus_per_trial"),
    }
    yield from _unlike(then, here)
    versions: Mapping[str, Any] = record.run.get("versions", {})
    yield from _unlike(versions, {name: version_here(name) for name in versions})


def _unlike(then: Mapping[str, Any], here: Mapping[str, str]) -> Iterator[str]:
    for name, value in then.items():
        if value is not None and str(value) != here[name]:
            yield f"{name}: {here[name]} here, {value} then"


def device_for(record: RunRecord, threads: int, set_up: Callable[..., torch.device]) -> torch.device:
    """Set up this process as the run's workers were and return the device: a GPU only where the run had one."""
    return set_up(threads, gpu=float(record.run.get("machine", {}).get("gpus_per_trial", 0)) > 0)


def threads_of(record: RunRecord) -> int:
    """Return how many CPU threads a trial of the run had."""
    return max(1, int(record.run.get("machine", {}).get("cpus_per_trial", 1)))


def verdict(one: Again) -> Sequence[str]:
    """Return in lines whether the numbers agree, or how far they are apart."""
    if one.agrees:
        what = f"{len(one.chosen.result.history)} epochs, {one.numbers} numbers"
        kept = " and the weights" if one.weights_agree else "; the run kept no weights of this training"
        failed = f"; it failed again ({one.broke})" if one.broke else kept
        return [f"Agrees exactly: {what}{failed}"]
    lines = ["Does not agree:"]
    if one.broke != one.chosen.result.cause:
        lines.append(f"  the training failed now: {one.broke or 'no'}, then: {one.chosen.result.cause or 'no'}")
    if one.apart:
        lines.append(f"  {len(one.apart)} of {one.numbers} numbers differ, the first in epoch {one.apart[0].epoch}")
    lines += [f"  {a.metric}: {a.now} now, {a.then} then, in epoch {a.epoch}" for a in one.largest()]
    if one.weights_agree is False:
        lines.append("  the weights are others (sha256)")
    return lines
