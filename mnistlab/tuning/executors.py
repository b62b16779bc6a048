"""The executors by name: what carries out a search."""

from __future__ import annotations

from mnistlab.errors import SpecError, must_be_one_of
from mnistlab.tuning.context import Executor
from mnistlab.tuning.local_executor import LOCAL
from mnistlab.tuning.ray.executor import RAY_TUNE
from mnistlab.util.text import EXECUTOR_NAMES

EXECUTORS: dict[str, Executor] = dict(zip(EXECUTOR_NAMES, (RAY_TUNE, LOCAL), strict=True))


def executor(name: str) -> Executor:
    """Return the executor of that name.

    Raises:
        SpecError: if there is none, naming those that there are.
    """
    if name not in EXECUTORS:
        raise SpecError("executor", [must_be_one_of("--executor", name, EXECUTORS)])
    return EXECUTORS[name]
