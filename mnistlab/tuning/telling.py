"""What Optuna is told of trials: how they do meanwhile, and how they end.

A trial is COMPLETE only at its full budget, PRUNED with every intermediate value when it was stopped, FAIL when it came
to nothing. Optuna has no word for a trial that was cut short from outside: it is PRUNED too, with the reason as its
user attribute `interrupted`. Samplers pass over FAIL, so a plan that diverges, raises, or takes more memory or time
than there is, is told as PRUNED with a constraint that it violates: TPE ranks it last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from mnistlab.training.causes import cause_named
from mnistlab.tuning.outcome import Outcome
from mnistlab.tuning.schedulers.halving import Rung

_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "interrupted": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class Teller:
    """Tells a study of its trials: of their rungs where they are trained at rungs, else of their epochs."""

    def __init__(self, study: optuna.Study, metrics: Sequence[str], rungs: Sequence[Rung] = ()) -> None:
        """Tell of the `metrics` of a search, of which the first decides."""
        self._study, self._metrics, self._rungs = study, metrics, rungs
        self._reported: dict[int, int] = {}  # the latest epoch that was told, by Optuna's number of the trial

    def report(self, trial: Trial, result: Mapping[str, Any]) -> None:
        """Tell of an epoch as a worker has reported it, unless it was told before that worker had the trial."""
        if result.get("cause") or not self._takes_epochs:
            return
        epoch = int(result["epoch"])
        if epoch > self._reported.get(trial.number, 0):
            self.epoch(trial, epoch, result)

    def epoch(self, trial: Trial, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Tell of an epoch, if it has a value."""
        value = metrics.get(self._metrics[0])
        if self._takes_epochs and isinstance(value, (int, float)):
            trial.report(float(value), epoch)
            self._reported[trial.number] = max(epoch, self._reported.get(trial.number, 0))

    @property
    def _takes_epochs(self) -> bool:
        """Return whether epochs are told: of several metrics Optuna takes none, and those of rungs are not alike."""
        return len(self._metrics) == 1 and not self._rungs

    def rung(self, trial: Trial, rung: int, metrics: Mapping[str, float]) -> None:
        """Tell what a training at a rung came to, under the rung's number: like is ranked with like."""
        trial.report(float(metrics[self._metrics[0]]), rung)

    def end(self, trial: Trial, outcome: Outcome, result: Mapping[str, Any]) -> None:
        """Tell how a trial ended, with the values of its last `result` where it is complete."""
        complete = outcome.state == "complete"
        if complete and self._rungs:
            self.rung(trial, self._rungs[-1].number, result)
        if outcome.state == "failed":
            trial.set_user_attr("cause", outcome.cause)
            trial.set_user_attr("message", outcome.message)
        if outcome.state == "interrupted":
            trial.set_user_attr("interrupted", outcome.message)
        infeasible = cause_named(outcome.cause).infeasible
        if infeasible:
            trial.set_constraint(outcome.cause, 1.0)  # more than 0: violated
        values = [float(result[name]) for name in self._metrics] if complete else None
        self._study.tell(trial, values=values, state=TrialState.PRUNED if infeasible else _STATES[outcome.state])
