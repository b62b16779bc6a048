"""mnistlab: plugin-based, trustworthy hyperparameter search for MNIST-like image classification.

`mnistlab.search("x.toml")` runs a whole search and returns what it has found; `mnistlab.open_run("runs/x-1")` returns
that of an earlier one. Plugins are written with `mnistlab.api` and tested with `mnistlab.testing`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnistlab.python import SearchResult, open_run, search

__version__ = "0.1.0"

__all__ = ["SearchResult", "__version__", "open_run", "search"]


def __getattr__(name: str) -> object:
    """Import what is public here once it is asked for: it brings torch and Ray along, which takes seconds."""
    if name in __all__:
        return getattr(import_module("mnistlab.python"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
