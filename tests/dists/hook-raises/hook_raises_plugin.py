"""Its hook fails."""

from __future__ import annotations

from mnistlab.api import hookimpl


@hookimpl
def mnistlab_models():
    raise RuntimeError("no GPU in this\n   house")
