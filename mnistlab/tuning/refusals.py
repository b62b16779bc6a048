"""Errors of ours that come up in what Ray Tune calls: it makes a trial's failure of them, or an error of its own."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from mnistlab.errors import MnistlabError


class Refusals:
    """The first error of ours in a callback of Tune's, as that of a full disk: the search is to end by it."""

    def __init__(self) -> None:
        """Begin without one."""
        self.first: MnistlabError | None = None

    @contextmanager
    def noted(self) -> Generator[None]:
        """Note an error of ours that ends this context."""
        try:
            yield
        except MnistlabError as error:
            self.first = self.first or error
            raise

    def check(self) -> None:
        """Raise the first one again, if there was one."""
        if self.first:
            raise self.first
