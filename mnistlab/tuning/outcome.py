"""How a trial ended, read off its last report: the one rule that Optuna, the events and the results all follow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnistlab.causes import cause_named
from mnistlab.results import State, TrialResult
from mnistlab.spec import ExperimentSpec
from mnistlab.tuning.losses import Loss

FIRST_TRIALS, TOO_MANY = 8, 5
LAST_TRIALS, NEARLY_ALL, BY_CHANCE = (16, 24, 32), 7 / 8, 1e-5
TOO_MANY_IN_A_ROW = 5  # failures that are not the plans': each has had all of its attempts
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


@dataclass(frozen=True)
class GivenUp:
    """Why a search is given up: `count` of its trials failed for one cause, of `which`, in words."""

    cause: str
    count: int
    which: str

    def __str__(self) -> str:
        """Return it in words."""
        return f"cause '{self.cause}' in {self.count} of the {self.which} trials"


def common_failure(ended: Sequence[TrialResult], *, in_blocks: bool = False) -> GivenUp | None:
    """Return why a search is given up, or None. `ended` are the trials that have ended, in that order.

    The same cause of the plans' own has to be that of 5 of the first 8 trials, or of nearly all since: at least 7 of 8
    among the last 16, 24 or 32, and so many that chance would bring them less than once in 100,000 times, given the
    share of the trials before. So a search goes on in which half of all plans fail: where plans are drawn at random,
    about one of 100 such searches of 100 trials is given up by the second rule.

    `in_blocks`: like plans come one after the other, as in a grid. There the second rule is left out, because many
    failures in a row say little of the next block. Causes that are not the plans' are for `machine_failure`.
    """
    for cause, count in _failures(ended[:FIRST_TRIALS]).items():
        if count >= TOO_MANY:
            return GivenUp(cause, TOO_MANY, f"first {FIRST_TRIALS}")
    sizes = () if in_blocks else LAST_TRIALS
    return next(filter(None, (_late_failure(ended, size) for size in sizes)), None)


def given_up(spec: ExperimentSpec, ended: Sequence[TrialResult]) -> GivenUp | None:
    """Return why the search that `spec` describes is given up, or None."""
    return common_failure(ended, in_blocks=spec.search.algorithm == "grid")


def _late_failure(ended: Sequence[TrialResult], size: int) -> GivenUp | None:
    """Return why the last `size` trials are reason to give up, or None."""
    before, last = ended[:-size], ended[-size:]
    if not before:
        return None
    earlier = _failures(before)
    for cause, count in _failures(last).items():
        expected = (earlier[cause] + 1) / (len(before) + 2)  # Laplace's rule of succession
        if count >= NEARLY_ALL * size and _at_least(count, size, expected) < BY_CHANCE:
            return GivenUp(cause, count, f"last {size}")
    return None


def _at_least(count: int, trials: int, share: float) -> float:
    """Return the probability that `count` or more of so many trials fail if each does with the probability `share`."""
    return sum(math.comb(trials, n) * share**n * (1 - share) ** (trials - n) for n in range(count, trials + 1))


def _failures(results: Sequence[TrialResult]) -> Counter[str]:
    """Return how many of `results` failed by their plans' fault, by cause."""
    return Counter(one.cause for one in results if one.state == "failed" and _is_the_plans(one))


def machine_failure(ended: Sequence[TrialResult]) -> str:
    """Return in words that the last 5 of `ended` all failed through no fault of their plans, or ""."""
    last = ended[-TOO_MANY_IN_A_ROW:]
    if len(last) < TOO_MANY_IN_A_ROW or any(one.state != "failed" or _is_the_plans(one) for one in last):
        return ""
    causes = ", ".join(f"{cause} {count}" for cause, count in sorted(Counter(one.cause for one in last).items()))
    said = f"{len(last)} trials in a row failed through no fault of their plans ({causes})"
    return f"{said}; the last of them: {last[-1].message}"


def _is_the_plans(one: TrialResult) -> bool:
    return cause_named(one.cause).owner == "plan"
