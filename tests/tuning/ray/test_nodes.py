"""Which nodes get work, and what a loss is held against: decided in the driver, without a Ray."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from mnistlab.errors import ExitCode
from mnistlab.tuning.ray.nodes import Nodes, selector
from mnistlab.tuning.retries import Loss, Retries
from mnistlab.tuning.worker.leaving import LastWords


@dataclass
class Cluster:
    """Nodes and what is said of them."""

    alive: dict[str, str] = field(default_factory=lambda: {"aa": "10.0.0.1", "bb": "10.0.0.2"})
    said: list[str] = field(default_factory=list[str])
    nodes: Nodes = field(init=False)
    retries: Retries = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = Nodes(lambda: self.alive, self.said.append, "mnistlab resume runs/x")
        self.retries = Retries(more_room=False, nodes=self.nodes)

    def loses(self, trial: str, cause: str, place: str) -> bool:
        """Return whether a trial goes on that has lost its worker at a place."""
        return self.retries.takes(trial, lost(cause, place))


def lost(cause: str, place: str) -> Loss:
    return Loss(cause, f"{cause}!", LastWords(cause, f"{cause}!", place))


def test_a_node_that_lacks_something_is_named_once_and_gets_nothing_more() -> None:
    there = Cluster()
    assert all(there.loses(f"{n:04}", "data", "bb/") for n in range(20))
    assert there.loses("0000", "version", "bb/")
    assert there.said == [
        "node 10.0.0.2 lacks the data (data!): it gets no more trials or replicates; put the same files there, or let "
        "it fetch them"
    ]
    assert there.nodes.away_from("0099") == ["bb"]
    assert selector(there.nodes.away_from("0099")) == {"ray.io/node-id": "!in(bb)"}
    assert there.nodes.shortage() == ""


def test_a_trial_does_not_wait_for_room_that_no_node_left_has() -> None:
    """The larger share is that of the largest node: once that is shut, no other node can hold it."""
    there = Cluster()
    nodes = Nodes(lambda: there.alive, there.said.append, roomy=lambda: {"bb": "10.0.0.2"})
    retries = Retries(more_room=True, nodes=nodes)
    assert retries.takes("0000", Loss("memory", "too little"))
    assert retries.takes("0001", lost("data", "bb/"))
    assert not retries.takes("0002", Loss("memory", "too little"))


def test_what_a_node_lacked_counts_against_no_trial() -> None:
    there = Cluster()
    assert all(there.loses("0000", "disk", "bb/") for _ in range(10))
    assert [there.loses("0000", "worker", "aa/") for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ("data", "missing", ExitCode.DATA_OR_PLUGIN),
        ("version", "version", ExitCode.DATA_OR_PLUGIN),
        ("disk", "data", ExitCode.RESOURCES_VANISHED),
    ],
)
def test_when_no_node_is_left_the_error_says_why_and_what_to_do(first: str, second: str, code: ExitCode) -> None:
    there = Cluster()
    there.loses("0000", first, "aa/")
    there.loses("0000", second, "bb/")
    assert there.said[1].count("no node is left") == 1
    text = str(there.nodes.error())
    assert text.startswith(f"{there.nodes.shortage()}; ")
    assert "node 10.0.0.1 " in text
    assert "node 10.0.0.2 " in text
    assert text.endswith(", then `mnistlab resume runs/x`")
    assert there.nodes.error().exit_code == code


def test_a_node_that_is_gone_or_too_small_for_a_trial_is_not_left() -> None:
    there = Cluster()
    there.loses("0000", "data", "bb/")
    del there.alive["aa"]
    assert "no node is left" in there.nodes.shortage()
    there.alive["cc"] = "10.0.0.3"  # one that has joined
    assert there.nodes.shortage() == ""


@pytest.mark.parametrize(
    ("alive", "name"),
    [
        ({"aaaaaaaa1": "127.0.0.1"}, "this machine"),
        ({"aaaaaaaa1": "10.0.0.1"}, "node 10.0.0.1"),
        ({"aaaaaaaa1": "10.0.0.1", "bb": "10.0.0.2"}, "node 10.0.0.1"),
        ({"aaaaaaaa1": "10.0.0.1", "bb": "10.0.0.1"}, "node 10.0.0.1 (aaaaaaaa)"),
    ],
)
def test_how_a_node_is_called(alive: dict[str, str], name: str) -> None:
    there = Cluster(alive)
    there.loses("0000", "disk", "aaaaaaaa1/")
    assert there.said[0].startswith(f"{name} has no room left on a disk (disk!): ")


# --- what only another node can tell ------------------------------------------------------------------------------


def test_what_one_node_lacks_and_another_has_is_the_nodes_fault() -> None:
    there = Cluster()
    assert there.loses("0000", "absent", "bb/")
    assert there.nodes.away_from("0000") == ["bb"]
    assert there.nodes.away_from("0001") == []  # so far it is a suspicion
    assert there.said == []
    there.retries.trained("0001", "aa/")
    assert there.said == []
    there.retries.trained("0000", "aa/")
    assert there.said[0].startswith("node 10.0.0.2 lacks a file or a module (absent!): it gets no more")
    assert there.nodes.away_from("0001") == ["bb"]


def test_what_two_nodes_lack_is_the_plans_fault() -> None:
    there = Cluster()
    assert there.loses("0000", "absent", "bb/")
    assert not there.loses("0000", "absent", "aa/")
    assert there.retries.verdict("0000", lost("absent", "aa/")) == Loss("plugin", "absent!")
    assert there.nodes.shortage() == ""


def test_where_there_is_no_other_node_it_is_the_plans_fault_at_once() -> None:
    there = Cluster({"aa": "10.0.0.1"})
    assert not there.loses("0000", "absent", "aa/")


# --- whose fault a broken device is -------------------------------------------------------------------------------


def test_a_device_that_others_train_on_was_broken_by_the_plan() -> None:
    there = Cluster()
    there.loses("0001", "device", "aa/0")
    there.retries.trained("0002", "aa/0")
    assert [there.loses("0001", "device", "aa/0") for _ in range(3)] == [True, True, False]
    verdict = there.retries.verdict("0001", lost("device", "aa/0"))
    assert verdict.cause == "plugin"
    assert verdict.message == ("the device broke in each of 4 new processes, while other trials trained on it: device!")


@pytest.mark.parametrize("trained", [(), ("aa/1",), ("bb/0",)])
def test_a_device_that_nobody_trains_on_any_more_is_broken_by_itself(trained: tuple[str, ...]) -> None:
    there = Cluster()
    there.retries.trained("0002", "aa/0")  # before it broke
    assert there.loses("0001", "device", "aa/0")
    for place in trained:
        there.retries.trained("0002", place)
    assert [there.loses("0001", "device", "aa/0") for _ in range(3)] == [True, True, False]
    assert there.retries.verdict("0001", lost("device", "aa/0")).cause == "device"


def test_a_device_that_three_trials_lose_in_a_row_is_broken_and_its_node_gets_nothing_more() -> None:
    there = Cluster()
    assert [there.loses(trial, "device", "bb/0") for trial in ("0001", "0001", "0002", "0002")] == [True] * 4
    there.retries.trained("0003", "bb/0")  # it works after all
    assert [there.loses(trial, "device", "bb/0") for trial in ("0004", "0005")] == [True] * 2
    assert there.said == []
    assert there.loses("0001", "device", "bb/0")
    assert there.said[0].startswith(
        "node 10.0.0.2 loses its device in one trial after the other (GPU 0; device!): it gets no more trials"
    )
    assert there.nodes.away_from("0001") == ["bb"]
    assert there.nodes.error().exit_code == ExitCode.RESOURCES_VANISHED


def test_a_trial_that_lost_the_device_goes_to_another_node_while_there_is_one() -> None:
    there = Cluster()
    there.loses("0001", "device", "bb/0")
    assert (there.nodes.away_from("0001"), there.nodes.away_from("0002")) == (["bb"], [])
    there.loses("0001", "device", "aa/0")
    assert there.nodes.away_from("0001") == []  # it lost one on each


def test_one_good_device_of_two_does_not_prove_the_other() -> None:
    there = Cluster()
    assert there.loses("0001", "device", "aa/0")
    there.retries.trained("0002", "aa/1")
    places = ["aa/1", "aa/0", "aa/0"]
    assert [there.loses("0001", "device", place) for place in places] == [True, True, False]
    assert there.retries.verdict("0001", lost("device", "aa/0")).cause == "device"
