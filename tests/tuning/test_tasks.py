"""Tasks that lose their workers or lack memory: what becomes of them, by a Ray that is played."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.exceptions import WorkerCrashedError

from mnistlab.errors import ExitCode, MachineError
from mnistlab.tuning.ray import remote
from mnistlab.tuning.ray.nodes import Nodes, NoNodeError
from mnistlab.tuning.resources import Share
from mnistlab.tuning.retries import BROKEN_FOR
from mnistlab.tuning.tasks import run_tasks
from mnistlab.tuning.worker import replicate
from mnistlab.tuning.worker.leaving import MARK
from mnistlab.tuning.worker.messages import Answer, Progress

DUMP = "Timeout (0:00:02)!\nThread 0x00007f (most recent call first):\n"
CRASH = WorkerCrashedError()


@dataclass(frozen=True)
class Step(Progress):
    number: int


@dataclass(frozen=True)
class Job:
    name: str


@dataclass
class FakeRay:
    """Answers as Ray does: each task has a script, by attempt, of what its stream yields, errors included."""

    scripts: dict[str, list[list[Any]]]
    logs: dict[str, str] = field(default_factory=dict)
    given: list[tuple[str, int, float, int]] = field(default_factory=list)
    selectors: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    shared: Any = None

    def put(self, value: Any) -> Any:
        self.shared = value
        return value

    def remote(self, _function: Any) -> Any:
        def options(
            *, num_cpus: int, num_gpus: float, max_retries: int, label_selector: dict[str, str] | None = None
        ) -> Any:
            def begin(_shared: Any, task: Job) -> Iterator[Any]:
                self.given.append((task.name, num_cpus, num_gpus, max_retries))
                self.selectors.append(label_selector or {})
                return iter(self.scripts[task.name].pop(0))

            return SimpleNamespace(remote=begin)

        return SimpleNamespace(options=options)

    def wait(self, streams: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return streams[:1], streams[1:]

    def get(self, said: Any) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    def cancel(self, stream: Any, *, force: bool) -> None:
        self.given.append(("cancelled", 0, 0, 0))


Run = Callable[..., tuple[FakeRay, list[Any], list[str]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run scripted tasks; return the fake, what came of them, and who was started and who began anew."""

    def run(
        scripts: dict[str, list[list[Any]]],
        logs: dict[str, str] | None = None,
        *,
        room: Share | None = None,
        parallel: int = 1,
        nodes: Nodes | None = None,
        **ways: Any,
    ) -> tuple[FakeRay, list[Any], list[str]]:
        fake, told = FakeRay(scripts, logs or {}), list[str]()
        monkeypatch.setattr(remote, "ray", fake)
        monkeypatch.setattr(remote, "taken", lambda name: fake.logs.get(name, ""))
        shared = _Shared()
        search: Any = SimpleNamespace(
            executor=SimpleNamespace(streams=remote.streams),
            shared=shared,
            share=Share(1, 0.0, parallel),
            room=room,
            again="mnistlab resume x",
            nodes=nodes or Nodes(lambda: {"a": "192.0.2.1"}),
            store=SimpleNamespace(path=tmp_path),
            tick=lambda: None,
        )
        came = run_tasks(
            search,
            lambda _shared, _task: iter(()),
            [Job(name) for name in scripts],
            started=lambda task: told.append(f"{task.name} started"),
            anew=lambda task, lost: told.append(f"{task.name} anew: {lost.cause}"),
            whatever_the_disk=True,
            **ways,
        )
        return fake, [(task.name, said) for task, said in came], told

    return run


@dataclass(frozen=True)
class _Shared:
    trial_seconds: float | None = 7.0


def test_what_was_told_before_a_worker_died_is_not_told_again(run: Run) -> None:
    one, two, end = Step(1), Step(2), Answer(log="done")
    fake, came, told = run({"a": [[one, CRASH], [one, CRASH], [one, two, end]]})
    assert came == [("a", one), ("a", two), ("a", end)]
    assert told == ["a started", "a anew: worker", "a anew: worker"]
    assert [retries for *_, retries in fake.given] == [0, 0, 0]  # Ray tries nothing again by itself


def test_an_answer_that_comes_sooner_than_in_the_attempt_before_is_told(run: Run) -> None:
    broken = Answer(cause="plugin", message="it broke")
    _, came, _ = run({"a": [[Step(1), Step(2), CRASH], [Step(1), broken]]})
    assert came == [("a", Step(1)), ("a", Step(2)), ("a", broken)]


def test_a_worker_that_dies_when_all_was_said_loses_nothing(run: Run) -> None:
    _, came, told = run({"a": [[Answer(), CRASH]], "b": [[Answer()]]})
    assert came == [("a", Answer()), ("b", Answer())]
    assert told == ["a started", "b started"]


def test_a_task_is_given_up_after_three_more_workers_and_says_why(run: Run) -> None:
    _, came, told = run({"a": [[CRASH]] * 4, "b": [[Answer()]]}, {"a": "printed\n"})
    (_, lost), last = came
    assert (lost.cause, last) == ("worker", ("b", Answer()))
    assert "worker lost" in lost.message
    assert lost.log.startswith("printed\n")
    assert str(CRASH) in lost.log
    assert told.count("a anew: worker") == 3


@pytest.mark.parametrize(("limit", "cause"), [(None, "hang"), (1e9, "hang"), (0.0, "timeout")])
def test_a_task_that_hangs_is_not_tried_again_and_keeps_its_stacks(run: Run, limit: float | None, cause: str) -> None:
    fake, came, told = run({"a": [[Step(1), CRASH]]}, {"a": DUMP}, limit=limit)
    (_, (_, lost)) = came
    assert (lost.cause, DUMP in lost.log) == (cause, True)
    assert told == ["a started"]
    assert fake.shared.trial_seconds == limit  # that is where the worker finds it


