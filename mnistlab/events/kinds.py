"""What may happen in a run, a class each: what it is called in the stream, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

Metrics = Mapping[str, float]
Plan = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events; `type` is the word that stands in the stream."""

    type: ClassVar[str] = ""


@dataclass(frozen=True, kw_only=True)
class RunPreparing(Event):
    """Something that takes seconds is done before the search can begin; `step` says in words what."""

    type: ClassVar[str] = "run_preparing"
    run: str
    step: str


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """The search begins: what it will do, with what, where."""

    type: ClassVar[str] = "run_started"
    run: str
    experiment: str
    directory: str
    seed: int
    dataset: str
    fallback: str = ""  # why another dataset than the one asked for is used; "" when it is the one asked for
    trials: int
    epochs: int
    parallel: int
    devices: str  # in words, for example "2 CPUs" or "16 CPUs, 1 GPU (NVIDIA A100)"
    metric: str
    rule: str  # what "best" means in this run
    algorithm: str
    scheduler: str
    plugins: Mapping[str, str] = field(default_factory=dict[str, str])  # distribution -> version
    config: str = ""  # the beginning of the sha256 of the experiment with all its defaults
    confirm_top: int = 0
    confirm_seeds: int = 0
    confirm_baseline: bool = False  # whether the plan of all defaults is confirmed too, on top of the best ones
    time_budget: float = 0.0  # seconds; 0 where there is none
    parallel_replicates: int = 0  # trainings of the confirmation at once; 0: as many as trials (older streams)
    rungs: tuple[float, ...] = ()  # budgets (epochs) of a trial that is trained anew at each rung, the full one last
    trainings: tuple[int, ...] = ()  # how many trials are trained at each rung, or more; fewer if it is cut short
    executor: str = "ray"  # what carries it out: `ray`, or `local` in the driver's own process
    proposals: str = ""  # in words who proposes plans, and why; "" in older streams
    like: tuple[str, ...] = ()  # in words what was taken of each earlier run that it starts from


