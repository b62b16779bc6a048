"""Which nodes get work: one that lacks what every plan needs gets no more, and its trials go elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from mnistlab.errors import ExitCode, MachineError
from mnistlab.training.causes import cause_named
from mnistlab.tuning.ray.cluster import alive_nodes
from mnistlab.tuning.worker.leaving import LastWords

NODE_LABEL = "ray.io/node-id"  # Ray gives it to each node by itself

Alive = Callable[[], Mapping[str, str]]
"""What returns the address of each node that is there and large enough for a trial, by the node's id."""


class NoNodeError(MachineError):
    """Every node lacks something that all plans need; what had begun is kept."""

    def __init__(self, message: str, code: ExitCode) -> None:
        """End with `code`."""
        super().__init__(message)
        self.exit_code = code


class Nodes:
    """The nodes of a run: those that lack something, and those on which a trial missed a file or a module.

    One object serves the search and the confirmation, so that a node is tried, and named, once.
    """

    def __init__(
        self,
        alive: Alive = alive_nodes,
        say: Callable[[str], None] = lambda _: None,
        again: str = "mnistlab resume",
        roomy: Alive | None = None,
    ) -> None:
        """Ask `alive` which nodes there are; name each that lacks something to `say`. `again` resumes the run.

        `roomy` tells which of them hold the larger share that a trial gets after a lack of memory; None: all of them.
        """
        self._alive, self._say, self._again, self._roomy = alive, say, again, roomy
        self._lacking: dict[str, tuple[str, LastWords]] = {}  # name of the node and why, by the node's id
        self._suspected: dict[str, LastWords] = {}  # by trial: what it missed, and on which node
        self._avoided: dict[str, set[str]] = {}  # by trial: where it lost the device

    def shut(self, why: LastWords) -> None:
        """Give the node of a worker that has ended itself no more work; say so the first time."""
        if why.node in self._lacking:
            return
        name = self._name(why.node)
        self._lacking[why.node] = name, why
        ends = "it gets no more trials or replicates" if self._left() else "no node is left"
        self._say(f"{name} {_lack(why)}: {ends}; {cause_named(why.cause).remedy}")

    def sends_on(self, trial: str, why: LastWords) -> bool:
        """Return whether a trial that missed a file or a module is tried on another node, and note that.

        It is tried on one more: what two nodes lack is missed by the plan's own fault.
        """
        if trial in self._suspected or not self._left() - {why.node}:
            return False
        self._suspected[trial] = why
        return True

    def avoid(self, trial: str, why: LastWords) -> None:
        """Give a trial that lost the device to other nodes from now on, as long as there are any."""
        self._avoided.setdefault(trial, set()).add(why.node)

    def trained(self, trial: str) -> None:
        """Note that a trial has trained: the node on which it missed something does lack that."""
        if (why := self._suspected.pop(trial, None)) is not None:
            self.shut(why)

    def have_room(self) -> bool:
        """Return whether a node is left that holds the larger share: what none holds would wait for ever."""
        return self._roomy is None or bool(self._roomy().keys() - self._lacking.keys())

    def away_from(self, trial: str) -> list[str]:
        """Return the ids of the nodes that a trial is not to be given to, in a fixed order."""
        missed, avoided = self._suspected.get(trial), self._avoided.get(trial, set())
        others = self._left() - avoided if avoided else set()
        return sorted({*self._lacking, *([missed.node] if missed else []), *(avoided if others else ())})

    def shortage(self) -> str:
        """Return in words that no node is left, or "" while there is one."""
        if not self._lacking or self._left():
            return ""
        lacks = "; ".join(f"{name} {_lack(why)}" for name, why in self._lacking.values())
        return f"no node is left to train on: {lacks}"

    def error(self) -> NoNodeError:
        """Return the error by which a run ends that has no node left.

        Its code is that of missing data or plugins, or of resources, which may come back, where a disk or device fails.
        """
        causes = {why.cause: cause_named(why.cause) for _, why in self._lacking.values()}
        remedies = ", ".join(dict.fromkeys(cause.remedy for cause in causes.values()))
        code = ExitCode.RESOURCES_VANISHED if {"disk", "device"} & causes.keys() else ExitCode.DATA_OR_PLUGIN
        return NoNodeError(f"{self.shortage()}; {remedies}, then `{self._again}`", code)

    def _left(self) -> set[str]:
        return self._alive().keys() - self._lacking.keys()

    def _name(self, node: str) -> str:
        addresses = self._alive()
        address = addresses.get(node, "")
        if len(addresses) <= 1:
            return "this machine" if address.startswith("127.") or not address else f"node {address}"
        alone = list(addresses.values()).count(address) == 1
        return f"node {address}" if alone else f"node {address} ({node[:8]})"


def _lack(why: LastWords) -> str:
    """Return what the node of a worker lacks, with the error that showed it and, if it is a GPU's, with its number."""
    gpu = f"GPU {why.device}; " if why.cause == "device" and why.device else ""
    return f"{cause_named(why.cause).lack} ({gpu}{why.message})"


def selector(away: Collection[str]) -> dict[str, str]:
    """Return the label selector that keeps Ray from the nodes of these ids."""
    return {NODE_LABEL: f"!in({','.join(away)})"} if away else {}
