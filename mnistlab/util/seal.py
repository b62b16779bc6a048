"""The seal of the test set: test images are handed out only where the confirmation has opened it, on the record.

It keeps honest code honest: a plugin that asks for test images in the middle of a search is told no, and its trial
fails. It can't stop code that reads the files itself, or that opens the seal as only the confirmation should.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

from mnistlab.errors import PluginError

P = ParamSpec("P")
R = TypeVar("R")

# Of the running thread alone: one that a plugin has left behind does not see what is open in another.
_open: ContextVar[bool] = ContextVar("mnistlab_test_set_open", default=False)
_sealed = 0  # how many runs this process takes part in


class SealedError(PluginError):
    """Test images were asked for while the test set is sealed."""


@contextmanager
def opened() -> Generator[None]:
    """Open the test set for the calling thread. Whoever does so says it in the test ledger first."""
    before = _open.set(True)
    try:
        yield
    finally:
        _open.reset(before)


@contextmanager
def sealed() -> Generator[None]:
    """Have every dataset of this process refuse its test images for as long as a run goes on here."""
    global _sealed  # noqa: PLW0603 - it is the process that is sealed, with all of its threads
    _sealed += 1
    try:
        yield
    finally:
        _sealed -= 1


def seal_for_good() -> None:
    """Have every dataset of this process refuse its test images: a worker lives for a run and for nothing else."""
    global _sealed  # noqa: PLW0603 - as above
    _sealed = max(1, _sealed)


def check_open(dataset: str) -> None:
    """Refuse unless the test set is open.

    Raises:
        SealedError: naming the dataset that was asked.
    """
    if not _open.get():
        raise SealedError(
            f"dataset '{dataset}' was asked for its test images, but the test set is sealed: only the confirmation "
            "opens it, after every choice has been made, and writes that into test_ledger.jsonl"
        )


def guarded(dataset: str, load: Callable[P, R]) -> Callable[P, R]:
    """Return a dataset's own `load(config, place, split)`, which refuses the test images while a run goes on here."""

    @wraps(load)
    def load_unless_sealed(*arguments: P.args, **named: P.kwargs) -> R:
        if _sealed and "test" in (*arguments[2:], *named.values()):
            check_open(dataset)
        return load(*arguments, **named)

    return load_unless_sealed
