"""What a confirmation has to do: which plans, on which fresh seeds, and what of that was done before.

The plan of all defaults is one of them, so that a run can say what its search has gained. It goes by the trial that had
it, however that ended; where the search has tried no such plan, it gets a name of its own among the trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnistlab.experiment.identity import comparable
from mnistlab.experiment.space import Plan, Space, default_plan, size
from mnistlab.experiment.spec import ConfirmSpec, ExperimentSpec
from mnistlab.leaderboard.racing import left_a_race, races_before
from mnistlab.store.results import ReplicateResult, RunRecord, TrialResult, baseline_name, untried
from mnistlab.tuning.driver import best_trials
from mnistlab.tuning.worker.replicate import ReplicateTask
from mnistlab.util.seeds import replicate_seed
from mnistlab.util.text import settings


@dataclass(frozen=True)
class Chosen:
    """The plans of a confirmation. `baseline` names that of all defaults, "" where none is asked for.

    `added` says that it is not among the best ones, but comes on top of them.
    """

    trials: tuple[TrialResult, ...]
    baseline: str = ""
    added: bool = False

    @property
    def said(self) -> Mapping[str, Any]:
        """Return what is written down of the baseline; of one that no trial had, its plan too."""
        if not self.baseline:
            return {}
        (one,) = (trial for trial in self.trials if trial.trial == self.baseline)
        plan = {"plan": dict(one.plan)} if one.number < 0 else {}
        return {"baseline": {"trial": one.trial, "added": self.added, **plan}}


@dataclass(frozen=True)
class Work:
    """What a confirmation has to do: which plans, what of them is to be trained, what has been trained before."""

    chosen: Chosen
    seeds: int  # of each plan, in all
    tasks: tuple[ReplicateTask, ...]
    known: tuple[ReplicateResult, ...]
    refits: tuple[ReplicateResult, ...]
    refit_due: bool
    broken: frozenset[tuple[str, int]] = frozenset()  # models that the test set was opened for in vain
    earlier: int = 0  # races before this one, which may have begun in a confirmation that was cut off
    out: frozenset[str] = frozenset()  # plans that have left a race over at least as many seeds: they stay out
    ensemble_due: str = ""  # the trial for whose ensemble the test set was opened, and that has no score yet
    unsaid: bool = False  # nothing has written down yet which of the plans is that of all defaults

    @property
    def trials(self) -> tuple[TrialResult, ...]:
        """Return the plans, each by a trial that had it."""
        return self.chosen.trials

    @property
    def untested(self) -> tuple[ReplicateResult, ...]:
        """Return the models of earlier confirmations that the test set was never opened for."""
        return self.untested_of((*self.known, *self.refits))

    def untested_of(self, models: Sequence[ReplicateResult]) -> tuple[ReplicateResult, ...]:
        """Return those of `models` that have weights and that the test set was never opened for."""
        kept = [one for one in models if one.weights_sha256 and not one.cause and one.test is None]
        return tuple(one for one in kept if (one.trial, one.replicate) not in self.broken)

    @property
    def done(self) -> bool:
        """Return whether there is nothing to do."""
        return not (self.tasks or self.untested or self.refit_due or self.ensemble_due or self.unsaid)


# --- which plans --------------------------------------------------------------------------------------------------


def chosen_of(
    spec: ExperimentSpec, space: Space, trials: Sequence[TrialResult], before: RunRecord | None = None
) -> Chosen:
    """Return the plans that a confirmation takes: the best of `trials`, and that of all defaults.

    Where no trial has used its full budget, or none is to be confirmed, there is nothing to compare the defaults with;
    nor is there where the space has a single plan. A trial that stood for the defaults `before` still does: another one
    with the same plan would train it once more, and compete with it.
    """
    best = best_trials(trials, spec.search.metric[0], spec.confirm.top)
    if not (best and spec.confirm.baseline) or size(space) == 1:
        return Chosen(tuple(best))
    plan = default_plan(space)
    mine = [one for one in (*best, *trials) if same_settings(one.plan, plan)]
    full = best_trials([one for one in mine if one.state == "complete"], spec.search.metric[0], 1)
    stood = [one for one in (*mine, *(before.untried if before else ())) if before and one.trial == before.baseline]
    stood = [one for one in stood if same_settings(one.plan, plan)]
    tried = [*stood, *full, *sorted(mine, key=lambda trial: trial.number)]
    one = tried[0] if tried else untried(_own_name(plan, before), plan)
    added = one.trial not in {trial.trial for trial in best}
    return Chosen((*best, *([one] if added else ())), one.trial, added)


def same_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two plans of a run are set to the same, whatever the versions of their plugins."""
    return comparable(settings(one)) == comparable(settings(other))


