"""What is proposed next: which plan, by Optuna or before it has a say, and under which number.

No plan is tried twice while there is another one. A fresh study is asked for everything once more that earlier drivers
of its run have begun, so that its sampler proposes on as it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from mnistlab.api import Scalar
from mnistlab.experiment.earlier import Earlier, points
from mnistlab.experiment.identity import canonical
from mnistlab.experiment.space import Parameter, Space, defaults, grid, normalized_plan, size, suggest
from mnistlab.experiment.spec import ExperimentSpec
from mnistlab.store.layout import trial_name
from mnistlab.tuning.history import Past, PastTrial
from mnistlab.tuning.study import ask, enqueue
from mnistlab.util.text import counted, settings

INSISTS = 20  # how often a sampler is asked for a plan that was not tried before it gets its way


@dataclass(frozen=True)
class Proposal:
    """A plan that is tried under a number (from 0), and the trial that stands for it in the study."""

    number: int
    trial: Trial
    plan: dict[str, Any]


class Proposals:
    """Asks a study for plans. All defaults come first, then the plans that are taken of earlier runs."""

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        spec: ExperimentSpec,
        earlier: Sequence[Earlier] = (),
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Propose points of `space`, first those of `earlier` runs; what people should know is handed to `say`."""
        self._study, self.space, self._say = study, space, say
        self._trials, self._grid = spec.search.trials, spec.search.algorithm == "grid"
        self._points_in_all = size(space)
        self._first: dict[str, int] = {}  # the first trial of each plan, by the plan's canonical JSON
        self._elsewhere = 0  # how many of these plans the space no longer makes: it was amended since
        self._behind: frozenset[str] = frozenset()  # plans that earlier drivers have begun
        self._points = self._enqueued(earlier)
        self.asked = 0  # for how many trials

    @property
    def left(self) -> bool:
        """Return whether the search is to have more trials than it has asked for."""
        return self.asked < self._trials

    def has_another(self) -> bool:
        """Return whether there is a plan left to propose; say so where there is none, and propose none any more."""
        tried = len(self._first) - self._elsewhere
        if tried != self._points_in_all and self._enqueue_next():
            return True
        self._say(
            f"the space holds {counted(len(self._first), 'plan')}, and each was tried: the search ends after "
            f"{self.asked} of {counted(self._trials, 'trial')}; more seeds of the best plans are what the "
            "confirmation is for"
        )
        self.asked = self._trials
        return False

    def new(self) -> Proposal:
        """Return the proposal that comes next, after `has_another()`."""
        trial, plan = self._proposal()
        number = self._count(trial)
        self._first.setdefault(self._key(plan), number)
        return Proposal(number, trial, plan)

    def first(self, plan: Mapping[str, Any]) -> int:
        """Return the number of the first trial of a plan that was proposed."""
        return self._first[self._key(plan)]

    # --- what earlier drivers did ---

    def know(self, past: Past) -> None:
        """Know which plans were begun, before each of them is asked for `again`."""
        self._behind = frozenset(self._key(one.plan) for one in past.trials.values())

    def unbegun(self, number: int) -> Iterator[Proposal]:
        """Yield what was proposed before trial `number`, and whose driver died before a worker had begun it."""
        while self.asked < number:
            self._enqueue_next()
            yield self.new()

    def again(self, one: PastTrial) -> Trial:
        """Let the sampler propose what it proposed then; where it does not, the plan of then is what it is told.

        It proposes otherwise where trials ran side by side, or where Optuna, the space or the number of trials changed.
        A grid is not asked: with options added to it, its points come in another order.
        """
        wanted = self._key(one.plan)
        trial, plan = self._again_by_sampler() if not self._grid else (None, {})
        if trial is None or self._key(plan) != wanted:
            trial, plan = self._told_instead(trial, one)
        self._count(trial)
        self._elsewhere += wanted not in self._first and self._key(plan) != wanted
        self._first.setdefault(wanted, one.number)
        return trial

    def _again_by_sampler(self) -> tuple[Trial, dict[str, Any]]:
        self._enqueue_next()
        return self._proposal()

    def _told_instead(self, trial: Trial | None, one: PastTrial) -> tuple[Trial, dict[str, Any]]:
        """Replace a proposal by the point of a plan; return the trial that stands for it, and the plan of that point.

        What the plan has not, because the space was amended since, is left open: no value of it has been tried.
        """
        if trial is not None:
            trial.set_user_attr("replaced", one.name)
            self._study.tell(trial, state=TrialState.FAIL)
        flat = settings(normalized_plan(self.space, one.plan))
        point: dict[str, Scalar] = {}

        def as_then(parameter: Parameter) -> Scalar:
            if parameter.path in flat:
                point[parameter.path] = flat[parameter.path]
            return flat.get(parameter.path, parameter.default)

        plan = suggest(self.space, as_then)  # asks for the parameters that are active, and for no others
        enqueue(self._study, self.space, point)
        told = self._study.ask()
        suggest(self.space, lambda one: ask(told, one) if one.path in point else one.default)
        return told, plan

    # --- the study ---

    def _proposal(self) -> tuple[Trial, dict[str, Any]]:
        """Return what Optuna proposes next: a new plan or, where it insists on one that was tried, that one again.

        A repeat is told as FAIL, which samplers pass over: PRUNED would speak against its plan, COMPLETE would count
        one training as two. Of a finite space that still has plans, one that was not tried comes instead of a repeat.
        """
        turns = 0
        while True:
            turns += 1
            trial = self._study.ask()
            plan = suggest(self.space, lambda parameter, trial=trial: ask(trial, parameter))
            first = self._first.get(self._key(plan))
            if first is None or turns > INSISTS or (turns == INSISTS and not self._enqueue_untried()):
                return trial, plan
            trial.set_user_attr("repeats", trial_name(first))
            self._study.tell(trial, state=TrialState.FAIL)

    def _count(self, trial: Trial) -> int:
        number, self.asked = self.asked, self.asked + 1
        if number != trial.number:  # Optuna counts the proposals that were refused
            trial.set_user_attr("trial", trial_name(number))
        return number

    def _enqueued(self, earlier: Sequence[Earlier]) -> Iterator[dict[str, Scalar]]:
        """Yield the points that come before any proposal: all defaults, the best of earlier runs, the whole grid."""
        first = defaults(self.space)
        yield first
        yield from (point for point in points(earlier) if canonical(point) != canonical(first))
        if self._grid:
            yield from (point for point in grid(self.space) if canonical(point) != canonical(first))

    def _enqueue_next(self) -> bool:
        """Give Optuna the next point that comes before its proposals; return whether it may go on proposing."""

        def is_behind(point: Mapping[str, Scalar]) -> bool:
            return self._grid and self._key(suggest(self.space, lambda one: point[one.path])) in self._behind

        point = next((one for one in self._points if not is_behind(one)), None)
        if point is not None:
            enqueue(self._study, self.space, point)
        return point is not None or not self._grid

    def _enqueue_untried(self) -> bool:
        """Give Optuna a point that was not tried; return whether there is one that can be found by counting."""
        for point in grid(self.space) if self._points_in_all is not None else ():
            if self._key(suggest(self.space, lambda one, point=point: point[one.path])) not in self._first:
                enqueue(self._study, self.space, point)
                return True
        return False

    def _key(self, plan: Mapping[str, Any]) -> str:
        """Return the same text for equal plans, also where an earlier version has written a value otherwise."""
        return canonical(normalized_plan(self.space, plan))
