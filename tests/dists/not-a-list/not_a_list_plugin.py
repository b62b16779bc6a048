"""It offers a word instead of records."""

from __future__ import annotations

from mnistlab.api import hookimpl


@hookimpl
def mnistlab_models():
    return ["net"]
