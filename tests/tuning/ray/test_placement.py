"""When a Ray that gives nobody a place is given up, without a Ray: what is waited for, and how long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from mnistlab.tuning.ray import placement
from mnistlab.tuning.ray.placement import PLACE_SECONDS, ClusterLostError, Places

HALF = PLACE_SECONDS / 2


class World:
    """A clock that moves when it is told to, a driver that may be the head, and the states of its places."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.head, self.states = 100.0, True, ["PENDING", "REMOVED"]
        self.looks = Places("mnistlab resume runs/x")
        monkeypatch.setattr(placement, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(
            placement, "ray_worker", SimpleNamespace(_global_node=SimpleNamespace(is_head=self.is_head))
        )
        monkeypatch.setattr(placement.ray, "util", SimpleNamespace(placement_group_table=self.table))
        self.disarmed = 0
        monkeypatch.setattr(placement, "disarm", self.disarm)

    def disarm(self) -> None:
        self.disarmed += 1

    def is_head(self) -> bool:
        return self.head

    def table(self) -> dict[str, dict[str, str]]:
        return {str(number): {"state": state} for number, state in enumerate(self.states)}

    def wait(self, seconds: float, *statuses: str) -> None:
        trials: list[Any] = [SimpleNamespace(status=status) for status in statuses or (Trial.PENDING,)]
        for _ in range(int(seconds * 2)):
            self.looks.on_step_end(0, trials)
            self.now += 0.5


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_ray_without_places_is_given_up_after_a_while(world: World) -> None:
    world.wait(PLACE_SECONDS - 1)
    assert world.disarmed == 0
    with pytest.raises(ClusterLostError, match=r"no place for a worker for 30 s.*go on with `mnistlab resume runs/x`"):
        world.wait(4)
    assert world.disarmed == 1  # else Ray's own clean-up would wait for what is not there


@pytest.mark.parametrize("change", ["a place", "a running trial", "no trial waiting", "nothing asked for"])
def test_whatever_moves_begins_a_new_while(world: World, change: str) -> None:
    world.wait(HALF)
    before = world.states
    world.states = {"a place": ["CREATED"], "nothing asked for": ["REMOVED"]}.get(change, before)
    others = {"a running trial": (Trial.PENDING, Trial.RUNNING), "no trial waiting": (Trial.TERMINATED,)}
    world.wait(3, *others.get(change, (Trial.PENDING,)))
    world.states = before
    world.wait(HALF + 5)


def test_in_a_cluster_of_others_a_search_waits_as_long_as_it_must(world: World) -> None:
    world.head = False
    world.wait(10 * PLACE_SECONDS)


def test_a_driver_that_was_stopped_has_not_waited(world: World) -> None:
    world.wait(3)
    world.now += 10 * PLACE_SECONDS  # Ctrl-Z, and `fg`
    world.wait(3)
