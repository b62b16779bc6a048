"""What earlier drivers of a run have done, read off its events, so that another one can go on as they would have.

Sampler and scheduler are not restored from files of theirs: fresh ones are told everything again, in the order in which
it happened. A trial that has not ended goes on under its own name, from the state that was kept of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mnistlab import events as ev
from mnistlab.store.ends import STATES
from mnistlab.store.results import RungResult, State
from mnistlab.training.weights import unpack_entry


@dataclass(frozen=True, kw_only=True)
class PastTrial:
    """A trial that an earlier driver has started. `state` is None where it has to go on.

    `plan` and `seed` are those of its beginning, until `resumed_from`; `history` maps each epoch to its metrics.
    `attempts` counts its starts so far. Where trials are trained anew at each rung, `rung` and `history` are of its
    last training, `rungs` are those that ended, and `waits` says that it has not been promoted from the last of them.
    """

    name: str
    number: int
    seed: int
    plan: Mapping[str, Any]
    repeats: str = ""
    state: State | None = None
    attempts: int = 1
    history: Mapping[int, Mapping[str, float]] = field(default_factory=dict[int, Mapping[str, float]])
    cause: str = ""
    message: str = ""
    rung: int = 0
    rungs: tuple[RungResult, ...] = ()
    waits: bool = False

    def until(self, epoch: int) -> PastTrial:
        """Return the trial as it stood after so many epochs."""
        return replace(self, history={at: metrics for at, metrics in self.history.items() if at <= epoch})

    def resumed_from(self, state: bytes | None, first: tuple[Mapping[str, Any], int]) -> PastTrial:
        """Return a trial of a population with the plan and the seed of the packed state from which it resumes.

        It may have taken over another trial's plan and changed its settings since its beginning. Where no state was
        kept it begins again with its `first` plan and seed.
        """
        plan, seed = first if state is None else (unpack_entry(state, "plan"), unpack_entry(state, "seed"))
        return replace(self, plan=plan, seed=seed)


@dataclass(frozen=True)
class Step:
    """A thing that happened to a trial.

    It was started, has ended epoch `epoch`, has ended its training at `rung`, was promoted to `rung`, or has ended.
    """

    kind: Literal["started", "epoch", "paused", "promoted", "ended"]
    trial: str
    epoch: int = 0
    rung: int = 0


@dataclass(frozen=True)
class Past:
    """Every trial so far by its name, and what happened to them, in order; `seconds` is how long the run took.

    A number may be missing: that trial was proposed, and its driver died before a worker had begun it.
    """

    trials: Mapping[str, PastTrial] = field(default_factory=dict[str, PastTrial])
    steps: tuple[Step, ...] = ()
    seconds: float = 0.0
    drivers: int = 0  # how many have driven the run
    over: bool = False  # whether its end was written, and no driver has begun anything since
    rungs: frozenset[tuple[int, float, int]] = frozenset()  # what was said of rungs: bracket, epoch, trials there

    def going_on_from(self, epochs: Mapping[str, int]) -> Past:
        """Return the past in which each trial that has to go on stands at its checkpoint, else at its beginning."""
        trials = {
            name: one.until(epochs.get(name, 0)) if one.state is None and not one.waits else one
            for name, one in self.trials.items()
        }
        return replace(self, trials=trials, steps=tuple(_true(self.steps, trials)))

    @property
    def ended(self) -> tuple[str, ...]:
        """Return the trials that have ended, in that order."""
        return tuple(step.trial for step in self.steps if step.kind == "ended")

    @property
    def unended(self) -> tuple[PastTrial, ...]:
        """Return the trials that have to go on, in the order of their numbers."""
        cut = (one for one in self.trials.values() if one.state is None and not one.waits)
        return tuple(sorted(cut, key=lambda one: one.number))

    @property
    def waiting(self) -> tuple[PastTrial, ...]:
        """Return the trials that wait at a rung, in the order of their numbers, also where an end was told."""
        return tuple(sorted((one for one in self.trials.values() if one.waits), key=lambda one: one.number))


NOTHING = Past()

_TURNS = (ev.RunPreparing, ev.RunStarted, ev.RunResumed, ev.RunFinished)


def past_of(stream: Iterable[ev.Stamped], *, again: bool = False) -> Past:
    """Return the past that a run's events tell.

    What was interrupted goes on, and so does what was running when the driver died; with `again` also what has failed,
    from its beginning.
    """
    trials: dict[str, PastTrial] = {}
    steps: list[Step] = []
    rungs: set[tuple[int, float, int]] = set()
    seconds, drivers, over = 0.0, 0, False
    for stamped in stream:
        event, seconds = stamped.event, stamped.t
        drivers += isinstance(event, (ev.RunStarted, ev.RunResumed))
        over = isinstance(event, ev.RunFinished) if isinstance(event, _TURNS) else over
        if isinstance(event, ev.RungDecided):
            rungs.add((event.bracket, event.epoch, event.reached))
        elif isinstance(event, ev.TrialStarted):
            steps += [Step("started", event.trial)] if event.trial not in trials else _promotion(event)
            trials[event.trial] = _begun(event, trials.get(event.trial))
        elif isinstance(event, ev.TrialPaused) and event.trial in trials:
            steps.append(Step("paused", event.trial, rung=event.rung))
            trials[event.trial] = _paused(event, trials[event.trial])
        elif isinstance(event, ev.TrialEpoch) and event.trial in trials:
            one = trials[event.trial]
            steps += [] if event.epoch in one.history else [Step("epoch", event.trial, event.epoch)]
            trials[event.trial] = replace(one, history={**one.history, event.epoch: event.metrics})
        elif type(event) in STATES and getattr(event, "trial", "") in trials:
            _end(event, trials, steps)
    if again:
        trials = {name: _as_new(one) if one.state == "failed" else one for name, one in trials.items()}
    trials = {name: replace(one, state=None) if one.state == "interrupted" else one for name, one in trials.items()}
    steps = list(_as_proposed(steps, trials))
    return Past(trials, tuple(_true(steps, trials)), seconds, drivers, over, frozenset(rungs))


def _as_proposed(steps: Sequence[Step], trials: Mapping[str, PastTrial]) -> Iterable[Step]:
    """Yield the steps with each start where its trial was proposed: in the order of numbers, whoever came up first."""
    waiting = sorted(trials.values(), key=lambda one: one.number)
    for step in steps:
        if step.kind == "started":
            while waiting and waiting[0].number <= trials[step.trial].number:
                yield Step("started", waiting.pop(0).name)
        else:
            yield step


def _begun(event: ev.TrialStarted, before: PastTrial | None) -> PastTrial:
    about: dict[str, Any] = {"name": event.trial, "number": event.number, "seed": event.seed, "repeats": event.repeats}
    if before is None:
        return PastTrial(**about, plan=event.plan)
    again = replace(before.until(event.epoch), state=None, attempts=event.attempt, cause="", message="")
    return replace(again, rung=event.rung, waits=False)


def _promotion(event: ev.TrialStarted) -> list[Step]:
    """Return the step of a trial that has begun before: it was promoted, or has lost its worker at its rung."""
    return [Step("promoted", event.trial, rung=event.rung)] if event.waited else []


def _paused(event: ev.TrialPaused, one: PastTrial) -> PastTrial:
    ended = RungResult(rung=event.rung, budget=event.budget, metrics=event.metrics, seconds=event.seconds)
    return replace(one, rungs=(*one.rungs, ended), waits=True)


def _end(event: Any, trials: dict[str, PastTrial], steps: list[Step]) -> None:
    end = {"cause": event.cause, "message": event.message} if isinstance(event, ev.TrialFailed) else {}
    trials[event.trial] = replace(trials[event.trial], state=STATES[type(event)], **end)
    steps.append(Step("ended", event.trial))


def _as_new(one: PastTrial) -> PastTrial:
    return replace(one.until(0), state=None, cause="", message="", waits=False)


def _true(steps: Sequence[Step], trials: Mapping[str, PastTrial]) -> Iterable[Step]:
    """Yield the steps that still hold: the last end of what has ended, and each epoch that is still counted, once."""
    last = {step.trial: place for place, step in enumerate(steps) if step.kind == "ended"}
    seen: set[Step] = set()
    for place, step in enumerate(steps):
        one = trials[step.trial]
        holds = (
            step.kind in {"started", "paused", "promoted"}
            or (step.kind == "epoch" and step.epoch in one.history)
            or (step.kind == "ended" and one.state is not None and last[step.trial] == place)
        )
        if holds and step not in seen:
            seen.add(step)
            yield step
