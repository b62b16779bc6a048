"""What a search is made of, and what carries it out: records that the driver fills and an executor takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from ray.tune.schedulers import TrialScheduler

from mnistlab.data import Division
from mnistlab.events import Emit
from mnistlab.experiment.earlier import Earlier
from mnistlab.experiment.space import Space
from mnistlab.experiment.spec import ExperimentSpec
from mnistlab.plugins.registry import Registry
from mnistlab.store import RunWriter
from mnistlab.tuning.outcome import Interruptions, Outcome
from mnistlab.tuning.ray.nodes import Nodes
from mnistlab.tuning.recorder import Recorder
from mnistlab.tuning.resources import Machine, Share
from mnistlab.tuning.retries import Leftover
from mnistlab.tuning.schedulers.halving import Rung
from mnistlab.tuning.searcher import Bridge
from mnistlab.tuning.tune_compat import Refusals
from mnistlab.tuning.worker.trial import Shared

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
    verdicts: list[Outcome] = field(default_factory=list[Outcome])  # of trials, as `common_failure` wants them
    looks: int = 1  # how many trials are plans that are known; more trials later do not change it
    earlier: tuple[Earlier, ...] = ()  # runs that it starts from
    rungs: tuple[Rung, ...] = ()  # at which trials are trained, where its scheduler has them trained anew at each
    split: Callable[[int], Division | None] = lambda _: None  # of a replicate by its number; None: the run's own
    executor: Executor = field(kw_only=True)  # what carries it out


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


class GoneError(Exception):
    """The worker of a task is gone."""

    def __init__(self, leftover: Leftover) -> None:
        """Keep what is left of it."""
        super().__init__(leftover.error)
        self.leftover = leftover


@dataclass(frozen=True)
class Streams:
    """How tasks are given to workers, which yield what comes of them (see `tasks`).

    `begin(task, room)` gives a task to a worker, with `room` one that has all of a device, and returns a stream.
    `ready(streams)` returns those of which something is to be heard, after half a second at most. `said(stream)`
    returns what, None where all was said, and raises GoneError where the worker is gone. `give_up(stream)` ends it.
    """

    begin: Callable[[Any, bool], Any]
    ready: Callable[[Sequence[Any]], Sequence[Any]]
    said: Callable[[Any], Any]
    give_up: Callable[[Any], None]


@dataclass(frozen=True)
class Executor:
    """What carries out a search: Ray Tune, or the driver's own process (`local`).

    `check(spec, address)` refuses what it can't do. `joined(address, machine, again)` is the context in which there are
    workers, and yields what machine they have; `preparing(address)` says in words what that waits for. `portion` turns
    what a trial could get of it into what it gets. `alive(cpus, gpus)` returns the address of each node as large as
    that by its id.
    `put` takes a trial's packed state and returns what a worker gets it by; `run` returns when the search is over;
    `leftover` returns what is left of the worker that a trial has lost; `streams(search, function, limit)` is the
    context in which tasks run. `cant` says in a sentence what users miss, or "".
    """

    check: Callable[[ExperimentSpec, str | None], None]
    preparing: Callable[[str | None], str]
    joined: Callable[[str | None, Machine, str], AbstractContextManager[Machine]]
    portion: Callable[[Share], Share]
    alive: Callable[[int, float], Mapping[str, str]]
    put: Callable[[bytes], object]
    run: Callable[[Search, Parts], None]
    leftover: Callable[[Any], Leftover]
    streams: Callable[[Search, Callable[[Shared, Any], Iterator[Any]], float | None], AbstractContextManager[Streams]]
    cant: str = ""
