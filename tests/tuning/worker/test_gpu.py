"""What a worker does with the GPU that Ray gives it, on a machine that has none: Ray and CUDA are played."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mnistlab.training import loop
from mnistlab.training.causes import cause_named
from mnistlab.tuning.retries import Loss, Retries
from mnistlab.tuning.worker import gpu
from mnistlab.tuning.worker import trial as worker
from mnistlab.tuning.worker.gpu import Given
from mnistlab.tuning.worker.leaving import LastWords
from mnistlab.tuning.worker.output import NotCaptured
from mnistlab.tuning.worker.watchdog import Watch

GIB = 2**30


class Left(BaseException):
    """The process would have ended."""


class Machine:
    """Plays Ray and CUDA; CUDA reads the environment once, when it is first asked."""

    def __init__(self, patch: pytest.MonkeyPatch, total_gib: float = 24.0) -> None:
        self.resources: dict[str, Any] = {}
        self.seen: str | None = None
        self.fraction = float("nan")
        self.left: list[tuple[str, str]] = []
        self.context = SimpleNamespace(
            get_accelerator_ids=lambda: {"GPU": self.resources["ids"]},
            get_assigned_resources=lambda: {"GPU": self.resources["share"]},
        )
        properties = SimpleNamespace(total_memory=total_gib * GIB)
        patch.setattr(gpu.ray, "get_runtime_context", lambda: self.context)
        patch.setattr(gpu, "_began_with", None)
        patch.setattr(gpu, "leave", self._leave)
        patch.setattr(torch.cuda, "is_available", self._is_available)
        patch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)
        patch.setattr(torch.cuda, "set_per_process_memory_fraction", self._limit)

    def gives(self, *ids: str, share: float = 0.25) -> torch.device:
        """Give a task GPUs, as Ray does, and return the device on which it would train."""
        self.resources = {"ids": list(ids), "share": share}
        return worker.device_of(SimpleNamespace(cpus=1, gpus=0.25, here=None))  # type: ignore[arg-type]

    def _is_available(self) -> bool:
        self.seen = os.environ["CUDA_VISIBLE_DEVICES"] if self.seen is None else self.seen
        return True

    def _limit(self, fraction: float, device: int) -> None:
        assert device == 0
        self.fraction = fraction

    def _leave(self, cause: str, message: str) -> None:
        self.left.append((cause, message))
        raise Left


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    threads = torch.get_num_threads()
    yield Machine(monkeypatch)
    torch.set_num_threads(threads)


# --- which GPU ----------------------------------------------------------------------------------------------------


def test_tasks_of_one_process_use_the_gpu_that_they_are_given(machine: Machine) -> None:
    for _ in range(3):
        assert machine.gives("2") == torch.device("cuda", 0)  # the first of those that it sees
    assert machine.seen == "2"
    assert not machine.left


def test_a_task_with_another_gpu_than_its_process_began_with_ends_the_process(machine: Machine) -> None:
    machine.gives("2")
    with pytest.raises(Left):
        machine.gives("0")
    assert machine.left == [("moved", "its process began with GPU 2 and can't use GPU 0")]


def test_several_gpus_are_the_same_in_any_order(machine: Machine) -> None:
    machine.gives("1", "0", share=2.0)
    machine.gives("0", "1", share=2.0)
    assert not machine.left
    with pytest.raises(Left):
        machine.gives("0")


def test_a_task_without_gpus_asks_neither_ray_nor_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "given", lambda: pytest.fail("Ray was asked"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("CUDA was asked"))
    assert worker.device_of(SimpleNamespace(cpus=1, gpus=0.0, here=None)) == torch.device("cpu")  # type: ignore[arg-type]


def test_a_process_that_ends_for_its_gpu_counts_against_nobody() -> None:
    retries = Retries(more_room=False)
    loss = Loss("moved", "its process began with GPU 2", LastWords("moved", "its process began with GPU 2"))
    assert all(retries.takes("0001-1", loss) for _ in range(50))
    assert all(retries.takes("0001-1", Loss("worker", "gone")) for _ in range(3))  # none of them is used up
    assert not cause_named("moved").infeasible


# --- how much of its memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "gib"),
    [
        (0.25, 6.0 - gpu.CONTEXT_GIB),
        (0.125, 3.0 - gpu.CONTEXT_GIB),
        (0.0001, 3.0 - gpu.CONTEXT_GIB),  # many at once, whatever they take
        (1.0, 24.0),
        (2.0, 24.0),
    ],
)
def test_a_process_takes_its_share_of_the_memory_and_no_more(machine: Machine, share: float, gib: float) -> None:
    machine.gives("0", share=share)
    assert machine.fraction * 24 == pytest.approx(gib)


def test_a_small_gpu_gives_no_more_than_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Machine(monkeypatch, total_gib=2.0)
    small.gives("0", share=0.5)
    assert small.fraction == 1.0


def test_who_gets_a_whole_gpu_after_a_share_is_limited_no_more(machine: Machine) -> None:
    machine.gives("0", share=0.25)
    machine.gives("0", share=1.0)
    assert machine.fraction == 1.0


def test_between_two_trials_nothing_of_the_first_is_kept_from_other_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Network:
        def __init__(self) -> None:
            self.itself = self  # only the collector can free it

    first = Network()
    kept, freed = weakref.ref(first), list[bool]()
    shared: Any = SimpleNamespace(checkpoint_seconds=1.0, trial_seconds=None, more_nodes=False)
    trial: Any = worker.Worker(shared, NotCaptured(), Watch(None))
    trial._training, trial._failure = first, None
    del first
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(kept() is None))
    monkeypatch.setattr(worker, "judged", lambda *_, **__: "plugin")
    monkeypatch.setattr(worker, "ready", lambda _shared: _raise(RuntimeError("the next trial begins")))
    trial.begin("{}")
    assert freed == [True]


def _raise(error: Exception) -> None:
    raise error


# --- what torch warns of ------------------------------------------------------------------------------------------

TRIALS = """
import os, sys, warnings
import torch
from pathlib import Path
from mnistlab.training.precision import deterministic
from mnistlab.tuning.worker.output import Capture, hear_nondeterminism
capture = Capture(Path(sys.argv[1]))
capture.start()
for trial in range(2):
    hear_nondeterminism()
    with deterministic():
        for step in range(3):
            with warnings.catch_warnings():  # as libraries do; it makes Python forget what it has told
                torch.zeros(4).put_(torch.tensor([0]), torch.ones(1))
            warnings.warn("cumsum_cuda_kernel does not have a deterministic implementation, but", UserWarning)
            warnings.warn("lr_scheduler has something to say to its developers", UserWarning)
            warnings.warn("this is deprecated", DeprecationWarning)
    os.write(4, (capture.take() + "@@@").encode())
"""


@pytest.mark.simulated
def test_operations_without_a_deterministic_form_are_named_once_in_the_log_of_each_trial(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    command = [sys.executable, "-c", f"import os; os.dup2({writer}, 4)\n{TRIALS}", str(tmp_path / "log")]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command, env=environment, check=True, timeout=120, pass_fds=[writer])
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as file:
        *logs, rest = file.read().split("@@@")
    assert (len(logs), rest) == (2, "")
    for log in logs:
        assert log.count("UserWarning: put_ does not have a deterministic implementation") == 1
        assert log.count("UserWarning: cumsum_cuda_kernel does not have") == 1
        assert "developers" not in log
        assert "deprecated" not in log


def test_the_arithmetic_of_a_gpu_is_asked_of_cublas_before_it_starts(machine: Machine) -> None:
    assert machine.gives("0").type == "cuda"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert Given(("0",), 0.25) == gpu.given()
    assert loop.set_up_process(1, gpu=False).type == "cpu"
