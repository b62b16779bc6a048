"""The schedulers by name: who stops unpromising trials early."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.schedulers.pbt import (
    _PBTTrialState,  # pyright: ignore[reportPrivateUsage] - what `on_trial_add` keeps, and Ray has no other name for it
)

from mnistlab import events
from mnistlab.api import Choice, Int, Scalar
from mnistlab.events import Emit
from mnistlab.experiment.points import closest, place, values
from mnistlab.experiment.space import Parameter, Space
from mnistlab.experiment.spec import ExperimentSpec
from mnistlab.store.results import higher_is_better
from mnistlab.training.loop import optimizer_at
from mnistlab.tuning.history import NOTHING, Past
from mnistlab.tuning.tune_compat import Unsaved

_TIME = "epoch"
RESAMPLE = 0.25  # share of the changes that draw anew instead of moving nearby (Jaderberg 2017, section 4)
FACTORS = (0.8, 1.25)
FACTOR = 3  # of asha and hyperband: one trial in so many goes on, unless the experiment says otherwise


def scheduler(
    spec: ExperimentSpec,
    space: Space,
    stopping: Callable[[], bool],
    emit: Emit = lambda _: None,
    past: Past = NOTHING,
) -> TrialScheduler:
    """Return the scheduler of `spec.search`; its full budget is `space.epochs`. Once `stopping()`, nothing goes on.

    What is decided at the rungs of successive halving is emitted. It goes on from the `past` of the run.
    """
    made = _new(spec, space, stopping, emit)
    if isinstance(made, (Halving, Median, Population)):
        made.take_up(past)
    return made


def _new(spec: ExperimentSpec, space: Space, stopping: Callable[[], bool], emit: Emit) -> TrialScheduler:
    search, metric = spec.search, spec.search.metric[0]
    goal: dict[str, Any] = {"metric": metric, "mode": "max" if higher_is_better(metric) else "min", "time_attr": _TIME}
    grace = search.grace_epochs or _past_warm_up(space.epochs)
    if search.scheduler in {"none", "halving"}:  # at rungs nothing is stopped: who goes up is the bridge's to say
        return FIFOScheduler()
    if search.scheduler == "median":
        return Median(grace_period=grace, min_samples_required=3, **goal)
    if search.scheduler == "pbt":
        every = max(1, space.epochs // 4)
        return Population(space, spec.seed, stopping, perturbation_interval=every, **goal)
    # Asynchronous successive halving (Li 2020). Hyperband is the same over several brackets, each with a later first
    # rung: Ray's synchronous HyperBand waits for whole brackets, which starves the workers of a small machine.
    longest = max(space.epochs, grace)
    factor = search.reduction_factor or FACTOR
    brackets = 1 if search.scheduler == "asha" else _brackets(longest / grace, factor)
    return Halving(
        emit,
        max_t=longest,
        grace_period=grace,
        reduction_factor=factor,
        brackets=brackets,
        **goal,
    )


def _past_warm_up(epochs: int) -> int:
    """Return an epoch by which the learning rate falls: no built-in schedule rises for more than half of a training.

    Before that, the order of trials says little of the end (docs/decisions/0034).
    """
    return max(1, math.ceil(epochs / 2))


def _brackets(span: float, factor: int) -> int:
    """Return Hyperband's number of brackets, for so many times the grace: floor(log_factor(span)) + 1."""
    count = 1
    while factor**count <= span:
        count += 1
    return count


@dataclass(frozen=True, eq=False)
class _StandIn:
    """What stands in a scheduler's books for a trial of an earlier driver."""

    trial_id: str


class _NoController:
    """What a scheduler may ask of Tune while it is told of the past: there was nobody waiting."""

    def get_live_trials(self) -> list[Any]:
        """Return none."""
        return []


def resumed(trial: Any) -> str:
    """Return under which name a trial is known that goes on, or "" where it is new.

    That is Tune's name for it while it had the worker that it has lost, or ours where an earlier driver had it.
    """
    return "" if isinstance(trial, _StandIn) else json.loads(trial.config["task"]).get("resumes", "")


