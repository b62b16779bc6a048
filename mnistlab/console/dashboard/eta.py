"""When a run will be over: a simulation of what is still queued, on the slots there are.

Trials take very different times, and a scheduler ends most of them early, so no average is shown as if it were
certain: the queue is played through many times with durations drawn from those of the trials that have ended, and the
estimate is the range from the middle one of these ends to the one that nine of ten stay below.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mnistlab.console.state import Replicate, RunningTrial, ViewState
from mnistlab.util.text import counted

STEADY = 5.0  # seconds for which a view keeps an estimate: it costs more than a frame, and jumping it is no help
LEAST = 3  # durations that must be known before anything is said: of ended trials, and of running ones by their pace
DRAWS = 60
QUEUE = 200  # trials that are played one by one; of a longer queue the first ones are taken together


@dataclass(frozen=True)
class Estimate:
    """When the run will be over, in seconds of the run: the median and the 90th percentile of the simulated ends."""

    median: float
    late: float
    basis: str  # what it rests on, in words


def estimate(state: ViewState, now: float) -> Estimate | None:
    """Return when the run will be over, or None while too little is known or where it does not matter any more.

    `now` is in seconds of the run. The same state and time always give the same answer.
    """
    if state.start is None or state.phase not in {"search", "confirmation"} or not state.durations:
        return None
    if not state.driven:
        return None
    if len(state.durations) + sum(trial.epoch > 0 for trial in state.running.values()) < LEAST:
        return None
    draw = random.Random(state.finished)
    ends = sorted(_confirmed(state, now, draw, _searched(state, now, draw)) for _ in range(DRAWS))
    basis = f"from {counted(len(state.durations) + state.replicated, 'ended training')}"
    return Estimate(now + ends[len(ends) // 2], now + ends[len(ends) * 9 // 10], basis)


class SteadyEstimate:
    """The estimate of a live view, made anew when a training has ended or the phase changes, else now and then."""

    def __init__(self) -> None:
        """Begin without one."""
        self._made, self._seen = -STEADY, (0, "starting")
        self._kept: Estimate | None = None

    def at(self, state: ViewState, now: float) -> Estimate | None:
        """Return the estimate for `now` (seconds of the run)."""
        seen = state.finished + state.replicated, state.phase
        if seen != self._seen or now - self._made >= STEADY:
            self._made, self._seen, self._kept = now, seen, estimate(state, now)
        return self._kept


def _searched(state: ViewState, now: float, draw: random.Random) -> list[float]:
    """Return when each slot would be free of trials, in seconds from now."""
    assert state.start is not None
    slots = max(1, state.start.parallel)
    if state.phase != "search":
        return [0.0] * slots
    free = [_rest(trial, _known(state, now, trial.budget), now, draw) for trial in state.running.values()]
    free = (free + [0.0] * slots)[: max(slots, len(free))]
    together = 0.0
    for budget, count in _to_come(state):
        known, single = _known(state, now, budget), min(count, QUEUE)
        # Of a very long queue the mean is certain enough: its first part only moves all slots on together.
        together += (count - single) * sum(known) / len(known) / slots
        _play([draw.choice(known) for _ in range(single)], free)
    ends = [together + end for end in free]
    budget = state.start.time_budget
    return [min(end, max(0.0, budget - (now - state.began))) for end in ends] if budget else ends


def _to_come(state: ViewState) -> Iterator[tuple[float | None, int]]:
    """Yield how many trainings of which budget are still to come: of new trials, and of those that will be promoted."""
    assert state.start is not None
    rungs = state.start.rungs
    yield rungs[0] if rungs else None, state.queued
    for below, budget, count in zip(rungs, rungs[1:], state.start.trainings[1:], strict=False):
        decided = state.rungs.get((0, below))
        yield budget, max(0, count - (decided.kept if decided else 0))


def _known(state: ViewState, now: float, budget: float | None = None) -> list[float]:
    """Return durations to draw from: of the trials that have ended, and of those that have run longer than most.

    The first ones to end are the quick ones; without those that still run a young search would seem to end soon. Of
    another budget they are taken in proportion, as long as nothing of this one is known.
    """
    alike = [one.seconds for one in state.durations if one.budget == budget]
    others = [one.seconds * (budget / one.budget if budget and one.budget else 1.0) for one in state.durations]
    ended = alike or others
    middle = sorted(ended)[len(ended) // 2]
    running = (trial for trial in state.running.values() if trial.budget == budget)
    return [*ended, *(_in_all(trial, now) for trial in running if now - trial.started > middle)]


def _in_all(trial: RunningTrial, now: float) -> float:
    """Return how long a running trial would take in all if it went on to its last epoch."""
    left = _left(trial, now)
    return max(0.0, now - trial.started) + (left or 0.0)


def _left(one: RunningTrial | Replicate, now: float) -> float | None:
    """Return how long a training would go on at its own pace to its last epoch, or None before its first has ended."""
    if not (one.epoch and one.epochs):
        return None
    pace = (one.trained or one.reported - one.started) / one.epoch
    return max(0.0, (one.epochs - one.epoch) * pace - (now - one.reported))


def _rest(trial: RunningTrial, known: Sequence[float], now: float, draw: random.Random) -> float:
    """Return how long a running trial will go on: as one of those that took longer than it has, or at its own pace."""
    elapsed = max(0.0, now - trial.started)
    longer = [seconds - elapsed for seconds in known if seconds > elapsed]
    own = _left(trial, now)
    if own is not None:
        return min(own, draw.choice(longer)) if longer else own
    return draw.choice(longer) if longer else max(known) / 2


def _confirmed(state: ViewState, now: float, draw: random.Random, free: list[float]) -> float:
    """Return when the confirmation would be over that begins once all `free` slots are."""
    assert state.start is not None
    at_once = state.start.parallel_replicates or state.start.parallel
    if state.phase == "confirmation":
        slots, left = _replicates(state, now)
        slots = (slots + [0.0] * at_once)[: max(at_once, len(slots))]
    else:
        expected = state.confirmable
        # Its workers are new ones, and start as slowly as those of the search did.
        slots = [max(free) + state.warm_up * bool(expected)] * max(at_once, len(free))
        left = _winners(state, now, draw, expected) * state.start.confirm_seeds
    _play(left, slots)
    return max(slots)


def _winners(state: ViewState, now: float, draw: random.Random, count: int) -> list[float]:
    """Return how long each of the plans that will be confirmed takes to train.

    The further the search is, the likelier are the leaders of now; the others are rarely quick ones, so a plan's
    chance to win grows with its duration.
    """
    full = [duration.seconds for duration in state.durations if duration.full] or _known(state, now, _full(state))
    leaders = [scored.seconds for scored in state.leaders[:count]]
    others = draw.choices(full, full, k=count)
    settled = state.finished / max(1, state.total)
    return [
        leaders[place] if place < len(leaders) and draw.random() < settled else other
        for place, other in enumerate(others)
    ]


def _full(state: ViewState) -> float | None:
    """Return the full budget, where trials are trained anew at each rung."""
    return state.start.rungs[-1] if state.start and state.start.rungs else None


def _replicates(state: ViewState, now: float) -> tuple[list[float], list[float]]:
    """Return how long each running training of the confirmation will go on, and how long each one left will take."""
    before = {scored.trial: scored.seconds for scored in state.leaders}
    usual = sum(before.values()) / max(1, len(before))
    rest: list[float] = []
    left: list[float] = []
    for trial in state.confirming:
        ones = [one for (name, _), one in state.replicates.items() if name == trial]
        done = [one.trained for one in ones if one.state == "done" and one.trained]
        seconds = sum(done) / len(done) if done else before.get(trial, usual)
        rest += [_rest_of_replicate(one, seconds, state, now) for one in ones if one.state == "running"]
        left += [seconds] * (state.seeds - len(ones)) * (trial not in state.dropped)
    return rest, left


def _rest_of_replicate(one: Replicate, seconds: float, state: ViewState, now: float) -> float:
    own = _left(one, now)
    if own is not None:
        return own
    starting = 0.0 if state.replicated else state.warm_up
    return max(0.0, seconds + starting - (now - one.started))


def _play(durations: Sequence[float], free: list[float]) -> None:
    """Give each task to the slot that is free first; `free` holds when each slot is, and is changed."""
    heapq.heapify(free)
    for seconds in durations:
        heapq.heapreplace(free, free[0] + seconds)
