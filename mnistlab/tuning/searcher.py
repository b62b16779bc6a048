"""Between Ray Tune and Optuna: our own Searcher over `study.ask` and `study.tell`.

Ray's stock OptunaSearch tells a trial that the scheduler stopped as COMPLETE with its early score, drops the last
value, and leaves a NaN trial RUNNING for ever. Here a trial is COMPLETE only at its full budget, PRUNED with every
intermediate value when it was stopped, FAIL when it came to nothing. Optuna has no word for a trial that was cut short
from outside: it is PRUNED too, with the reason as its user attribute `interrupted`. Samplers pass over FAIL, so a plan
that diverges, raises, or takes more memory or time than there is, is told as PRUNED with a constraint that it
violates: TPE ranks it last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher

from mnistlab.api import Scalar
from mnistlab.events import Emit, RungDecided
from mnistlab.experiment.earlier import Earlier, points
from mnistlab.experiment.identity import canonical
from mnistlab.experiment.space import Parameter, Space, defaults, grid, normalized_plan, size, suggest
from mnistlab.experiment.spec import ExperimentSpec
from mnistlab.store.results import higher_is_better, trial_name
from mnistlab.training.causes import cause_named
from mnistlab.tuning.history import Past, PastTrial
from mnistlab.tuning.ladder import Ladder, Rung, worth
from mnistlab.tuning.outcome import BROKEN_OFF, Interruptions, Outcome, ends_rung, outcome_of
from mnistlab.tuning.refusals import Refusals
from mnistlab.tuning.retries import Loss
from mnistlab.tuning.study import ask, enqueue
from mnistlab.tuning.tune_compat import Unsaved
from mnistlab.tuning.work import Waiting, task_of
from mnistlab.util.seeds import trial_seed
from mnistlab.util.text import counted, settings

INSISTS = 20  # how often a sampler is asked for a plan that was not tried before it gets its way

_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "interrupted": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class Bridge(Unsaved, Searcher):
    """Answers Tune's `suggest` with plans that Optuna proposes, and tells Optuna how each of them ended.

    Life of a trial: `suggest` asks, `on_trial_result` reports every epoch but the last, `on_trial_complete` reports
    the last and tells. Tune calls all of them in the driver, one after the other.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        spec: ExperimentSpec,
        *,
        parallel: int | None,
        interruptions: Interruptions,
        stopping: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda _: None,
        put: Callable[[bytes], object] = lambda state: state,
        shortage: Callable[[], str] = lambda: "",
        refusals: Refusals | None = None,
        away_from: Callable[[str], list[str]] = lambda _: [],
        ladder: Ladder | None = None,
        emit: Emit = lambda _: None,
        earlier: Sequence[Earlier] = (),
    ) -> None:
        """Propose points of `space`; at most `parallel` live trials at once; none any more once `stopping()`.

        What people should know of the proposals is handed to `say`. `put` takes a trial's packed state and returns what
        a worker gets it by. While `shortage` says of what, no trial is handed out. What the study's file refuses is
        noted in `refusals`. `away_from` takes a trial's name and returns the ids of the nodes that are not to get it.
        A `ladder` says who is promoted, where trials are trained at its rungs; what it decides is emitted.
        The plans that are taken of `earlier` runs come right after all defaults.
        """
        super().__init__(metric=spec.search.metric[0], mode="max" if higher_is_better(spec.search.metric[0]) else "min")
        self._study, self._space, self._spec = study, space, spec
        self._parallel, self._stopping, self._interruptions = parallel, stopping, interruptions
        self._say, self._put, self._shortage = say, put, shortage
        self._refusals, self._away_from = refusals or Refusals(), away_from
        self.short = ""  # of what there was too little for another trial
        self._points_in_all = size(space)
        self._first: dict[str, int] = {}  # the first trial of each plan, by the plan's canonical JSON
        self._elsewhere = 0  # how many of these plans the space no longer makes: it was amended since
        self._behind: frozenset[str] = frozenset()  # plans that earlier drivers have begun
        self._live: dict[str, Trial] = {}
        self._numbers: dict[str, int] = {}
        self._begun: dict[int, tuple[Mapping[str, Any], int]] = {}  # by number: first plan and seed
        self._reported: dict[str, int] = {}
        self._last: dict[str, dict[str, Any]] = {}
        self._asked = 0
        self._earlier = earlier
        self._points = self._enqueued()
        self._again: list[Waiting] = []
        self._unbegun: list[tuple[int, Trial, dict[str, Any]]] = []  # proposed for an earlier driver, never begun
        self.going_on: dict[str, PastTrial] = {}  # those of them that have been handed out, by Tune's name
        self._ladder, self._emit = ladder, emit
        self._rungs: dict[str, int] = {}  # of the trials that are being trained
        self._paused: dict[str, Waiting] = {}  # by our name: those that wait at a rung

    def _enqueued(self) -> Iterator[dict[str, Scalar]]:
        """Yield the points that come before any proposal: all defaults, the best of earlier runs, the whole grid."""
        first = defaults(self._space)
        yield first
        yield from (point for point in points(self._earlier) if canonical(point) != canonical(first))
        if self._grid:
            yield from (point for point in grid(self._space) if canonical(point) != canonical(first))

    # --- Tune asks ---

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's task, None while enough trials are live, FINISHED when there can be no more.

        Trials that go on come before new ones, and so do those that were proposed and never begun. `resumes` in a task
        names a trial that goes on.
        """
        if self._stopping():
            return Searcher.FINISHED
        if self._parallel is not None and len(self._live) >= self._parallel:
            return None
        with self._refusals.noted():
            task = None if self._is_over() or self._lacks() else self._next(trial_id)
        # While a trial is live the search is not over: it may lose its worker, and go on with another one.
        return task or (None if self._live else Searcher.FINISHED)

    def _is_over(self) -> bool:
        """Return whether every trial that was asked for has been handed out."""
        return not (self._again or self._unbegun or self._due()) and self._asked >= self._spec.search.trials

    def _next(self, trial_id: str) -> dict[str, Any] | None:
        if self._again:
            return self._go_on(trial_id, self._again.pop(0))
        if self._unbegun:
            return self._hand_out(trial_id, *self._unbegun.pop(0))
        if due := self._due():
            return self._promote(trial_id, *due)
        if self._asked < self._spec.search.trials and self._has_another():
            return self._hand_out(trial_id, *self._new())
        due = self._due()  # now that there is no other plan
        return self._promote(trial_id, *due) if due else None

    def _due(self) -> tuple[str, Rung] | None:
        """Return the trial that is promoted next, and to which rung."""
        if self._ladder is None:
            return None
        live = [*self._rungs.values(), *(waiting.one.rung for waiting in self._again)]
        more = bool(self._unbegun) or self._asked < self._spec.search.trials
        return self._ladder.next(more=more, live=live)

    def _promote(self, trial_id: str, name: str, rung: Rung) -> dict[str, Any]:
        assert self._ladder is not None
        self._ladder.goes_up(name, rung.number)
        self._say_rung(rung.number - 1)
        waiting = self._paused.pop(name)
        return self._go_on(trial_id, replace(waiting, one=replace(waiting.one, rung=rung.number, history={})))

    def _lacks(self) -> bool:
        """Return whether there is a shortage."""
        self.short = self._shortage()
        return bool(self.short)

    def _has_another(self) -> bool:
        """Return whether there is a plan left to propose; say so where there is none."""
        tried = len(self._first) - self._elsewhere
        if tried == self._points_in_all or not self._enqueue_next():
            self._say_exhausted()
            return False
        return True

    def _new(self) -> tuple[int, Trial, dict[str, Any]]:
        """Return the number, the trial and the plan that come next."""
        trial, plan = self._proposal()
        number = self._count(trial)
        self._first.setdefault(self._key(plan), number)
        return number, trial, plan

    def _hand_out(self, trial_id: str, number: int, trial: Trial, plan: dict[str, Any]) -> dict[str, Any]:
        self._live[trial_id], self._numbers[trial_id] = trial, number
        first, seed = self._first[self._key(plan)], trial_seed(self._spec.seed, number)
        self._begun[number] = plan, seed
        repeats = "" if first == number else trial_name(first)
        return task_of(plan, seed, repeats, away=self._away_from(trial_name(number)), rung=self._at(trial_id, 0))

    def _at(self, trial_id: str, rung: int) -> Rung | None:
        """Note at which rung a trial is trained from now on; return it, or None where there are no rungs."""
        if self._ladder is None:
            return None
        self._rungs[trial_id] = rung
        return self._ladder.rungs[rung]

    def _enqueue_next(self) -> bool:
        """Give Optuna the next point that comes before its proposals; return whether it may go on proposing."""

        def is_behind(point: Mapping[str, Scalar]) -> bool:
            return self._grid and self._key(suggest(self._space, lambda one: point[one.path])) in self._behind

        point = next((one for one in self._points if not is_behind(one)), None)
        if point is not None:
            enqueue(self._study, self._space, point)
        return point is not None or not self._grid

    @property
    def _grid(self) -> bool:
        return self._spec.search.algorithm == "grid"

    def _key(self, plan: Mapping[str, Any]) -> str:
        """Return the same text for equal plans, also where an earlier version has written a value otherwise."""
        return canonical(normalized_plan(self._space, plan))

    def _count(self, trial: Trial) -> int:
        number, self._asked = self._asked, self._asked + 1
        if number != trial.number:  # Optuna counts the proposals that were refused
            trial.set_user_attr("trial", trial_name(number))
        return number

    def _proposal(self) -> tuple[Trial, dict[str, Any]]:
        """Return what Optuna proposes next: a new plan or, where it insists on one that was tried, that one again.

        A repeat is told as FAIL, which samplers pass over: PRUNED would speak against its plan, COMPLETE would count
        one training as two. Of a finite space that still has plans, one that was not tried comes instead of a repeat.
        """
        turns = 0
        while True:
            turns += 1
            trial = self._study.ask()
            plan = suggest(self._space, lambda parameter, trial=trial: ask(trial, parameter))
            first = self._first.get(self._key(plan))
            if first is None or turns > INSISTS or (turns == INSISTS and not self._enqueue_untried()):
                return trial, plan
            trial.set_user_attr("repeats", trial_name(first))
            self._study.tell(trial, state=TrialState.FAIL)

    def _enqueue_untried(self) -> bool:
        """Give Optuna a point that was not tried; return whether there is one that can be found by counting."""
        for point in grid(self._space) if self._points_in_all is not None else ():
            if self._key(suggest(self._space, lambda one, point=point: point[one.path])) not in self._first:
                enqueue(self._study, self._space, point)
                return True
        return False

    def _say_exhausted(self) -> None:
        """Say that every plan of the space was tried, and propose nothing any more."""
        self._say(
            f"the space holds {counted(len(self._first), 'plan')}, and each was tried: the search ends after "
            f"{self._asked} of {counted(self._spec.search.trials, 'trial')}; more seeds of the best plans are what the "
            "confirmation is for"
        )
        self._asked = self._spec.search.trials

    def number(self, trial_id: str) -> int:
        """Return our number (from 0) of the trial that Tune calls `trial_id`."""
        return self._numbers[trial_id]

    # --- what earlier drivers did ---

    def take_up(self, past: Past, states: Mapping[str, bytes]) -> None:
        """Tell a fresh study everything that has happened, so that its sampler goes on as it would have.

        `states` holds the packed states from which trials go on, by the trials' names.
        """
        self._behind = frozenset(self._key(one.plan) for one in past.trials.values())
        live: dict[str, Trial] = {}
        if self._ladder:
            self._ladder.take_up(past, self._spec.search.metric[0])
        for step in past.steps:
            one = past.trials[step.trial]
            if step.kind == "started":
                while self._asked < one.number:  # proposed, and its driver died before a worker had begun it
                    self._enqueue_next()
                    self._unbegun.append(self._new())
                live[one.name], self._begun[one.number] = self._asked_again(one), (one.plan, one.seed)
            elif step.kind == "paused":
                self._tell_rung(live[one.name], step.rung, one.rungs[step.rung].metrics)
            elif step.kind == "epoch":
                if step.epoch < max(one.history) or one.state is None:  # the last is told with the end, as it was
                    self._tell_epoch(live[one.name], step.epoch, one.history[step.epoch])
            elif step.kind == "ended" and not one.waits:
                self._tell_past(live.pop(one.name), one)
        self._paused = {one.name: Waiting(one, live[one.name], one.name) for one in past.waiting}
        going_on = [one for one in past.unended if one.name in live]
        self._again = [self._waiting(one, live[one.name], one.name, states.get(one.name)) for one in going_on]

    def _asked_again(self, one: PastTrial) -> Trial:
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
        flat = settings(normalized_plan(self._space, one.plan))
        point: dict[str, Scalar] = {}

        def as_then(parameter: Parameter) -> Scalar:
            if parameter.path in flat:
                point[parameter.path] = flat[parameter.path]
            return flat.get(parameter.path, parameter.default)

        plan = suggest(self._space, as_then)  # asks for the parameters that are active, and for no others
        enqueue(self._study, self._space, point)
        told = self._study.ask()
        suggest(self._space, lambda one: ask(told, one) if one.path in point else one.default)
        return told, plan

    def _tell_epoch(self, trial: Trial, epoch: int, metrics: Mapping[str, float]) -> None:
        if self._ladder:  # epochs of different rungs are not the same thing
            return
        value = metrics.get(self._spec.search.metric[0])
        if len(self._spec.search.metric) == 1 and value is not None:
            trial.report(float(value), epoch)

    def _tell_past(self, trial: Trial, one: PastTrial) -> None:
        last = max(one.history, default=0)
        if last:
            self._tell_epoch(trial, last, one.history[last])
        result = one.history.get(last, {})
        if one.state == "complete":
            self._tell_full(trial, result)
        self._told(trial, Outcome(one.state or "failed", one.cause, one.message), result, self._spec.search.metric)

    def _go_on(self, trial_id: str, waiting: Waiting) -> dict[str, Any]:
        one = waiting.one
        self._live[trial_id], self._numbers[trial_id] = waiting.trial, one.number
        self._reported[trial_id] = max(self._reported.pop(waiting.key, 0), max(one.history, default=0))
        self.going_on[trial_id] = one
        away = self._away_from(one.name)
        rung = self._at(trial_id, one.rung)
        task = task_of(
            one.plan,
            one.seed,
            one.repeats,
            resumes=waiting.key,
            room=waiting.room,
            away=away,
            rung=rung,
            spent=one.rungs[-1].seconds if one.rungs else 0.0,
        )
        return {**task, "state": waiting.state}

    # --- Tune tells ---

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Hand an intermediate value to Optuna."""
        self._last[trial_id] = result
        with self._refusals.noted():
            self._report(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand the last value to Optuna and tell it how the trial ended."""
        if trial_id not in self._live or error:  # what becomes of a trial without a worker is the recorder's to say
            return
        metrics, reason = self._spec.search.metric, self._interruptions.reason(trial_id)
        if ends_rung(result, metrics):  # the recorder writes that down, and has it wait
            return
        with self._refusals.noted():  # Tune would take it for the loss of a worker
            if result is not None:
                self._report(trial_id, result)
            self._tell(trial_id, outcome_of(result, metrics=metrics, interruption=reason), result or {}, metrics)

    def goes_on(self, trial_id: str, one: PastTrial, state: bytes | None, *, room: bool) -> None:
        """Give a trial that has lost its worker to the next one that is free; with `room`, to one with all of a device.

        It goes on from `state`, which is that after the epochs of `one`.
        """
        self._last.pop(trial_id, None)
        self._rungs.pop(trial_id, None)
        self._again.append(self._waiting(one, self._live.pop(trial_id), trial_id, state, room=room))

    def pauses(self, trial_id: str, one: PastTrial, *, room: bool) -> None:
        """Let a trial wait at the rung at which it has ended its training, and tell Optuna what it came to.

        One that needed all of a device, `room`, gets it again.
        """
        self._last.pop(trial_id, None)
        self._rungs.pop(trial_id, None)
        trial = self._live.pop(trial_id)
        self._paused[one.name] = Waiting(one, trial, trial_id, room=room)
        metrics = one.rungs[-1].metrics
        if self._ladder:
            self._ladder.waits(one.name, one.rung, worth(metrics, self._spec.search.metric[0]))
            self._say_rung(one.rung)
        with self._refusals.noted():
            self._tell_rung(trial, one.rung, metrics)

    def _say_rung(self, number: int) -> None:
        """Say how many trials have come to a rung and were promoted."""
        assert self._ladder is not None
        reached, kept, value = self._ladder.told(number)
        sign = 1 if higher_is_better(self._spec.search.metric[0]) else -1
        budget = self._ladder.rungs[number].budget
        epoch = int(budget) if budget.is_integer() else budget
        with self._refusals.noted():
            self._emit(RungDecided(bracket=0, epoch=epoch, reached=reached, kept=kept, cutoff=sign * value))

    def _tell_rung(self, trial: Trial, rung: int, metrics: Mapping[str, float]) -> None:
        """Tell Optuna what a training at a rung came to, under the rung's number: like is ranked with like."""
        trial.report(float(metrics[self._spec.search.metric[0]]), rung)

    def _tell_full(self, trial: Trial, metrics: Mapping[str, float]) -> None:
        """Tell Optuna so of a training in full, where trials are trained at rungs."""
        if self._ladder:
            self._tell_rung(trial, self._ladder.rungs[-1].number, metrics)

    def _waiting(self, one: PastTrial, trial: Trial, key: str, state: bytes | None, *, room: bool = False) -> Waiting:
        if self._spec.search.scheduler == "pbt":  # no other scheduler changes plans
            one = one.resumed_from(state, self._begun[one.number])
        return Waiting(one, trial, key, None if state is None else self._put(state), room)

    def fails(self, trial_id: str, loss: Loss) -> None:
        """Tell Optuna that a trial has lost its worker for good."""
        outcome = outcome_of(None, metrics=(), lost=loss)
        self._tell(trial_id, outcome, {}, self._spec.search.metric)

    def _report(self, trial_id: str, result: Mapping[str, Any]) -> None:
        trial, metrics = self._live.get(trial_id), list(self._spec.search.metric)
        if trial is None or len(metrics) > 1 or result.get("cause") or self._ladder:
            return  # Optuna takes no intermediate values where there are several objectives
        epoch, value = int(result["epoch"]), result.get(metrics[0])
        if epoch > self._reported.get(trial_id, 0) and isinstance(value, (int, float)):
            trial.report(float(value), epoch)
            self._reported[trial_id] = epoch

    def _tell(self, trial_id: str, outcome: Outcome, result: Mapping[str, Any], metrics: Sequence[str]) -> None:
        self._last.pop(trial_id, None)
        self._rungs.pop(trial_id, None)
        trial = self._live.pop(trial_id)
        if outcome.state == "complete":
            self._tell_full(trial, result)
        if outcome.state == "failed" and self._ladder:
            self._ladder.fails(trial_name(self._numbers[trial_id]))
        self._told(trial, outcome, result, metrics)

    def _told(self, trial: Trial, outcome: Outcome, result: Mapping[str, Any], metrics: Sequence[str]) -> None:
        values = [float(result[name]) for name in metrics] if outcome.state == "complete" else None
        if outcome.state == "failed":
            trial.set_user_attr("cause", outcome.cause)
            trial.set_user_attr("message", outcome.message)
        if outcome.state == "interrupted":
            trial.set_user_attr("interrupted", outcome.message)
        infeasible = cause_named(outcome.cause).infeasible
        if infeasible:
            trial.set_constraint(outcome.cause, 1.0)  # more than 0: violated
        self._study.tell(trial, values=values, state=TrialState.PRUNED if infeasible else _STATES[outcome.state])

    def close(self) -> None:
        """Tell Optuna of the trials of which nothing more will be heard: none stays RUNNING for ever."""
        for trial_id in list(self._live):
            self._interruptions.breaks_off(trial_id)
            self.on_trial_complete(trial_id, self._last.get(trial_id))
        for waiting in self._again:
            self._told(waiting.trial, Outcome("interrupted", message=BROKEN_OFF), {}, self._spec.search.metric)
        self._again = []
        for waiting in self._paused.values():
            self._told(waiting.trial, Outcome("pruned"), {}, self._spec.search.metric)
        self._paused = {}

    # --- what Searcher asks of its children; the study's own file holds the state ---

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study and the events are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: a resumed run replays its events."""

    def __del__(self) -> None:
        """Leave the storage to the driver."""
