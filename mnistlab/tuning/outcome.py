"""How a trial ended, read off its last report: the one rule that Optuna, the events and the results all follow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from typing import Any, Protocol

from mnistlab.experiment.spec import ExperimentSpec
from mnistlab.store.results import State
from mnistlab.training.causes import cause_named
from mnistlab.tuning.history import Past
from mnistlab.tuning.retries import Loss

FIRST_TRIALS, TOO_MANY = 8, 5
IN_A_ROW, NEARLY_ALL, BY_CHANCE = (16, 24, 32), 7 / 8, 1e-5
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
    """Judge the last report of a worker (see `worker.Worker`), or that the worker was lost.

    Complete only at the full budget, which a training at a rung below has not; failed for errors and NaN; all else was
    stopped early: by an `interruption`, for the reason that it says, or else by the scheduler, which is the only other
    one that stops a trial.
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
    return Outcome("complete") if report["epoch"] >= report["epochs"] and "budget" not in report else early


class Judged(Protocol):
    """What is known of a trial that has ended, or has ended its first training at a rung."""

    @property
    def state(self) -> State:
        """Return how; of one that waits at a rung, `pruned`."""
        ...

    @property
    def cause(self) -> str:
        """Return the kind of a failure."""
        ...

    @property
    def message(self) -> str:
        """Return why it failed."""
        ...


def ends_rung(report: Mapping[str, Any] | None, metrics: Sequence[str]) -> bool:
    """Return whether a report is the last of a good training at a rung below the full budget."""
    if not report or "budget" not in report or report.get("cause"):
        return False
    return report["epoch"] >= report["epochs"] and all(is_finite(report.get(name)) for name in metrics)


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
        return f"cause '{self.cause}' in {self.count} of {self.which}"


def common_failure(ended: Sequence[Judged], *, in_blocks: bool = False) -> GivenUp | None:
    """Return why a search is given up, or None. `ended` are the trials that have ended, in that order.

    One that waits at a rung has shown that its plan can be trained: it counts where it began to wait.

    The same cause of the plans' own has to be that of 5 of the first 8 trials, or of nearly all later on: at least 7 of
    8 among 16, 24 or 32 in a row, and so many that chance would bring them less than once in 100,000 times, given the
    share of the trials before. So a search goes on in which half of all plans fail: where plans are drawn at random,
    about one of 100 such searches of 100 trials is given up by the second rule.

    Trials that were interrupted, or failed through no fault of their plans, do not count. A search that was given up
    once stays so, whatever ends after that. `in_blocks`: like plans come one after the other, as in a grid. There the
    second rule is left out, because many failures in a row say little of the next block.
    """
    judged = [one for one in ended if _says_something(one)]
    failed = Counter(one.cause for one in judged if _failed_by_itself(one))
    for cause, count in Counter(one.cause for one in judged[:FIRST_TRIALS] if _failed_by_itself(one)).items():
        if count >= TOO_MANY:
            return GivenUp(cause, TOO_MANY, f"the first {FIRST_TRIALS} trials")
    likely = [] if in_blocks else [cause for cause, count in failed.items() if count >= NEARLY_ALL * min(IN_A_ROW)]
    return next(filter(None, (_late_failure(judged, cause) for cause in likely)), None)


def verdicts_of(past: Past) -> Iterator[Outcome]:
    """Yield how the trials of earlier drivers have ended, or had ended a training at a rung, in that order."""
    for step in past.steps:
        one = past.trials[step.trial]
        if step.kind == "paused":
            yield Outcome("pruned")
        elif step.kind == "ended" and one.state is not None and not one.waits:
            yield Outcome(one.state, one.cause, one.message)


def given_up(spec: ExperimentSpec, ended: Sequence[Judged]) -> GivenUp | None:
    """Return why the search that `spec` describes is given up, or None."""
    return common_failure(ended, in_blocks=spec.search.algorithm == "grid")


def _late_failure(ended: Sequence[Judged], cause: str) -> GivenUp | None:
    """Return why a search is given up for a cause that came later, or None."""
    failures = [0, *accumulate(int(_failed_by_itself(one) and one.cause == cause) for one in ended)]
    for end, size in product(range(len(failures)), IN_A_ROW):
        before = end - size
        if before < 1 or failures[end] - failures[before] < NEARLY_ALL * size:
            continue
        count, expected = failures[end] - failures[before], (failures[before] + 1) / (before + 2)  # rule of succession
        if _at_least(count, size, expected) < BY_CHANCE:
            return GivenUp(cause, count, f"{size} trials in a row")
    return None


def _at_least(count: int, trials: int, share: float) -> float:
    """Return the probability that `count` or more of so many trials fail if each does with the probability `share`."""
    return sum(math.comb(trials, n) * share**n * (1 - share) ** (trials - n) for n in range(count, trials + 1))


def machine_failure(ended: Sequence[Judged]) -> str:
    """Return in words that 5 trials of `ended` in a row failed through no fault of their plans, or ""."""
    row: list[Judged] = []
    for one in ended:
        if one.state == "failed" and not _failed_by_itself(one):
            row.append(one)
        elif one.state != "interrupted":
            row = []
        if len(row) == TOO_MANY_IN_A_ROW:
            causes = ", ".join(f"{word} {count}" for word, count in sorted(Counter(one.cause for one in row).items()))
            said = f"{len(row)} trials in a row failed through no fault of their plans ({causes})"
            return f"{said}; the last of them: {row[-1].message}"
    return ""


def _says_something(one: Judged) -> bool:
    """Return whether a trial says something of its plan: it was not cut short, by the machine either."""
    return one.state != "interrupted" and (one.state != "failed" or _failed_by_itself(one))


def _failed_by_itself(one: Judged) -> bool:
    """Return whether a trial failed by its plan's fault."""
    return one.state == "failed" and cause_named(one.cause).owner == "plan"
