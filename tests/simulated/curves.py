"""What a simulated training comes to: learning curves and failures as a pure function of plan, seed and epoch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mnistlab.experiment.identity import canonical

FINE = 2**20  # accuracies are multiples of 1/FINE, so that a loss of 1 - accuracy orders plans in exactly their reverse
Kind = Literal["good", "nan", "plugin", "worker"]


@dataclass(frozen=True)
class Fate:
    """How a plan ends: `good` at its full budget; else its training fails, or its worker dies, in epoch `at`."""

    kind: Kind
    at: int = 0


def shares(*about: object) -> list[float]:
    """Return eight numbers in [0, 1) that hang on nothing but what they are `about`."""
    digest = hashlib.sha256(repr(about).encode()).digest()
    return [int.from_bytes(digest[4 * place : 4 * place + 4], "big") / 2**32 for place in range(8)]


def fate(plan: Mapping[str, Any], failing: float) -> Fate:
    """Return how a plan ends where the share `failing` of all plans comes to nothing.

    Of these a third each diverges, raises an error (epoch 0: it can't even be built) and loses its worker.
    """
    draw, kind, at, *_ = shares("fate", canonical(plan))
    if draw >= failing:
        return Fate("good")
    epochs = int(plan["training"]["epochs"])
    if kind < 1 / 3:
        return Fate("nan", 1 + int(at * epochs))
    return Fate("plugin", int(at * (epochs + 1))) if kind < 2 / 3 else Fate("worker", 1 + int(at * epochs))


def measured(plan: Mapping[str, Any], seed: int, epoch: int) -> dict[str, float]:
    """Return the metrics of an epoch (from 1): the accuracy rises to a ceiling of the plan, moved a little by the seed.

    Curves of different plans cross: each rises at a speed of its own.
    """
    ceiling, speed, *_ = shares("plan", canonical(plan))
    luck, *_ = shares("seed", canonical(plan), seed)
    accuracy = (0.3 + 0.6 * ceiling + 0.05 * luck) * (1 - math.exp(-(0.2 + speed) * epoch))
    accuracy = round(accuracy * FINE) / FINE
    pace, *_ = shares("pace", canonical(plan), seed, epoch)
    return {
        "train_loss": 1 - accuracy,
        "val_loss": 1 - accuracy,
        "val_accuracy": accuracy,
        "images_per_second": 1000 * (1 + pace),
        "seconds": 1 / (1 + pace),
    }
