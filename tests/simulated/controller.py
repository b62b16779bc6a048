"""Ray Tune's loop without Ray: a discrete-event simulation over a fake clock, as an `Executor` of a search.

The loop is the product's own (`mnistlab.tuning.local_loop`); what is simulated is when what happens, and the workers.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mnistlab.tuning.context import Executor, Parts, Search
from mnistlab.tuning.local_executor import LOCAL
from mnistlab.tuning.local_loop import Happening, Loop, LoopTrial, Steps
from mnistlab.tuning.resources import Machine
from mnistlab.tuning.retries import Leftover
from mnistlab.tuning.worker.leaving import MARK, LastWords
from tests.simulated.worker import Worker, WorkerDiedError


@dataclass(frozen=True)
class World:
    """What is drawn for a simulation: how long epochs take, how many plans fail, how often states are kept.

    `spread` is by how much the longest epoch outlasts the shortest one: 1 for all the same.
    """

    seed: int = 0
    spread: float = 10.0
    failing: float = 0.2
    keep_every: int = 1
    nodes: Mapping[str, str] = field(default_factory=dict[str, str])  # by name: the cause of all failures there, or ""
    doomed: tuple[int, str] | None = None  # the number of a plan, and the cause by which each of its workers ends

    def ends_by(self, trial: SimulatedTrial) -> str:
        """Return the cause by which the worker of a trial ends itself, or ""."""
        if lacks := self.nodes.get(trial.node):
            return lacks
        number, cause = self.doomed or (-1, "")
        return cause if trial.number == number else ""


@dataclass(eq=False)
class SimulatedTrial(LoopTrial):
    """A trial that is somewhere."""

    node: str = ""
    number: int = -1


class Controller(Loop):
    """The product's own loop, over a clock of its own and with as many workers as trials may run at once."""

    def __init__(self, search: Search, parts: Parts, world: World) -> None:
        """Simulate `world`."""
        super().__init__(parts, search.share.parallel)
        self._world, self._draw = world, random.Random(world.seed)
        self._happenings: list[tuple[float, int, Happening, SimulatedTrial]] = []
        self._now, self._count = 0.0, 0

    def _new_trial(self, config: dict[str, Any]) -> SimulatedTrial:
        return SimulatedTrial(f"{self._draw.getrandbits(32):08x}_{len(self._trials):05}", config)

    def _later(self, what: Happening, trial: SimulatedTrial) -> None:
        """Draw when something happens.

        A trial keeps the worker that starts for it. How long that takes is drawn each time, as if it were a new one:
        every order in which Tune may hand free workers to trials can come up.
        """
        self._count += 1
        takes = self._world.spread ** self._draw.random()
        heapq.heappush(self._happenings, (self._now + takes, self._count, what, trial))

    def _next(self) -> tuple[Happening, SimulatedTrial] | None:
        """Let the clock jump to what comes next."""
        if not self._happenings:
            return None
        self._now, _, what, trial = heapq.heappop(self._happenings)
        return what, trial

    def _worker(self, trial: SimulatedTrial) -> Steps:
        self._place(trial)
        return trial.worker or _Placed(
            Worker(trial.config, self._world.failing, self._world.keep_every), trial, self._world
        )

    def _place(self, trial: SimulatedTrial) -> None:
        """Put a trial on a node that is not barred to it, as Ray does by the labels of nodes."""
        barred = json.loads(trial.config["task"]).get("away", [])
        open_to_it = [name for name in self._world.nodes if name not in barred]
        assert open_to_it or not self._world.nodes, "a trial was handed out for which there is no node"
        trial.node = self._draw.choice(open_to_it) if open_to_it else ""
        trial.number = self._parts.bridge.number(trial.trial_id)


@dataclass(frozen=True)
class _Placed:
    """A worker in its place in the world."""

    worker: Worker
    trial: SimulatedTrial
    world: World

    def step(self) -> dict[str, Any]:
        if cause := self.world.ends_by(self.trial):
            words = LastWords(cause, f"simulated: {cause}", f"{self.trial.node}/")
            raise WorkerDiedError(f"{MARK}{json.dumps(asdict(words))}")
        return self.worker.step() | {"place": f"{self.trial.node}/"}


def simulated(world: World, parallel: int = 1) -> Executor:
    """Return an executor that simulates `world`, with so many workers; a state is handed to its worker as it is."""

    def left_by(trial: Any) -> Leftover:
        said = str(trial.error)
        return Leftover(log=said) if said.startswith(MARK) else Leftover(error=said)

    def joined(_address: str | None, machine: Machine, _again: str) -> AbstractContextManager[Machine]:
        return nullcontext(replace(machine, cpus=parallel))

    return Executor(
        check=lambda _spec, _address: None,
        preparing=lambda _: "",
        joined=joined,
        portion=lambda found: found,
        alive=lambda *_: {name: name for name in world.nodes} or {"one": "127.0.0.1"},
        put=lambda state: state,
        run=lambda search, parts: Controller(search, parts, world).run(),
        leftover=left_by,
        streams=LOCAL.streams,
    )
