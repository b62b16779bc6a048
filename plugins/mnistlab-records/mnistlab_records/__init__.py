"""The architectures behind published MNIST figures, and the optimizer that their recipes need."""

from typing import Any

from mnistlab.api import Model, Optimizer, hookimpl
from mnistlab_records import nets
from mnistlab_records.ema import AdamExponential, build


@hookimpl
def mnistlab_models() -> list[Model[Any]]:
    """Offer m3, m5, m7, reference-net, preact-resnet20 and thrifty-net."""
    return nets.records()


@hookimpl
def mnistlab_optimizers() -> list[Optimizer[AdamExponential]]:
    """Offer Adam with an exponential decay and averaged weights."""
    summary = "Adam, exponential decay, averaged weights at evaluation."
    return [Optimizer(name="adam-exponential", config=AdamExponential, build=build, summary=summary)]
