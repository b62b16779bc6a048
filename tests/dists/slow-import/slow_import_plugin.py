"""Takes its time, as packages do that read their registry at import; whoever only lists plugins must not wait."""

import os
import time
from pathlib import Path

if "MNISTLAB_TEST_MARK" in os.environ:
    Path(os.environ["MNISTLAB_TEST_MARK"]).touch()
time.sleep(float(os.environ.get("MNISTLAB_TEST_SLOW", "0.1")))

from mnistlab.api import Config, Model, hookimpl  # noqa: E402


class Slow(Config):
    """No setting."""


@hookimpl
def mnistlab_models():
    """Offer one model."""
    return [Model(name="slow-net", config=Slow, build=lambda config, shape: None, summary="A slow one.")]