def test_without_memory_a_task_begins_anew_alone_with_all_of_a_device_once(run: Run) -> None:
    full = Answer(cause="memory", message="out of memory")
    scripts = {"a": [[full], [Step(1), full]], "b": [[Step(1), Answer()]], "c": [[Answer()]]}
    fake, came, told = run(scripts, room=Share(4, 1.0, 1), parallel=2)
    assert [entry[:3] for entry in fake.given] == [("a", 1, 0.0), ("b", 1, 0.0), ("a", 4, 1.0), ("c", 1, 0.0)]
    assert told == ["a started", "b started", "a anew: memory", "c started"]
    assert came == [("b", Step(1)), ("b", Answer()), ("a", Step(1)), ("a", full), ("c", Answer())]


def test_without_memory_and_without_more_of_it_a_task_has_failed(run: Run) -> None:
    full = Answer(cause="memory", message="out of memory")
    _, came, told = run({"a": [[full]]})
    assert (came, told) == ([("a", full)], ["a started"])


def test_what_runs_is_given_up_once_a_stop_is_asked_for(run: Run) -> None:
    fake, came, _ = run({"a": [[Step(1), Answer()]], "b": [[Answer()]]}, stopping=lambda: True)
    assert came == [("a", Step(1))]
    assert fake.given[-1][0] == "cancelled"


def ends_by(cause: str, node: str) -> str:
    return f"{MARK}{json.dumps({'cause': cause, 'message': f'{cause}!', 'place': f'{node}/'})}\n"


def test_a_task_goes_to_another_node_when_its_own_lacks_something(run: Run) -> None:
    said = list[str]()
    nodes = Nodes(lambda: {"a": "10.0.0.1", "b": "10.0.0.2"}, said.append)
    scripts = {"a": [[CRASH], [Answer()]], "b": [[Answer()]]}
    fake, came, told = run(scripts, {"a": ends_by("data", "b")}, nodes=nodes)
    assert came == [("a", Answer()), ("b", Answer())]
    assert told == ["a started", "a anew: data", "b started"]
    assert fake.selectors == [{}, {"ray.io/node-id": "!in(b)"}, {"ray.io/node-id": "!in(b)"}]
    assert [text.startswith("node 10.0.0.2 lacks the data") for text in said] == [True]


def test_tasks_end_when_no_node_is_left_and_are_on_no_record(run: Run) -> None:
    scripts = {"a": [[CRASH]], "b": [[Answer()]]}
    with pytest.raises(NoNodeError, match="no node is left to train on: node 192") as raised:
        run(scripts, {"a": ends_by("disk", "a")})
    assert raised.value.exit_code == ExitCode.RESOURCES_VANISHED


@pytest.mark.parametrize("works", [[Step(1, place="a/"), Answer()], [Answer(place="a/")]], ids=["progress", "answer"])
def test_a_device_on_which_others_train_in_between_is_not_broken(run: Run, works: list[Any]) -> None:
    names = [f"t{n}" for n in range(BROKEN_FOR + 1)]
    lost = {name: ends_by("device", "a") for name in names}
    _, came, _ = run({name: [[CRASH], works] for name in names}, lost)
    assert came == [(name, said) for name in names for said in works]
    with pytest.raises(NoNodeError, match="loses its device in one trial after the other"):
        run({name: [[CRASH], [Answer(cause="plugin", place="a/")]] for name in names}, lost)


def test_a_task_that_misses_a_file_on_two_nodes_has_failed_by_its_own_fault(run: Run) -> None:
    nodes = Nodes(lambda: {"a": "10.0.0.1", "b": "10.0.0.2"})
    fake, came, _ = run({"a": [[CRASH], [CRASH]]}, {"a": ends_by("absent", "b")}, nodes=nodes)
    ((_, lost),) = came
    assert (lost.cause, lost.message) == ("plugin", "absent!")
    assert fake.selectors == [{}, {"ray.io/node-id": "!in(b)"}]


def test_a_machine_that_fails_one_task_after_the_other_ends_them(run: Run) -> None:
    names = [f"t{n}" for n in range(8)]
    with pytest.raises(MachineError, match="5 trainings in a row failed through no fault of their plans") as raised:
        run({name: [[CRASH]] * 4 for name in names})
    assert raised.value.exit_code == ExitCode.RESOURCES_VANISHED


def test_a_gpu_s_memory_is_given_back_before_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        """What would be on the GPU; it is part of a cycle, as modules are."""

        def __init__(self) -> None:
            self.itself = self

    trained: list[weakref.ref[Model]] = []
    freed: list[bool] = []

    def out_of_memory(*_: Any) -> Iterator[Any]:
        trained.append(weakref.ref(Model()))
        model = Model()
        trained.append(weakref.ref(model))
        yield Step(1)
        raise torch.OutOfMemoryError("no more")

    nothing = SimpleNamespace(begin=lambda _: None, remove=lambda: None, take=lambda: "")
    monkeypatch.setattr(replicate, "_watched", lambda *_: (nothing, nothing))
    monkeypatch.setattr(replicate, "_trained", out_of_memory)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(all(one() is None for one in trained)))
    shared: Any = SimpleNamespace(trial_seconds=None, more_nodes=False, here=None)
    *_, answer = replicate.train_replicate(shared, replicate.ReplicateTask("0001", 1, 0, {}))
    assert (answer.cause, freed) == ("memory", [True])