def _replay(scheduler: TrialScheduler, past: Past) -> None:
    """Tell a fresh scheduler what Tune told those before it, in the same order."""
    stand_ins: dict[str, Any] = {}
    nobody: Any = _NoController()
    for step in past.steps:
        one = past.trials[step.trial]
        trial = stand_ins.setdefault(one.name, _StandIn(one.name))
        last = max(one.history, default=0)
        result = {_TIME: step.epoch or last, **one.history.get(step.epoch or last, {})}
        if step.kind == "started":
            scheduler.on_trial_add(nobody, trial)
        elif step.kind == "ended" and one.state != "failed":
            scheduler.on_trial_complete(nobody, trial, result)
        elif step.kind == "epoch" and not (one.state == "complete" and step.epoch == last):  # that one ends it
            scheduler.on_trial_result(nobody, trial, result)


class Halving(Unsaved, AsyncHyperBandScheduler):
    """Asynchronous successive halving that tells what it decides at each rung."""

    def __init__(self, emit: Emit, **options: Any) -> None:
        """Emit a RungDecided for every trial that comes to a rung."""
        super().__init__(**options)
        self._emit = emit
        self._stopped: Counter[tuple[int, float]] = Counter()
        self._told: set[tuple[int, float, int]] = set()  # by earlier drivers: bracket, epoch, trials that came there

    def take_up(self, past: Past) -> None:
        """Fill brackets and rungs as earlier drivers of the run have; what they have told is not told again."""
        self._told = set(past.rungs)
        _replay(self, past)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Give a trial its bracket: a new one by lot, one that goes on the one it had, with what is recorded of it."""
        name = resumed(trial)
        if name not in self._trial_info:
            super().on_trial_add(tune_controller, trial)
            return
        bracket: Any = self._trial_info.pop(name)
        self._trial_info[trial.trial_id] = bracket
        for _, recorded in bracket._rungs:
            if name in recorded:
                recorded[trial.trial_id] = recorded.pop(name)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide as Ray does. A rung has decided when it has recorded one trial more than before."""
        number, bracket = self._bracket_of(trial)
        before = [len(recorded) for _, recorded in bracket._rungs]
        decision = super().on_trial_result(tune_controller, trial, result)
        for (epoch, recorded), count in zip(bracket._rungs, before, strict=True):
            if len(recorded) > count:
                self._stopped[number, epoch] += decision == TrialScheduler.STOP
                self._tell(number, epoch, len(recorded), float(bracket.cutoff(recorded)))
        return decision

    def _bracket_of(self, trial: Any) -> tuple[int, Any]:
        bracket = self._trial_info[trial.trial_id]
        return self._brackets.index(bracket), bracket

    def _tell(self, bracket: int, epoch: float, reached: int, cutoff: float) -> None:
        kept, value = reached - self._stopped[bracket, epoch], cutoff * (self._metric_op or 1)
        rung = events.RungDecided(bracket=bracket, epoch=round(epoch), reached=reached, kept=kept, cutoff=value)
        if (rung.bracket, rung.epoch, rung.reached) not in self._told:
            self._emit(rung)


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
        _replay(self, past)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Let a trial that goes on take over what is known of it."""
        super().on_trial_add(tune_controller, trial)
        before = self._known.pop(resumed(trial), None)
        if before in self._results:
            self._results[trial] = self._results.pop(before)
        self._known[trial.trial_id] = trial

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide as Ray does; an epoch that is trained again, after its worker was lost, has been judged."""
        if any(report[_TIME] == result[_TIME] for report in self._results.get(trial, ())):
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, self._looked_at(result))

    def _looked_at(self, result: dict[str, Any]) -> dict[str, Any]:
        return {key: result[key] for key in (_TIME, self._metric) if key in result}

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Take the last report of a trial into account, unless it says why the trial failed."""
        if "cause" not in result:
            super().on_trial_complete(tune_controller, trial, self._looked_at(result))


class Population(Unsaved, PopulationBasedTraining):
    """Population-based training (Jaderberg 2017) whose population our own Searcher proposes.

    Ray refuses to combine the two because a searcher would be told values of settings that have changed meanwhile;
    here the search is random (`spec` sees to it), so nothing is learnt from them. A trial that does badly takes up the
    weights and the plan of one that does well and goes on with changed optimizer settings.
    """

    def __init__(self, space: Space, seed: int, stopping: Callable[[], bool], **options: Any) -> None:
        """Change the optimizer parameters of `space`, with draws set by `seed`."""
        self._stopping = stopping
        super().__init__(custom_explore_fn=self._explore, log_config=False, quantile_fraction=0.25, **options)
        self._parameters = {p.path: p for branch in space.optimizers for p in branch.parameters}
        self._draw = random.Random(seed)
        self._past: Past = NOTHING
        self._reports = 0
        self._last_report: dict[Any, int] = {}  # for each trial: how many reports of all trials there had been by then
        random.seed(seed)  # Ray draws the one to copy from the module's generator

    def take_up(self, past: Past) -> None:
        """Know when the trials of earlier drivers that go on were last compared, and how they did."""
        self._past = past

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002 - Tune's signature
        """Take a trial into the population; one that has lost its worker takes its own place again."""
        for other in list(self._trial_state):
            if other.trial_id == resumed(trial):
                self._trial_state[trial] = self._trial_state.pop(other)
                self._last_report[trial] = self._last_report.pop(other, 0)
                return
        state = self._trial_state[trial] = _PBTTrialState(trial)
        before = self._past.trials.get(resumed(trial))
        if before is None:
            return
        last = max(before.history, default=0)
        compared = last - last % int(self._perturbation_interval)
        known = [epoch for epoch in before.history if epoch <= compared]  # with gaps, where it took up another's state
        if known:
            score = before.history[max(known)][str(self._metric)]
            state.last_score = score * (self._metric_op or 1)
            state.last_perturbation_time = state.last_train_time = compared

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide as Ray does, and remember who has reported last."""
        self._reports += 1
        self._last_report[trial] = self._reports
        return super().on_trial_result(tune_controller, trial, result)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return the waiting trial that has come least far, of several the one that has waited longest.

        By Ray's own choice, of several the first one, two that do badly train the same epoch for ever: each takes up
        the state of one that does well and waits, and so has come as far as that one. None once the search is to stop.
        """
        if self._stopping():
            return None
        waiting = [one for one in tune_controller.get_trials() if one.status in {Trial.PENDING, Trial.PAUSED}]
        return min(waiting, key=lambda one: (self._trained(one), self._last_report.get(one, 0)), default=None)

    def _trained(self, trial: Any) -> int:
        """Return at which epoch a trial was last compared."""
        return self._trial_state[trial].last_train_time

    def _explore(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the copied trial's task with changes to the optimizer settings that it has now, under `optimizer`.

        What says how the copied trial itself was resumed, and on what share of a device, is left out.
        """
        task = json.loads(config["task"])
        part = task.get("optimizer") or optimizer_at(task["plan"], math.inf)
        changed = {key: self._change(part["name"], key, value) for key, value in part["config"].items()}
        copied = {key: value for key, value in task.items() if key not in {"resumes", "room"}}
        return {**config, "task": json.dumps({**copied, "optimizer": {**part, "config": changed}}), "state": None}

    def _change(self, optimizer: str, key: str, value: Scalar) -> Scalar:
        parameter = self._parameters.get(f"optimizer.{optimizer}.{key}")
        if parameter is None:
            return value
        if self._draw.random() < RESAMPLE:
            return _sample(parameter, self._draw)
        return _neighbour(parameter, value, self._draw)


def _sample(parameter: Parameter, draw: random.Random) -> Scalar:
    domain, finite = parameter.domain, values(parameter.domain)
    if finite is not None:
        return draw.choice(finite)
    assert not isinstance(domain, Choice)
    u = draw.random()
    drawn = domain.low * (domain.high / domain.low) ** u if domain.log else domain.low + (domain.high - domain.low) * u
    return closest(domain, drawn)


def _neighbour(parameter: Parameter, value: Scalar, draw: random.Random) -> Scalar:
    """Return a value beside `value`: the one before or after it, or the number times one of `FACTORS`.

    At an end of the domain it may be the same value. An option that the domain does not hold has no neighbours.
    """
    domain, finite = parameter.domain, values(parameter.domain)
    if finite is not None:
        here = place(domain, value)
        if here is None:
            return draw.choice(finite)
        return finite[min(max(here + draw.choice((-1, 1)), 0), len(finite) - 1)]
    assert not isinstance(domain, Choice)
    factor = draw.choice(FACTORS)
    moved = closest(domain, float(value) * factor)
    if isinstance(domain, Int) and moved == value:  # a small number, which was rounded back
        moved = closest(domain, moved + (1 if factor > 1 else -1))
    return moved
