"""How a worker judges a failure, and ends itself where it can't train any more; without a Ray and without a GPU."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from mnistlab.errors import DataError, MissingPluginError
from mnistlab.tuning.ray.trainable import PlanTrainable
from mnistlab.tuning.retries import Leftover, Loss, log_of, loss_of
from mnistlab.tuning.worker import leaving, replicate, trial
from mnistlab.tuning.worker.leaving import (
    MARK,
    LackError,
    LastWords,
    device_is_lost,
    judged,
    lacking,
    last_words,
    leave,
)
from mnistlab.tuning.worker.output import NotCaptured
from mnistlab.tuning.worker.trial import NoRoomError, Worker
from mnistlab.tuning.worker.watchdog import Watch

ASSERT = torch.AcceleratorError("CUDA error: device-side assert triggered")


class LeftError(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that holds what this process prints; an end of the process is LeftError."""

    def end(code: int) -> None:
        raise LeftError(code)

    file = tmp_path / "log"
    monkeypatch.setattr(os, "_exit", end)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    monkeypatch.setattr(leaving, "LOG", descriptor)
    yield file
    os.close(descriptor)


# --- last words ---------------------------------------------------------------------------------------------------


def test_what_a_worker_says_last_is_why_its_trial_has_none(log: Path) -> None:
    os.write(leaving.LOG, b"printed before\n")
    with pytest.raises(LeftError):
        leave("device", "AcceleratorError: it\nbroke")
    left = Leftover("what Ray says", log.read_text())
    loss = loss_of(left, 1.0, None)
    assert loss == Loss("device", "AcceleratorError: it\nbroke")
    assert loss.words == LastWords("device", "AcceleratorError: it\nbroke", leaving.place_here())
    assert log_of(left, loss).split("\n")[0] == "printed before"
    assert MARK not in log_of(left, loss)


def test_on_a_full_disk_what_the_log_held_makes_room_for_why(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.write(leaving.LOG, b"x" * 1000)
    write = os.write

    def refuses(descriptor: int, data: bytes) -> int:
        if log.stat().st_size + len(data) > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", refuses)
    with pytest.raises(LeftError):
        leave("disk", "OSError: full")
    assert last_words(log.read_text()) == LastWords("disk", "OSError: full", leaving.place_here())


@pytest.mark.parametrize(
    "text", ["", "printed", MARK + "{", MARK + '"x"', MARK + '{"cause": "disk"}', MARK + '{"a": 1}', f"{MARK}1\nmore"]
)
def test_other_ends_of_a_log_say_nothing(text: str) -> None:
    assert last_words(text) is None


# --- whose fault it is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "cause"),
    [
        (DataError("truncated"), "data"),
        (ValueError("whatever a dataset's plugin raises"), "data"),
        (SystemExit(1), "data"),
        (MissingPluginError("no installed plugin offers dataset 'x'"), "missing"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory"),
        (ASSERT, "device"),
    ],
)
def test_what_goes_wrong_before_any_plan_is_no_plans_fault(raised: BaseException, cause: str) -> None:
    with pytest.raises(LackError) as caught, lacking("data"):
        raise raised
    assert judged(caught.value) == cause
    assert leaving.one_line(caught.value) == leaving.one_line(raised)


@pytest.mark.parametrize(
    ("part", "cause"), [("select", "missing"), ("device_of", "device"), ("data_for", "data"), ("none", "")]
)
def test_what_a_worker_could_not_get_ready_names_the_cause(
    part: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(name: str) -> Any:
        if name == part:
            raise RuntimeError("it says nothing of why")
        return name

    for name in ("select", "device_of", "data_for"):
        monkeypatch.setattr(trial, name, lambda *_, name=name: get(name))
    with pytest.raises(LackError) if cause else nullcontext() as caught:
        assert trial.ready(cast("Any", SimpleNamespace(plugins=None, here=None))) == ("select", "data_for")
    assert not cause or judged(cast("Any", caught).value) == cause


@pytest.mark.parametrize(
    ("more_nodes", "begun", "cause"),
    [(True, False, "absent"), (False, False, "plugin"), (True, True, "plugin")],
)
def test_a_file_that_a_plan_misses_is_looked_for_on_another_node(more_nodes: bool, begun: bool, cause: str) -> None:
    missed = ModuleNotFoundError("No module named 'timm'")
    assert judged(missed, more_nodes=more_nodes, begun=begun) == cause


class FakeCuda:
    """A device whose every call does as `error` says."""

    def __init__(self, patch: pytest.MonkeyPatch, error: Exception | None, value: float = 2.0) -> None:
        patch.setattr(torch.cuda, "is_initialized", lambda: True)
        patch.setattr(torch.cuda, "synchronize", lambda: None)
        patch.setattr(torch, "ones", self.ones)
        self._error, self._value = error, value

    def ones(self, *_: object, device: str) -> Any:
        assert device == "cuda"
        if self._error:
            raise self._error
        return SimpleNamespace(add_=lambda _: self._value)


@pytest.mark.parametrize(
    ("error", "value", "lost"),
    [
        (None, 2.0, False),
        (None, 0.0, True),
        (ASSERT, 2.0, True),
        (RuntimeError("whatever a dead context says"), 2.0, True),
        (torch.OutOfMemoryError("CUDA out of memory"), 2.0, False),
    ],
)
def test_a_device_is_lost_when_it_does_no_work(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, value: float, lost: bool
) -> None:
    FakeCuda(monkeypatch, error, value)
    assert device_is_lost() is lost
    assert judged(KeyError("what the plugin made of it")) == ("device" if lost else "plugin")


def test_a_process_without_a_gpu_asks_none(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda(monkeypatch, ASSERT)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert not device_is_lost()


# --- what a worker does -------------------------------------------------------------------------------------------


def failed(error: BaseException, **shared: object) -> Worker:
    """A trial in a worker that has failed by `error`."""
    common = SimpleNamespace(**{"more_nodes": False, "more_room": False, "here": None, **shared})
    one: Any = Worker(cast("Any", common), NotCaptured(), Watch(None))
    one._training, one._task = None, {"plan": {"training": {"epochs": 2}}, "seed": 0}
    one._fail(error)
    return one


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("x"), "plugin"),
        (torch.OutOfMemoryError("x"), "memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "memory"),
        (FileNotFoundError("x"), "plugin"),
    ],
)
def test_what_is_the_plans_is_an_answer_and_the_process_lives_on(error: BaseException, cause: str, log: Path) -> None:
    answer = failed(error).step()
    assert (answer["cause"], answer["done"]) == (cause, True)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ASSERT, "device"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (OSError(errno.EMFILE, "Too many open files"), "system"),
        (LackError("data", "DataError: truncated"), "data"),
        (MissingPluginError("no installed plugin offers model 'x'"), "missing"),
    ],
)
def test_any_other_failure_ends_the_process(error: BaseException, cause: str, log: Path) -> None:
    with pytest.raises(LeftError):
        failed(error).step()
    words = last_words(log.read_text())
    assert words is not None
    assert words.cause == cause


