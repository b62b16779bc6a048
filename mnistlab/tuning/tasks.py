"""Work that is no trial: tasks in parallel workers, each of which yields answers (replicates, tests of models).

They fare as trials do when they lose their worker (see `losses`). Ray's own retries would try again what hangs, too,
and forget what it had printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from mnistlab.errors import MachineError
from mnistlab.training.causes import cause_named
from mnistlab.tuning.context import GoneError, Search, Streams
from mnistlab.tuning.outcome import TOO_MANY_IN_A_ROW
from mnistlab.tuning.retries import Loss, Retries, log_of, loss_of
from mnistlab.tuning.usage import DiskLowError, shortage
from mnistlab.tuning.worker.messages import Answer, Progress
from mnistlab.tuning.worker.trial import Shared


class Named(Protocol):
    """A task. What its worker prints lies under its `name`, which no other task of the run has (see `leftovers`)."""

    @property
    def name(self) -> str:
        """Return the name."""
        ...


@dataclass(frozen=True)
class Lost:
    """Why a task has lost its worker, and what that had printed and not yet reported."""

    loss: Loss
    log: str = ""

    @property
    def cause(self) -> str:
        """Return the word for why."""
        return self.loss.cause

    @property
    def message(self) -> str:
        """Return why in words."""
        return self.loss.message


Task = TypeVar("Task", bound=Named)
Said = TypeVar("Said")


@dataclass
class _Job(Generic[Task]):
    """A task in one of its attempts: how much progress has come of this one, and how much was told of all of them."""

    task: Task
    room: bool = False  # whether it has all of a device
    told: int = 0
    come: int = 0
    answered: bool = False
    begun: float | None = None  # by the monotonic clock; None before the first attempt

    def is_news(self, said: object) -> bool:
        """Take in what the task has said; return whether no attempt before this one has said it."""
        if not isinstance(said, Progress):
            self.answered = True
            return True
        self.come += 1
        news, self.told = self.come > self.told, max(self.come, self.told)
        return news

    def anew(self, lost: Lost) -> _Job[Task]:
        """Return the next attempt; after a lack of memory it gets all of a device."""
        return replace(self, room=self.room or lost.cause == "memory", come=0, answered=False)


def run_tasks(
    search: Search,
    function: Callable[[Shared, Task], Iterator[Said]],
    tasks: Sequence[Task],
    *,
    started: Callable[[Task], None] = lambda _: None,
    anew: Callable[[Task, Lost], None] = lambda _task, _lost: None,
    limit: float | None = None,
    stopping: Callable[[], bool] = lambda: False,
    whatever_the_disk: bool = False,
) -> Iterator[tuple[Task, Said | Lost]]:
    """Run `function(search.shared, task)` in parallel workers; yield each task with whatever it yields, as it comes.

    `started(task)` is called when a task is given to a worker for the first time. One that loses its worker, or lacks
    memory, begins anew as often as its cause allows, after `anew(task, lost)`; progress that was told is not told
    again. Of one that does not, `Lost` is the last word. An attempt may take `limit` seconds, which its worker finds in
    `shared.trial_seconds`. Once `stopping()`, no further task is started and what runs is given up. On a disk that is
    nearly full none is started either, unless `whatever_the_disk`.

    Raises:
        MachineError: if tasks are left and nothing is running any more, for there is no disk for them (DiskLowError) or
            no node (NoNodeError); or if the machine has failed too many of them in a row.
    """
    with search.executor.streams(search, function, limit) as streams:
        yield from _run(search, streams, tasks, started, anew, limit, stopping, whatever_the_disk)


def _run(
    search: Search,
    streams: Streams,
    tasks: Sequence[Task],
    started: Callable[[Task], None],
    anew: Callable[[Task, Lost], None],
    limit: float | None,
    stopping: Callable[[], bool],
    whatever_the_disk: bool,
) -> Iterator[tuple[Task, Any]]:
    """Run tasks by `streams`, as `run_tasks` says."""
    retries, row = Retries(more_room=search.room is not None, nodes=search.nodes), _Row(search.again)
    waiting, running = [_Job(task) for task in tasks], dict[Any, _Job[Task]]()
    while waiting or running:
        short = _shortage(search, whatever_the_disk=whatever_the_disk) if waiting else None
        if short and not running:
            raise short
        while waiting and not short and _may_begin(waiting[0], running.values(), search.share.parallel):
            job = waiting.pop(0)
            if job.begun is None:
                started(job.task)
            job.begun = time.monotonic()
            running[streams.begin(job.task, job.room)] = job
        for stream in streams.ready(list(running)):
            job = running[stream]
            said = _said_by(streams, stream, job, limit)
            lost = _begins_anew(job, said, retries)
            if said is None or lost or isinstance(said, Lost):
                del running[stream]  # nothing more is to be heard of it
            if lost:
                anew(job.task, lost)
                waiting.insert(0, job.anew(lost))
            elif said is not None and job.is_news(said):
                last = Lost(retries.verdict(job.task.name, said.loss), said.log) if isinstance(said, Lost) else said
                row.check(last)
                yield job.task, last
        search.tick()
        if stopping():
            for stream in running:
                streams.give_up(stream)
            return


def _shortage(search: Search, *, whatever_the_disk: bool) -> MachineError | None:
    """Return the error for which no task can be started, or None."""
    if search.nodes.shortage():
        return search.nodes.error()
    short = "" if whatever_the_disk else shortage(search.store.path)
    again = f"free some, then `{search.again}`"
    return DiskLowError(f"{short}, and nothing is running any more: {again}") if short else None


@dataclass
class _Row:
    """How many tasks in a row have failed that were not at fault."""

    again: str
    length: int = 0

    def check(self, said: object) -> None:
        """Take in what a task has said.

        Raises:
            MachineError: if too many have failed. The last one of them counts as not tried: it is on no record.
        """
        blameless = isinstance(said, Lost) and cause_named(said.cause).owner != "plan"
        self.length = self.length + 1 if blameless else 0
        if isinstance(said, Lost) and self.length >= TOO_MANY_IN_A_ROW:
            failed = f"{self.length} trainings in a row failed through no fault of their plans"
            raise MachineError(f"{failed}, the last one because {said.message}: mend that, then `{self.again}`")


def _may_begin(job: _Job[Task], running: Collection[_Job[Task]], parallel: int) -> bool:
    """Return whether there is a place for a task; one that gets all of a device has it alone."""
    alone = job.room or any(one.room for one in running)
    return len(running) < (1 if alone else parallel)


def _said_by(streams: Streams, stream: Any, job: _Job[Any], limit: float | None) -> Any:
    """Return what a task has said next, that it is lost, or None where it has said all."""
    try:
        return streams.said(stream)
    except GoneError as gone:
        if job.answered:  # its worker died when it had nothing more to say
            return None
        loss = loss_of(gone.leftover, time.monotonic() - (job.begun or 0.0), limit)
        return Lost(loss, log_of(gone.leftover, loss))


def _begins_anew(job: _Job[Task], said: object, retries: Retries) -> Lost | None:
    """Return why a task begins anew, and count that; None where it does not."""
    lost = said if isinstance(said, Lost) else None
    if isinstance(said, Answer) and said.cause == "memory":
        lost = Lost(Loss("memory", said.message), said.log)
    if isinstance(said, Progress) or (isinstance(said, Answer) and not said.cause):
        retries.trained(job.task.name, said.place)
    return lost if lost and retries.takes(job.task.name, lost.loss) else None
