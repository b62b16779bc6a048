"""How a trial ended, read off its last report: the one rule that Optuna, the events and the results all follow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnistlab.results import State, TrialResult

FIRST_TRIALS, TOO_MANY = 8, 5


@dataclass(frozen=True)
class Outcome:
    """COMPLETE only at the full budget; failed for errors and NaN; everything else was stopped early: pruned."""

    state: State
    cause: str = ""
    message: str = ""


def outcome_of(report: Mapping[str, Any] | None, *, metrics: Sequence[str], error: str = "") -> Outcome:
    """Judge the last report of a worker (see `worker.PlanTrainable`), or the error with which the worker was lost."""
    if error:
        return Outcome("failed", "worker", error)
    if not report or "epoch" not in report:
        return Outcome("pruned")
    if report.get("cause"):
        return Outcome("failed", str(report["cause"]), str(report.get("message", "")))
    wrong = [name for name in metrics if not is_finite(report.get(name))]
    if wrong:
        return Outcome("failed", "nan", f"{wrong[0]} is {report.get(wrong[0])!r}")
    return Outcome("complete" if report["epoch"] >= report["epochs"] else "pruned")


def is_finite(value: object) -> bool:
    """Return whether `value` is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def common_failure(ended: Sequence[TrialResult]) -> str:
    """Return the cause for which a search is given up: the same one in 5 of the first 8 trials to end; "" if none."""
    causes = Counter(result.cause for result in ended[:FIRST_TRIALS] if result.state == "failed")
    cause, count = causes.most_common(1)[0] if causes else ("", 0)
    return cause if count >= TOO_MANY else ""
