"""What a joined cluster says of its GPUs, mostly without a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ray
from ray.exceptions import RaySystemError

from mnistlab.experiment.spec import ResourcesSpec
from mnistlab.tuning.ray import cluster_gpus
from mnistlab.tuning.resources import Gpu, Share, gpus_here, share

A100, T4 = Gpu("NVIDIA A100", 80.0), Gpu("Tesla T4", 15.0)


def id_of(name: str) -> str:
    """Return an id of a node as Ray has them: 28 bytes."""
    return name.encode().hex().ljust(56, "0")


class Cluster:
    """Nodes by name: CPUs, GPUs that Ray was given, and what the node answers; None for one that is late."""

    def __init__(self, **there: tuple[int, float, list[Gpu] | Exception | None]) -> None:
        self.there = there
        self.options: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.cancelled: list[str] = []

    def nodes(self) -> list[dict[str, Any]]:
        alive = [
            {
                "NodeID": id_of(name),
                "NodeManagerHostname": name,
                "Alive": True,
                "Resources": {"CPU": float(cpus), "memory": 1e9} | ({"GPU": gpus} if gpus else {}),
            }
            for name, (cpus, gpus, _) in self.there.items()
        ]
        return [*alive, {"NodeID": id_of("gone"), "Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        self.options.append(options)
        assert options["num_cpus"] == 0  # else it would wait behind other jobs
        return self._task

    def _task(self, function: Any) -> Any:
        assert function is gpus_here
        return type("Task", (), {"options": staticmethod(self._on)})

    def _on(self, *, scheduling_strategy: Any) -> Any:
        name = next(name for name in self.there if id_of(name) == scheduling_strategy.node_id)
        assert not scheduling_strategy.soft
        self.asked.append(name)
        return type("OnNode", (), {"remote": staticmethod(lambda: name)})

    def wait(self, asked: list[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        assert num_returns == len(asked)
        assert timeout <= 60
        late = [name for name in asked if self.there[name][2] is None]
        return [name for name in asked if name not in late], late

    def get(self, name: str) -> list[Gpu]:
        answer = self.there[name][2]
        assert answer is not None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self, name: str, *, force: bool) -> None:
        assert force
        self.cancelled.append(name)


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    def join(**there: tuple[int, float, list[Gpu] | Exception | None]) -> Cluster:
        one = Cluster(**there)
        monkeypatch.setattr(cluster_gpus, "ray", one)
        return one

    return join


def test_gpus_of_a_cluster_are_shared_by_the_memory_that_its_nodes_have(joined: Callable[..., Cluster]) -> None:
    cluster = joined(a=(8, 1.0, [A100]), b=(4, 1.0, [A100]))
    there = cluster_gpus.reached()
    assert (there.cpus, there.gpus, there.gpu_gib, there.silent) == (12, 2.0, 80.0, ())
    assert str(there) == "12 CPUs, 2 GPUs (NVIDIA A100)"
    assert share(there, ResourcesSpec()) == Share(1, 0.125, 12)
    assert cluster.options[0]["max_calls"] == 1  # the process that has looked at the GPUs trains nothing


def test_the_smallest_gpu_decides_and_all_are_named(joined: Callable[..., Cluster]) -> None:
    joined(a=(16, 2.0, [A100, A100]), b=(8, 1.0, [T4]), c=(32, 0.0, []))
    there = cluster_gpus.reached()
    assert (there.cpus, there.gpus, there.gpu_gib) == (56, 3.0, 15.0)
    assert str(there) == "56 CPUs, 3 GPUs (NVIDIA A100, Tesla T4)"
    assert share(there, ResourcesSpec()) == Share(1, 0.2, 15)  # 15 GiB hold five


def test_a_node_without_gpus_is_not_asked(joined: Callable[..., Cluster]) -> None:
    cluster = joined(a=(16, 1.0, [T4]), c=(32, 0.0, []), d=(0, 0.0, []))
    assert cluster_gpus.reached().nodes == ((16, 1.0), (32, 0.0), (0, 0.0))
    assert cluster.asked == ["a"]
    cluster = joined(c=(32, 0.0, []))
    assert cluster_gpus.reached().silent == ()
    assert cluster.asked == []


@pytest.mark.parametrize("answer", [None, RaySystemError("no module named torch"), []], ids=["late", "raises", "none"])
def test_where_a_node_does_not_say_each_trial_gets_a_whole_gpu(
    joined: Callable[..., Cluster], answer: list[Gpu] | Exception | None
) -> None:
    cluster = joined(a=(8, 1.0, [A100]), b=(8, 2.0, answer))
    there = cluster_gpus.reached()
    assert there.silent == ("b",)
    assert there.gpu_names == ("NVIDIA A100",)
    assert share(there, ResourcesSpec()) == Share(1, 1.0, 3)
    assert cluster.cancelled == (["b"] if answer is None else [])


def test_only_the_gpus_that_ray_was_given_count(joined: Callable[..., Cluster]) -> None:
    joined(a=(8, 1.0, [A100, T4]))
    there = cluster_gpus.reached()
    assert (there.gpu_gib, there.gpu_names) == (80.0, ("NVIDIA A100",))


@pytest.mark.ray
def test_a_real_node_answers_with_the_gpus_that_it_has(ray_session: None) -> None:
    [node] = [one["NodeID"] for one in ray.nodes() if one["Alive"]]
    assert cluster_gpus._asked([node]) == {node: [Gpu(*one) for one in gpus_here()]}
