"""How the learning rate goes: pure functions of the step, each giving a factor in [0, 1] on the highest rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from mnistlab.api import Choice, Config, Float

_ONE_CYCLE_START = 1 / 25


class Scheduled(Config):
    """What every optimizer's config has beside its own fields."""

    schedule: Annotated[str, Choice("one-cycle", "cosine", "constant")] = "one-cycle"
    """How the learning rate goes over the training; `lr` is its highest value."""
    warmup: Annotated[float, Float(0.0, 0.5)] = 0.3
    """Share of the steps in which the learning rate rises."""


def one_cycle(step: int, total: int, warmup: float) -> float:
    """Return 1/25 rising to 1 and falling to 0, both along half a cosine (Smith & Topin 2019).

    The momentum is left alone, unlike in the paper: it stays the value that a search proposed.
    """
    peak = warmup * total
    if step < peak:
        return _ONE_CYCLE_START + (1 - _ONE_CYCLE_START) * (1 - _fall(step / peak))
    return _fall((step - peak) / (total - peak))


def cosine(step: int, total: int, warmup: float) -> float:
    """Return a linear rise to 1, then half a cosine down to 0 (Loshchilov & Hutter 2017, without restarts)."""
    peak = warmup * total
    rise = _rise(step, peak)
    return rise if rise < 1 else _fall((step - peak) / (total - peak))


def constant(step: int, total: int, warmup: float) -> float:
    """Return a linear rise to 1, then 1."""
    return _rise(step, warmup * total)


_SCHEDULES: dict[str, Callable[[int, int, float], float]] = {
    "one-cycle": one_cycle,
    "cosine": cosine,
    "constant": constant,
}


def schedule_of(config: Scheduled, total_steps: int) -> Callable[[int], float]:
    """Return the function step (0 for the first) -> factor; beyond `total_steps` it stays at its final value."""
    total = max(total_steps, 1)
    function, warmup = _SCHEDULES[config.schedule], config.warmup
    return lambda step: function(min(step, total), total, warmup)


def _rise(step: int, steps: float) -> float:
    """Return a line that is above 0 at step 0, so that no step is wasted, and reaches 1 after `steps`."""
    return min(1.0, (step + 1) / max(steps, 1.0))


def _fall(share: float) -> float:
    """Return half a cosine: 1 at share 0, 0 at share 1."""
    return (1 + math.cos(math.pi * min(max(share, 0.0), 1.0))) / 2