@dataclass(frozen=True, kw_only=True)
class RunResumed(Event):
    """A search goes on that another driver has left: what it still may do, with what.

    `counts` maps complete, pruned and failed to the numbers of trials that stay as they ended, and interrupted where
    only the confirmation goes on; those of `again` are started once more. `changes` maps the dotted keys of the
    experiment that hold other values from here on, and `amended` those of what its space has now and had not before:
    options that were added to a list, or the settings of an additional table. `record` is the number of the record that
    holds from here on, 1 for `run.json`.
    """

    type: ClassVar[str] = "run_resumed"
    command: str
    trials: int
    parallel: int
    devices: str
    counts: Mapping[str, int]
    again: tuple[str, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    amended: Mapping[str, Any] = field(default_factory=dict[str, Any])
    record: int = 1
    time_budget: float = 0.0  # seconds in all; 0 where there is none
    config: str = ""  # as of `RunStarted`, of the experiment that holds from here on
    plugins: Mapping[str, str] = field(default_factory=dict[str, str])  # distribution -> version
    parallel_replicates: int = 0  # as of `RunStarted`
    trainings: tuple[int, ...] = ()  # as of `RunStarted`, of the numbers that hold from here on
    executor: str = "ray"  # as of `RunStarted`
    proposals: str = ""  # as of `RunStarted`, with the numbers that hold from here on


@dataclass(frozen=True, kw_only=True)
class TrialStarted(Event):
    """A trial has been given to a worker."""

    type: ClassVar[str] = "trial_started"
    trial: str
    number: int
    seed: int
    label: str  # the plan in a few words, for people
    plan: Plan
    repeats: str = ""  # the trial that tried this plan first, where this one is another seed of it
    attempt: int = 1  # how many times it has been started, this one included
    epoch: int = 0  # from which epoch on it goes on
    rung: int = 0  # at which it is trained, where a trial is trained anew at each rung
    budget: float | None = None  # epochs of this training, of one below 1 that share of the images; None: the plan's
    waited: str = ""  # where it is promoted: `paused`, or `pruned` where an earlier driver has told that as its end


@dataclass(frozen=True, kw_only=True)
class TrialPaused(Event):
    """A trial has ended its training at a rung, and waits there: it is promoted once it is among the best.

    `seconds` is how long it has taken so far, at all rungs.
    """

    type: ClassVar[str] = "trial_paused"
    trial: str
    rung: int
    budget: float
    metrics: Metrics
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrialWaiting(Event):
    """A trial has lost its worker, and waits for another one to go on after `epoch`; `reason` says in words why."""

    type: ClassVar[str] = "trial_waiting"
    trial: str
    epoch: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class TrialEpoch(Event):
    """A trial has ended an epoch. `metrics` holds train_loss, val_loss, val_accuracy, images_per_second, seconds."""

    type: ClassVar[str] = "trial_epoch"
    trial: str
    epoch: int
    epochs: int
    metrics: Metrics


@dataclass(frozen=True, kw_only=True)
class TrialFinished(Event):
    """A trial has used its full budget; `metrics` are those of its last epoch."""

    type: ClassVar[str] = "trial_finished"
    trial: str
    epoch: int
    metrics: Metrics
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrialPruned(Event):
    """The scheduler has stopped a trial before its full budget."""

    type: ClassVar[str] = "trial_pruned"
    trial: str
    epoch: int
    metrics: Metrics
    seconds: float
    epochs: float | None = None  # of the last training that ended one: 0.5 for half of the images; None: as `epoch`


@dataclass(frozen=True, kw_only=True)
class TrialInterrupted(Event):
    """A trial was cut short by something that says nothing about its plan; its `metrics` are kept."""

    type: ClassVar[str] = "trial_interrupted"
    trial: str
    epoch: int
    metrics: Metrics
    seconds: float
    reason: str  # in words: "Ctrl-C", "SIGTERM", "SIGHUP", "time budget", "search given up" or "search broken off"
    epochs: float | None = None  # of the last training that ended one: 0.5 for half of the images; None: as `epoch`


@dataclass(frozen=True, kw_only=True)
class TrialFailed(Event):
    """A trial has come to nothing; `cause` is a word of the table in `mnistlab.training.causes`."""

    type: ClassVar[str] = "trial_failed"
    trial: str
    epoch: int
    cause: str
    message: str
    log: str  # path of the trial's log, relative to the run directory


@dataclass(frozen=True, kw_only=True)
class BestChanged(Event):
    """A finished trial is better than every one before."""

    type: ClassVar[str] = "best_changed"
    trial: str
    metric: str
    value: float
    label: str


@dataclass(frozen=True, kw_only=True)
class RungDecided(Event):
    """A scheduler of successive halving has judged one more trial at a rung.

    Of `reached` trials at `epoch`, `kept` went on; the next one must have at least (or, of a loss, at most) `cutoff`.
    Where trials are trained anew at each rung, `epoch` is the budget there, which may be below 1, and `kept` were
    promoted so far.
    """

    type: ClassVar[str] = "rung_decided"
    bracket: int
    epoch: float
    reached: int
    kept: int
    cutoff: float


@dataclass(frozen=True, kw_only=True)
class ConfirmationStarted(Event):
    """The best plans are going to be re-trained on fresh seeds.

    `baseline` is the one of these trials that has the plan of all defaults; "" where none was asked for.
    """

    type: ClassVar[str] = "confirmation_started"
    trials: tuple[str, ...]
    seeds: int
    baseline: str = ""


@dataclass(frozen=True, kw_only=True)
class ReplicateStarted(Event):
    """One (plan, seed) of the confirmation has been given to a worker."""

    type: ClassVar[str] = "replicate_started"
    trial: str
    replicate: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class ReplicateEpoch(Event):
    """A replicate has ended an epoch; `metrics` as for a trial."""

    type: ClassVar[str] = "replicate_epoch"
    trial: str
    replicate: int
    epoch: int
    epochs: int
    metrics: Metrics


@dataclass(frozen=True, kw_only=True)
class ReplicateFinished(Event):
    """One (plan, seed) of the confirmation has been trained; `metrics` are those of its last epoch."""

    type: ClassVar[str] = "replicate_finished"
    trial: str
    replicate: int
    seed: int
    metrics: Metrics
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ReplicateFailed(Event):
    """One (plan, seed) of the confirmation has come to nothing; `cause` as of a trial."""

    type: ClassVar[str] = "replicate_failed"
    trial: str
    replicate: int
    seed: int
    cause: str
    message: str
    log: str = ""  # path of its trial's log, relative to the run directory; "" in streams of before it was told


@dataclass(frozen=True, kw_only=True)
class PlanDropped(Event):
    """A plan gets no more seeds in the confirmation, because it can no longer win.

    `difference` is the metric of the `leader` minus that of this plan, the mean over the `seeds` that both have, and
    low to high its interval of that `confidence`; `seeds_only` says that it covers other seeds on the same images only.
    """

    type: ClassVar[str] = "plan_dropped"
    trial: str
    leader: str
    seeds: int
    difference: float
    low: float
    high: float
    confidence: float
    seeds_only: bool = False


@dataclass(frozen=True, kw_only=True)
class RefitStarted(Event):
    """The champion of the confirmation is trained once more, on training and validation images together."""

    type: ClassVar[str] = "refit_started"
    trial: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class RefitFinished(Event):
    """That training has ended; `metrics` are those of its last epoch, none of which says how good it is."""

    type: ClassVar[str] = "refit_finished"
    trial: str
    seed: int
    metrics: Metrics
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TestOpened(Event):
    """The sealed test set is opened, once, to evaluate `models` trained models of these trials."""

    type: ClassVar[str] = "test_opened"
    trials: tuple[str, ...]
    models: int
    count: int  # how many times the test set has been opened in this run, this one included
    runs_before: int | None = None  # other runs of this machine that have opened it before; None: not known


@dataclass(frozen=True, kw_only=True)
class EnsembleEvaluated(Event):
    """The models of the champion's seeds have been evaluated together, in the same opening of the test set.

    `members` counts them. `val_accuracy` is None where they have no validation images in common.
    """

    type: ClassVar[str] = "ensemble_evaluated"
    trial: str
    members: int
    test_accuracy: float
    images: int  # of the test set
    val_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Resources(Event):
    """What the driver's machine is doing, every few seconds; None and missing keys where it can't be known.

    `cpu` is the share of all cores in use (0 to 1); memory and disk are in bytes. Each of `gpus` maps index, name, use
    (0 to 1), memory_used and memory_total.
    """

    type: ClassVar[str] = "resources"
    cpu: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    disk_free: int | None = None  # where the run directory is
    gpus: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class StatusAsked(Event):
    """Someone has sent SIGUSR1: views that write lines say where the run stands."""

    type: ClassVar[str] = "status_asked"


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """Something that people should know and that stops nothing."""

    type: ClassVar[str] = "warning"
    message: str


@dataclass(frozen=True, kw_only=True)
class StopAsked(Event):
    """A signal has asked the run to stop: nothing new is started, and what runs may end its epoch.

    `at_once`: what runs is cut short, because a second signal insisted, the time was up, or no trial had begun.
    """

    type: ClassVar[str] = "stop_asked"
    signal: str  # SIGINT, SIGTERM or SIGHUP
    at_once: bool = False


@dataclass(frozen=True, kw_only=True)
class RunInterrupted(Event):
    """The run ends because it was asked to; `reason` is the name of the signal."""

    type: ClassVar[str] = "run_interrupted"
    reason: str


BROKEN_OFF = "broken off"


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """The run is over. `counts` maps complete, pruned, interrupted, failed to numbers of trials.

    `outcome` says how in words: `done`, `interrupted`, `no trial succeeded: ...`, `stopped: ...` or `broken off: ...`.
    """

    type: ClassVar[str] = "run_finished"
    outcome: str
    exit_code: int
    counts: Mapping[str, int]
    seconds: float


EVENT_TYPES: dict[str, type[Event]] = {
    kind.type: kind
    for kind in (
        RunPreparing,
        RunStarted,
        RunResumed,
        TrialStarted,
        TrialWaiting,
        TrialEpoch,
        TrialFinished,
        TrialPruned,
        TrialInterrupted,
        TrialPaused,
        TrialFailed,
        BestChanged,
        RungDecided,
        ConfirmationStarted,
        ReplicateStarted,
        ReplicateEpoch,
        ReplicateFinished,
        ReplicateFailed,
        PlanDropped,
        RefitStarted,
        RefitFinished,
        TestOpened,
        EnsembleEvaluated,
        Resources,
        StatusAsked,
        Warned,
        StopAsked,
        RunInterrupted,
        RunFinished,
    )
}
