"""A clock that jumps from one event to the next, and what came of a search by it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tables.table import Table


@dataclass(frozen=True)
class Ended:
    """A training that has ended, of a row of the table: what it showed, and whether it had the full budget.

    `epochs` is what all trainings so far have cost, `seconds` the time on the clock.
    """

    epochs: float
    seconds: float
    row: int
    value: float
    complete: bool


@dataclass
class Searched:
    """What came of a search: its trainings in the order of their ends, and the rows that it proposed."""

    ended: list[Ended] = field(default_factory=list[Ended])
    proposed: set[int] = field(default_factory=set[int])


@dataclass
class Clock:
    """What happens when. `spent` counts the epochs that have ended."""

    now: float = 0.0
    spent: float = 0.0
    _coming: list[tuple[float, int, Any]] = field(default_factory=list[tuple[float, int, Any]])
    _count: int = 0

    def later(self, seconds: float, what: Any) -> None:
        """Let something happen in so many seconds."""
        self._count += 1
        heapq.heappush(self._coming, (self.now + seconds, self._count, what))

    def next(self) -> Any:
        """Let the clock jump to what comes next, and return that, or None where there is nothing."""
        if not self._coming:
            return None
        self.now, _, what = heapq.heappop(self._coming)
        return what


def incumbents(table: Table, found: Searched) -> Iterator[tuple[float, float, float]]:
    """Yield cost (epochs), seconds and the true error of the plan that a search would choose, when that one changes.

    It would choose the best value at the full budget.
    """
    best = -1.0
    for one in found.ended:
        if one.complete and one.value > best:
            best = one.value
            yield one.epochs, one.seconds, table.rows[one.row].error
