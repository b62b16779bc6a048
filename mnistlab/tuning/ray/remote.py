"""Tasks as Ray's own: each runs in a worker process and streams what it yields (see `tasks`)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from mnistlab.tuning.context import GoneError, Search, Streams
from mnistlab.tuning.ray.nodes import selector
from mnistlab.tuning.retries import Leftover
from mnistlab.tuning.worker.leftovers import taken
from mnistlab.tuning.worker.trial import Shared

WAIT_SECONDS = 0.5


@contextmanager
def streams(
    search: Search, function: Callable[[Shared, Any], Iterator[Any]], limit: float | None
) -> Generator[Streams]:
    """Yield what gives tasks to Ray's workers; one may take `limit` seconds."""
    common = ray.put(replace(search.shared, trial_seconds=limit))
    remote: Any = ray.remote(function)
    names: dict[Any, str] = {}

    def begin(task: Any, room: bool) -> Any:
        given = search.room if room and search.room else search.share
        away = selector(search.nodes.away_from(task.name))
        ways: dict[str, Any] = {"label_selector": away} if away else {}
        own = remote.options(num_cpus=given.cpus, num_gpus=given.gpus, max_retries=0, **ways)
        stream = own.remote(common, task)
        names[stream] = task.name
        return stream

    def said(stream: Any) -> Any:
        try:
            return ray.get(next(stream))
        except StopIteration:
            del names[stream]
            return None
        except RayError as error:
            raise GoneError(Leftover(str(error), taken(names.pop(stream)))) from error

    def ready(running: Sequence[Any]) -> Sequence[Any]:
        return ray.wait(list(running), num_returns=1, timeout=WAIT_SECONDS)[0]

    yield Streams(begin=begin, ready=ready, said=said, give_up=lambda stream: ray.cancel(stream, force=True))
