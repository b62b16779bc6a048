"""Between Ray Tune and Optuna: our own Searcher over `study.ask` and `study.tell`.

Ray's stock OptunaSearch tells a trial that the scheduler stopped as COMPLETE with its early score, drops the last
value, and leaves a NaN trial RUNNING for ever. Here `proposals` says which plan comes next, `telling` what Optuna is
told of it, and this module which trial a worker gets: a new one, or one that waits to go on or to be promoted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.trial import Trial
from ray.tune.search import Searcher

from mnistlab.events import Emit, RungDecided
from mnistlab.experiment.earlier import Earlier
from mnistlab.experiment.space import Space
from mnistlab.experiment.spec import ExperimentSpec
from mnistlab.store.layout import trial_name
from mnistlab.store.metric import Metric
from mnistlab.store.schedulers import traits_of
from mnistlab.tuning.history import Past, PastTrial
from mnistlab.tuning.outcome import BROKEN_OFF, Interruptions, Outcome, ends_rung, outcome_of
from mnistlab.tuning.proposals import Proposal, Proposals
from mnistlab.tuning.retries import Loss
from mnistlab.tuning.schedulers.halving import Ladder, Rung
from mnistlab.tuning.telling import Teller
from mnistlab.tuning.tune_compat import Refusals, Unsaved
from mnistlab.tuning.work import Waiting, task_of
from mnistlab.util.seeds import trial_seed


@dataclass(frozen=True, kw_only=True)
class SearcherOptions:
    """What limits the trials that are handed out, and whom a searcher asks and tells in its driver."""

    interruptions: Interruptions
    parallel: int | None  # trials that are live at once, at most
    stopping: Callable[[], bool] = lambda: False  # whether no trial is handed out any more
    shortage: Callable[[], str] = lambda: ""  # of what there is too little for another trial
    away_from: Callable[[str], list[str]] = lambda _: []  # ids of the nodes that are not to get the trial of that name
    put: Callable[[bytes], object] = lambda state: state  # takes a packed state, returns what a worker gets it by
    say: Callable[[str], None] = lambda _: None  # what people should know of the proposals
    emit: Emit = lambda _: None  # what is decided at rungs
    refusals: Refusals = field(default_factory=Refusals)  # notes what the study's file refuses
    ladder: Ladder | None = None  # says who is promoted, where trials are trained at its rungs
    earlier: Sequence[Earlier] = ()  # runs whose plans come right after all defaults


class Bridge(Unsaved, Searcher):
    """Answers Tune's `suggest` with plans that Optuna proposes, and tells Optuna how each of them ended.

    Life of a trial: `suggest` asks, `on_trial_result` reports every epoch but the last, `on_trial_complete` reports
    the last and tells. Tune calls all of them in the driver, one after the other.
    """

    def __init__(self, study: optuna.Study, space: Space, spec: ExperimentSpec, options: SearcherOptions) -> None:
        """Propose points of `space`, and hand them out as `options` allow."""
        metric = Metric(spec.search.metric[0])
        super().__init__(metric=metric.name, mode=metric.mode)
        self._spec, self._options, self._ladder = spec, options, options.ladder
        self._proposals = Proposals(study, space, spec, options.earlier, options.say)
        self._teller = Teller(study, spec.search.metric, options.ladder.rungs if options.ladder else ())
        self.short = ""  # of what there was too little for another trial
        self._live: dict[str, Trial] = {}
        self._numbers: dict[str, int] = {}
        self._begun: dict[int, tuple[Mapping[str, Any], int]] = {}  # by number: first plan and seed
        self._last: dict[str, dict[str, Any]] = {}
        self._again: list[Waiting] = []
        self._unbegun: list[Proposal] = []  # made for an earlier driver, never begun
        self.going_on: dict[str, PastTrial] = {}  # those that go on and have been handed out, by Tune's name
        self._rungs: dict[str, int] = {}  # of the trials that are being trained
        self._paused: dict[str, Waiting] = {}  # by our name: those that wait at a rung

    # --- Tune asks ---

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's task, None while enough trials are live, FINISHED when there can be no more.

        Trials that go on come before new ones, and so do those that were proposed and never begun. `resumes` in a task
        names a trial that goes on.
        """
        if self._options.stopping():
            return Searcher.FINISHED
        if self._options.parallel is not None and len(self._live) >= self._options.parallel:
            return None
        with self._options.refusals.noted():
            task = None if self._is_over() or self._lacks() else self._next(trial_id)
        # While a trial is live the search is not over: it may lose its worker, and go on with another one.
        return task or (None if self._live else Searcher.FINISHED)

    def _is_over(self) -> bool:
        """Return whether every trial that was asked for has been handed out."""
        return not (self._again or self._unbegun or self._due() or self._proposals.left)

    def _lacks(self) -> bool:
        """Return whether there is a shortage."""
        self.short = self._options.shortage()
        return bool(self.short)

    def _next(self, trial_id: str) -> dict[str, Any] | None:
        if self._again:
            return self._go_on(trial_id, self._again.pop(0))
        if self._unbegun:
            return self._hand_out(trial_id, self._unbegun.pop(0))
        if due := self._due():
            return self._promote(trial_id, *due)
        if self._proposals.left and self._proposals.has_another():
            return self._hand_out(trial_id, self._proposals.new())
        due = self._due()  # now that there is no other plan
        return self._promote(trial_id, *due) if due else None

    def _due(self) -> tuple[str, Rung] | None:
        """Return the trial that is promoted next, and to which rung."""
        if self._ladder is None:
            return None
        live = [*self._rungs.values(), *(waiting.one.rung for waiting in self._again)]
        return self._ladder.next(more=bool(self._unbegun) or self._proposals.left, live=live)

    def _promote(self, trial_id: str, name: str, rung: Rung) -> dict[str, Any]:
        assert self._ladder is not None
        self._ladder.goes_up(name, rung.number)
        self._say_rung(self._ladder, rung.number - 1)
        waiting = self._paused.pop(name)
        return self._go_on(trial_id, replace(waiting, one=replace(waiting.one, rung=rung.number, history={})))

    def _hand_out(self, trial_id: str, proposal: Proposal) -> dict[str, Any]:
        number, plan = proposal.number, proposal.plan
        self._live[trial_id], self._numbers[trial_id] = proposal.trial, number
        first, seed = self._proposals.first(plan), trial_seed(self._spec.seed, number)
        self._begun[number] = plan, seed
        repeats, away = "" if first == number else trial_name(first), self._options.away_from(trial_name(number))
        return task_of(plan, seed, repeats, away=away, rung=self._at(trial_id, 0))

    def _go_on(self, trial_id: str, waiting: Waiting) -> dict[str, Any]:
        one = waiting.one
        self._live[trial_id], self._numbers[trial_id] = waiting.trial, one.number
        self.going_on[trial_id] = one
        task = task_of(
            one.plan,
            one.seed,
            one.repeats,
            resumes=waiting.key,
            room=waiting.room,
            away=self._options.away_from(one.name),
            rung=self._at(trial_id, one.rung),
            spent=one.rungs[-1].seconds if one.rungs else 0.0,
        )
        return {**task, "state": waiting.state}

    def _at(self, trial_id: str, rung: int) -> Rung | None:
        """Note at which rung a trial is trained from now on; return it, or None where there are no rungs."""
        if self._ladder is None:
            return None
        self._rungs[trial_id] = rung
        return self._ladder.rungs[rung]

    def number(self, trial_id: str) -> int:
        """Return our number (from 0) of the trial that Tune calls `trial_id`."""
        return self._numbers[trial_id]

    # --- what earlier drivers did ---

    def take_up(self, past: Past, states: Mapping[str, bytes]) -> None:
        """Tell a fresh study everything that has happened, so that its sampler goes on as it would have.

        `states` holds the packed states from which trials go on, by the trials' names.
        """
        self._proposals.know(past)
        live: dict[str, Trial] = {}
        if self._ladder:
            self._ladder.take_up(past, self._spec.search.metric[0])
        for step in past.steps:
            one = past.trials[step.trial]
            if step.kind == "started":
                self._unbegun += self._proposals.unbegun(one.number)
                live[one.name], self._begun[one.number] = self._proposals.again(one), (one.plan, one.seed)
            elif step.kind == "paused":
                self._teller.rung(live[one.name], step.rung, one.rungs[step.rung].metrics)
            elif step.kind == "epoch":
                if step.epoch < max(one.history) or one.state is None:  # the last is told with the end, as it was
                    self._teller.epoch(live[one.name], step.epoch, one.history[step.epoch])
            elif step.kind == "ended" and not one.waits:
                self._tell_past(live.pop(one.name), one)
        self._paused = {one.name: Waiting(one, live[one.name], one.name) for one in past.waiting}
        going_on = [one for one in past.unended if one.name in live]
        self._again = [self._waiting(one, live[one.name], one.name, states.get(one.name)) for one in going_on]

    def _tell_past(self, trial: Trial, one: PastTrial) -> None:
        last = max(one.history, default=0)
        result = one.history.get(last, {})
        if last:
            self._teller.epoch(trial, last, result)
        self._teller.end(trial, Outcome(one.state or "failed", one.cause, one.message), result)

    # --- Tune tells ---

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Hand an intermediate value to Optuna."""
        self._last[trial_id] = result
        if trial_id in self._live:
            with self._options.refusals.noted():
                self._teller.report(self._live[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand the last value to Optuna and tell it how the trial ended."""
        if trial_id not in self._live or error:  # what becomes of a trial without a worker is the recorder's to say
            return
        metrics, reason = self._spec.search.metric, self._options.interruptions.reason(trial_id)
        if ends_rung(result, metrics):  # the recorder writes that down, and has it wait
            return
        with self._options.refusals.noted():  # Tune would take it for the loss of a worker
            if result is not None:
                self._teller.report(self._live[trial_id], result)
            self._end(trial_id, outcome_of(result, metrics=metrics, interruption=reason), result or {})

    # --- the recorder tells ---

    def goes_on(self, trial_id: str, one: PastTrial, state: bytes | None, *, room: bool) -> None:
        """Give a trial that has lost its worker to the next one that is free; with `room`, to one with all of a device.

        It goes on from `state`, which is that after the epochs of `one`.
        """
        self._again.append(self._waiting(one, self._leave(trial_id), trial_id, state, room=room))

    def pauses(self, trial_id: str, one: PastTrial, *, room: bool) -> None:
        """Let a trial wait at the rung at which it has ended its training, and tell Optuna what it came to.

        One that needed all of a device, `room`, gets it again.
        """
        trial = self._leave(trial_id)
        self._paused[one.name] = Waiting(one, trial, trial_id, room=room)
        metrics, metric = one.rungs[-1].metrics, Metric(self._spec.search.metric[0])
        if self._ladder:
            self._ladder.waits(one.name, one.rung, metric.worth(metrics[metric.name]))
            self._say_rung(self._ladder, one.rung)
        with self._options.refusals.noted():
            self._teller.rung(trial, one.rung, metrics)

    def fails(self, trial_id: str, loss: Loss) -> None:
        """Tell Optuna that a trial has lost its worker for good."""
        self._end(trial_id, outcome_of(None, metrics=(), lost=loss), {})

    def _say_rung(self, ladder: Ladder, number: int) -> None:
        """Say how many trials have come to a rung and were promoted."""
        reached, kept, value = ladder.told(number)
        cutoff = Metric(self._spec.search.metric[0]).worth(value)
        budget = ladder.rungs[number].budget
        epoch = int(budget) if budget.is_integer() else budget
        with self._options.refusals.noted():
            self._options.emit(RungDecided(bracket=0, epoch=epoch, reached=reached, kept=kept, cutoff=cutoff))

    def _waiting(self, one: PastTrial, trial: Trial, key: str, state: bytes | None, *, room: bool = False) -> Waiting:
        if traits_of(self._spec.search.scheduler).copies_states:
            one = one.resumed_from(state, self._begun[one.number])
        return Waiting(one, trial, key, None if state is None else self._options.put(state), room)

    def _end(self, trial_id: str, outcome: Outcome, result: Mapping[str, Any]) -> None:
        trial = self._leave(trial_id)
        if outcome.state == "failed" and self._ladder:
            self._ladder.fails(trial_name(self._numbers[trial_id]))
        self._teller.end(trial, outcome, result)

    def _leave(self, trial_id: str) -> Trial:
        """Forget that a trial is being trained, and return it."""
        self._last.pop(trial_id, None)
        self._rungs.pop(trial_id, None)
        return self._live.pop(trial_id)

    def close(self) -> None:
        """Tell Optuna of the trials of which nothing more will be heard: none stays RUNNING for ever."""
        for trial_id in list(self._live):
            self._options.interruptions.breaks_off(trial_id)
            self.on_trial_complete(trial_id, self._last.get(trial_id))
        for waiting in self._again:
            self._teller.end(waiting.trial, Outcome("interrupted", message=BROKEN_OFF), {})
        self._again = []
        for waiting in self._paused.values():
            self._teller.end(waiting.trial, Outcome("pruned"), {})
        self._paused = {}

    # --- what Searcher asks of its children; the study's own file holds the state ---

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study and the events are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: a resumed run replays its events."""

    def __del__(self) -> None:
        """Leave the storage to the driver."""
