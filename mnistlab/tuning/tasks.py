"""Work that is no trial: tasks in parallel workers, each of which yields answers (replicates, tests of models)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from mnistlab.tuning.disk import DiskLowError, shortage
from mnistlab.tuning.job import Search
from mnistlab.tuning.worker import Shared

Task = TypeVar("Task")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Lost:
    """A task of which nothing more will be heard: its worker died, and so did those that tried again."""

    message: str


def run_tasks(
    search: Search,
    function: Callable[[Shared, Task], Iterator[Answer]],
    tasks: Sequence[Task],
    *,
    started: Callable[[Task], None] = lambda _: None,
    stopping: Callable[[], bool] = lambda: False,
    whatever_the_disk: bool = False,
) -> Iterator[tuple[Task, Answer | Lost]]:
    """Run `function(search.shared, task)` in parallel workers; yield each task with whatever it yields, as it comes.

    `started(task)` is called when a task is given to a worker. One whose worker dies begins anew, three times; what
    it has yielded already is not yielded again. Once `stopping()`, no further task is started and what runs is
    given up. On a disk that is nearly full none is started either, unless `whatever_the_disk`.
    """
    common = ray.put(search.shared)
    remote: Any = ray.remote(function).options(num_cpus=search.share.cpus, num_gpus=search.share.gpus, max_retries=3)
    waiting, running = list(tasks), dict[Any, Task]()
    while waiting or running:
        short = shortage(search.store.path) if waiting and not whatever_the_disk else ""
        if short and not running:
            raise DiskLowError(f"{short}, and nothing is running any more: free some, then `mnistlab resume`")
        while waiting and len(running) < search.share.parallel and not short:
            task = waiting.pop(0)
            running[remote.remote(common, task)] = task
            started(task)
        ready: list[Any] = ray.wait(list(running), num_returns=1, timeout=0.5)[0]
        for stream in ready:
            try:
                yield running[stream], _answer(next(stream))
            except StopIteration:
                del running[stream]
        search.tick()
        if stopping():
            for stream in running:
                ray.cancel(stream, force=True)
            return


def _answer(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return Lost(f"worker lost: {first}")
