"""What a search is made of, and what carries it out: records that the driver fills and an executor takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from mnistlab.events import Emit
from mnistlab.registry import Registry
from mnistlab.space import Space
from mnistlab.spec import ExperimentSpec
from mnistlab.store import RunWriter
from mnistlab.tuning.bridge import Bridge
from mnistlab.tuning.losses import Leftover
from mnistlab.tuning.machine import Share
from mnistlab.tuning.nodes import Nodes
from mnistlab.tuning.outcome import Interruptions
from mnistlab.tuning.recorder import Recorder
from mnistlab.tuning.refusals import Refusals
from mnistlab.tuning.worker import Shared

Stopping = Callable[[], bool]


@dataclass(frozen=True)
class Search:
    """What a search needs, all of it settled before it begins."""

    spec: ExperimentSpec
    space: Space
    shared: Shared
    share: Share
    room: Share | None  # what a trial gets for which that was too little; None where there is no more
    registry: Registry
    store: RunWriter
    emit: Emit
    stopping: Stopping  # whether the user (or the machine) has asked to stop
    reason: Callable[[], str] = lambda: "stop request"  # who asked, in words: "Ctrl-C", "SIGTERM"
    again: str = "mnistlab resume"  # the command that goes on with the run
    tick: Callable[[], None] = lambda: None  # called several times a second, whatever the workers do
    nodes: Nodes = field(default_factory=Nodes)  # which of them get work


@dataclass(frozen=True)
class Parts:
    """Who decides and who writes down in a search, whatever carries it out: all of them in the driver's process.

    The bridge proposes plans, the scheduler judges reports, the recorder writes; each is called as Ray Tune calls a
    Searcher, a TrialScheduler and a Callback.
    """

    bridge: Bridge
    scheduler: TrialScheduler
    recorder: Recorder
    interruptions: Interruptions
    refusals: Refusals
    stopping: Stopping  # whether trials have to end, whoever wants it
    drivers: int = 0  # how many have driven the run before


@dataclass(frozen=True)
class Executor:
    """What carries out a search: Ray Tune, or in tests a simulation of it.

    `put` takes a trial's packed state and returns what a worker gets it by; `run` returns when the search is over;
    `leftover` returns what is left of the worker that a trial has lost.
    """

    put: Callable[[bytes], object]
    run: Callable[[Search, Parts], None]
    leftover: Callable[[Trial], Leftover]