def _own_name(plan: Plan, before: RunRecord | None) -> str:
    """Return the name of a plan that no trial had: its own of before, or one that stands for no other plan yet.

    An amended space may have other defaults.
    """
    known = before.untried if before else ()
    mine = [one.trial for one in known if same_settings(one.plan, plan)]
    return mine[0] if mine else baseline_name(1 + len(known))


# --- what is to be done with them ---------------------------------------------------------------------------------


def work_of(spec: ExperimentSpec, space: Space, trials: Sequence[TrialResult], before: RunRecord | None = None) -> Work:
    """Return what the confirmation that `spec` asks for has to do beside what the run holds from `before`.

    A seed that has failed was tried, and is not tried again: a plan must not get as many attempts as it needs.
    """
    return _work(spec, chosen_of(spec, space, trials, before), spec.confirm.seeds, before)


def left_of(spec: ExperimentSpec, trials: Sequence[TrialResult], before: RunRecord) -> Work | None:
    """Return what is left of the newest confirmation that asked for more than `spec` does, or None where it is done.

    It keeps the plans that were the best ones when it was asked for. One that asked for no more than `spec` is left to
    `work_of`: by now the best ones may be others.
    """
    planned = [entry for entry in before.confirmations if entry.get("type") == "planned"]
    asked = [entry for entry in planned if _asks_for_more(entry, spec.confirm)]
    if not asked:
        return None
    there = {trial.trial: trial for trial in (*before.untried, *trials)}
    names, said = asked[-1]["trials"], asked[-1].get("baseline", {})
    about = (str(said["trial"]), bool(said.get("added"))) if said.get("trial") in there else ("", False)
    chosen = Chosen(tuple(there[name] for name in names if name in there), *about)
    work = _work(spec, chosen, int(asked[-1]["seeds"]), before)
    return None if work.done else work


def _asks_for_more(entry: Mapping[str, Any], own: ConfirmSpec) -> bool:
    """Return whether an entry of `confirmation.jsonl` asks for more seeds, more plans or the defaults too."""
    baseline = entry.get("baseline", {})
    plans = len(entry["trials"]) - bool(baseline.get("added"))
    return entry["seeds"] > own.seeds or plans > own.top or bool(baseline and not own.baseline)


def _work(spec: ExperimentSpec, chosen: Chosen, seeds: int, before: RunRecord | None) -> Work:
    replicates, refits = (before.replicates, before.refits) if before else ((), ())
    there = {(one.trial, one.replicate) for one in replicates}
    entries = before.confirmations if before else ()
    names, out = {trial.trial for trial in chosen.trials}, left_a_race(entries, seeds) - {chosen.baseline}
    tasks = [
        ReplicateTask(trial.trial, number, replicate_seed(spec.seed, number), dict(trial.plan))
        for number in range(1, seeds + 1)  # seeds first, so that plans stay comparable if the run is cut
        for trial in chosen.trials
        if (trial.trial, number) not in there and trial.trial not in out
    ]
    known = tuple(one for one in replicates if one.trial in names)
    due = spec.confirm.refit and not refits and any(not one.cause for one in known)
    mine = tuple(one for one in refits if one.trial in names)
    broken = before.broken_on_test if before else frozenset[tuple[str, int]]()
    earlier, together = races_before(entries, names, seeds), before.ensemble_due if before else ""
    unsaid = bool(known and chosen.baseline) and before is not None and before.baseline != chosen.baseline
    return Work(chosen, seeds, tuple(tasks), known, mine, due, broken, earlier, out, together, unsaid)
