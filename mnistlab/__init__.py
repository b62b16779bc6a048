"""mnistlab: plugin-based, trustworthy hyperparameter search for MNIST-like image classification.

`mnistlab.search("x.toml")` runs a whole search and returns what it has found; `mnistlab.open_run("runs/x-1")` returns
that of an earlier one, `mnistlab.load_model("winner.safetensors")` an exported model. Plugins are written with
`mnistlab.api` and tested with `mnistlab.testing`.
"""

from __future__ import annotations

import logging
import warnings
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnistlab.python_api import SearchResult, open_run, search
    from mnistlab.trained.loading import load_model

__version__ = "0.1.0"

__all__ = ["SearchResult", "__version__", "load_model", "open_run", "search"]

_WITHOUT_RAY = {"load_model": "mnistlab.trained.loading"}


def __getattr__(name: str) -> object:
    """Import what is public here once it is asked for: torch comes with it, with most of it Ray, and takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # in a notebook Ray asks for ipywidgets, which are not needed
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="IProgress not found")  # as does tqdm
            return getattr(import_module(_WITHOUT_RAY.get(name, "mnistlab.python_api")), name)
    finally:
        logging.disable(before)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
