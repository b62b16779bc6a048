"""The median rule (Golovin 2017): a trial is stopped whose best value is worse than the median of the others."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import MedianStoppingRule, TrialScheduler

from mnistlab.tuning.history import Past
from mnistlab.tuning.schedulers.common import TIME, Wanted, replay, resumed

SAMPLES = 3  # trials that have come so far, before one is stopped


def build(wanted: Wanted) -> TrialScheduler:
    """Return the rule."""
    made = Median(grace_period=wanted.grace, min_samples_required=SAMPLES, **wanted.goal)
    made.take_up(wanted.past)
    return made


class Median(MedianStoppingRule):
    """The median rule (Golovin 2017), which Ray's own version forgets for good once a trial ends without a metric.

    It keeps every report for as long as the search lasts, so that it is given no more of one than it looks at.
    """

    def __init__(self, **options: Any) -> None:
        """Begin without a past."""
        super().__init__(**options)
        self._known: dict[str, Any] = {}  # every trial by its name

    def take_up(self, past: Past) -> None:
        """Know the reports of earlier drivers of the run."""
        replay(self, past)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Let a trial that goes on take over what is known of it."""
        super().on_trial_add(tune_controller, trial)
        before = self._known.pop(resumed(trial), None)
        if before in self._results:
            self._results[trial] = self._results.pop(before)
        self._known[trial.trial_id] = trial

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide as Ray does; an epoch that is trained again, after its worker was lost, has been judged."""
        if any(report[TIME] == result[TIME] for report in self._results.get(trial, ())):
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, self._looked_at(result))

    def _looked_at(self, result: dict[str, Any]) -> dict[str, Any]:
        return {key: result[key] for key in (TIME, self._metric) if key in result}

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Take the last report of a trial into account, unless it says why the trial failed."""
        if "cause" not in result:
            super().on_trial_complete(tune_controller, trial, self._looked_at(result))
