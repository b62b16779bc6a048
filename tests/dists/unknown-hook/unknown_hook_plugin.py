"""It answers a question that nobody asks."""

from __future__ import annotations

from mnistlab.api import hookimpl


@hookimpl
def mnistlab_modles():
    return []
