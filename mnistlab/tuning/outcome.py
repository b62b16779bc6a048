"""How a trial ended, read off its last report: the one rule that Optuna, the events and the results all follow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnistlab.results import State, TrialResult
from mnistlab.tuning.losses import Loss

FIRST_TRIALS, TOO_MANY = 8, 5
BROKEN_OFF = "search broken off"


@dataclass(frozen=True)
class Outcome:
    """How a trial ended; `message` says why it failed or was interrupted, `cause` is the kind of a failure."""

    state: State
    cause: str = ""
    message: str = ""


def outcome_of(
    report: Mapping[str, Any] | None, *, metrics: Sequence[str], lost: Loss | None = None, interruption: str = ""
) -> Outcome:
    """Judge the last report of a worker (see `worker.PlanTrainable`), or that the worker was lost.

    Complete only at the full budget; failed for errors and NaN; all else was stopped early: by an `interruption`, for
    the reason that it says, or else by the scheduler, which is the only other one that stops a trial.
    """
    early = Outcome("interrupted", message=interruption) if interruption else Outcome("pruned")
    if lost:
        return Outcome("failed", lost.cause, lost.message)
    if not report or "epoch" not in report:
        return early
    if report.get("cause"):
        return Outcome("failed", str(report["cause"]), str(report.get("message", "")))
    wrong = [name for name in metrics if not is_finite(report.get(name))]
    if wrong:
        return Outcome("failed", "nan", f"{wrong[0]} is {report.get(wrong[0])!r}")
    return Outcome("complete") if report["epoch"] >= report["epochs"] else early


class Interruptions:
    """Which trials were cut short from outside, and why: what tells them from those that the scheduler stopped."""

    def __init__(self, why: Callable[[], str]) -> None:
        """Take reasons from `why`, which returns in words why trials have to end now, or "" while they may go on."""
        self._why = why
        self._reasons: dict[str, str] = {}

    def takes(self, trial_id: str) -> bool:
        """Return whether a trial has to end at the report that has just come; note why if so."""
        reason = self._why()
        if reason:
            self._reasons.setdefault(trial_id, reason)
        return bool(reason)

    def breaks_off(self, trial_id: str) -> None:
        """Note that nothing more will be heard of a trial, because the search is over."""
        if not self.takes(trial_id):
            self._reasons.setdefault(trial_id, BROKEN_OFF)

    def reason(self, trial_id: str) -> str:
        """Return in words why a trial was cut short, or "" if it was not."""
        return self._reasons.get(trial_id, "")


def is_finite(value: object) -> bool:
    """Return whether `value` is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def common_failure(ended: Sequence[TrialResult]) -> str:
    """Return the cause for which a search is given up: the same one in 5 of the first 8 trials to end; "" if none."""
    causes = Counter(result.cause for result in ended[:FIRST_TRIALS] if result.state == "failed")
    cause, count = causes.most_common(1)[0] if causes else ("", 0)
    return cause if count >= TOO_MANY else ""
