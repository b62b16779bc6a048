"""What ours must bear that Ray Tune calls: it pickles them, and hides what they raise."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from mnistlab.errors import MnistlabError


class Unsaved:
    """Pickles as an empty object, for a `restore` that is never called: its state is in the run directory."""

    def __getstate__(self) -> dict[str, object]:
        """Return nothing."""
        return {}


class Refusals:
    """The first error of ours in a callback of Tune's, as that of a full disk: the search is to end by it.

    Tune makes a trial's failure of it, or an error of its own.
    """

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
