"""Tune pickles whatever it is given, for a `restore` that this project never calls; ours have nothing to give."""

from __future__ import annotations


class Unsaved:
    """Pickles as an empty object: its state is in the run directory, where nothing is pickled."""

    def __getstate__(self) -> dict[str, object]:
        """Return nothing."""
        return {}
