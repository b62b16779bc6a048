"""What a search may go by: the metrics, and of which of them more is better."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

METRICS = ("val_accuracy", "val_loss", "train_loss", "parameters", "images_per_second", "seconds")
MINIMIZED = frozenset({"val_loss", "train_loss", "parameters", "seconds"})
FIXED = frozenset({"parameters"})  # known of a plan before it is trained: no seed and no image changes them


@dataclass(frozen=True)
class Metric:
    """A metric by its name. It answers which of its values is better, so that nobody else need ask which way."""

    name: str

    @property
    def higher_is_better(self) -> bool:
        """Return whether a larger value is the better one."""
        return self.name not in MINIMIZED

    @property
    def mode(self) -> Literal["max", "min"]:
        """Return what Ray is to look for."""
        return "max" if self.higher_is_better else "min"

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Return what Optuna is to do."""
        return "maximize" if self.higher_is_better else "minimize"

    def worth(self, value: float) -> float:
        """Return a value, or a difference of two, such that more is better; of that, the value again."""
        return value if self.higher_is_better else -value

    def cost(self, value: float) -> float:
        """Return a value such that less is better: a sort key that puts the best first."""
        return -self.worth(value)

    def better(self, value: float, other: float) -> bool:
        """Return whether `value` is better than `other`."""
        return self.worth(value) > self.worth(other)

    def best(self, values: Iterable[float]) -> float:
        """Return the best of `values`, of which there must be one."""
        return max(values, key=self.worth)