def test_a_lack_of_memory_ends_the_process_where_there_is_more_of_it(log: Path) -> None:
    with pytest.raises(NoRoomError, match="CUDNN_STATUS_ALLOC_FAILED"):
        failed(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), more_room=True).step()


@pytest.mark.parametrize(
    ("error", "leaves"),
    [(ValueError("x"), False), (ASSERT, True), (OSError(errno.EDQUOT, "Disk quota exceeded"), True)],
)
def test_a_replicates_process_is_given_no_other_task_after_such_a_failure(
    monkeypatch: pytest.MonkeyPatch, log: Path, error: BaseException, leaves: bool
) -> None:
    def fails(*_: object) -> Iterator[Any]:
        yield from ()
        raise error

    nothing = SimpleNamespace(begin=lambda _: None, remove=lambda: None, take=lambda: "")
    monkeypatch.setattr(replicate, "_watched", lambda *_: (nothing, nothing))
    monkeypatch.setattr(replicate, "_trained", fails)
    shared: Any = SimpleNamespace(trial_seconds=None, more_nodes=False, here=None)
    answers = list[Any]()
    with suppress(LeftError):
        answers += replicate.train_replicate(shared, replicate.ReplicateTask("0001", 1, 0, {}))
    assert (answers == []) is leaves
    assert (last_words(log.read_text()) is not None) is leaves


def test_a_checkpoint_that_the_disk_refuses_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, log: Path, tmp_path: Path
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    one = cast("Any", failed(ValueError("x")))
    one._failure, one._training = None, SimpleNamespace(epoch=1)
    one._watch = SimpleNamespace(over=nullcontext)
    process: Any = SimpleNamespace(_worker=one)
    monkeypatch.setattr(trial.loop, "state", lambda _: {})
    monkeypatch.setattr(trial.weights, "pack", lambda _: b"state")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LeftError):
        PlanTrainable.save_checkpoint(process, str(tmp_path))
    assert json.loads(log.read_text().rpartition(MARK)[2])["cause"] == "disk"
