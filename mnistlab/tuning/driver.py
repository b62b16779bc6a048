"""The driver of a search: assembles the Tuner and runs it within its trial, time and failure budgets."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import optuna
import ray
from ray import tune
from ray.exceptions import RayError

from mnistlab.checkpoints import newest_checkpoint
from mnistlab.events import Emit, Warned
from mnistlab.identity import canonical
from mnistlab.registry import Registry
from mnistlab.results import TrialResult, higher_is_better
from mnistlab.seeds import Stream, derive
from mnistlab.space import Space
from mnistlab.spec import ExperimentSpec
from mnistlab.store import RunWriter
from mnistlab.tuning.bridge import Bridge, open_study, time_is_up
from mnistlab.tuning.cluster import environment
from mnistlab.tuning.machine import Share
from mnistlab.tuning.outcome import Interruptions, common_failure
from mnistlab.tuning.past import NOTHING, Past
from mnistlab.tuning.recorder import Recorder
from mnistlab.tuning.schedulers import scheduler
from mnistlab.tuning.unsaved import Unsaved
from mnistlab.tuning.worker import PlanTrainable, Shared

Stopping = Callable[[], bool]
Task = TypeVar("Task")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Search:
    """What a search needs, all of it settled before it begins."""

    spec: ExperimentSpec
    space: Space
    shared: Shared
    share: Share
    registry: Registry
    store: RunWriter
    emit: Emit
    stopping: Stopping  # whether the user (or the machine) has asked to stop
    reason: Callable[[], str] = lambda: "stop request"  # who asked, in words: "Ctrl-C", "SIGTERM"
    tick: Callable[[], None] = lambda: None  # called several times a second, whatever the workers do


class _StopAtEpoch(Unsaved, tune.Stopper):
    """Ends each running trial at its next epoch once the time is up or a stop was asked for, then the paused ones.

    Tune asks the scheduler about a report only where this does not stop its trial, so that it is always clear whose
    decision an early end was.
    """

    def __init__(self, stopping: Stopping, interruptions: Interruptions, idle: Callable[[], bool]) -> None:
        self._stopping, self._interruptions, self._idle = stopping, interruptions, idle

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002 - Tune's signature
        return self._interruptions.takes(trial_id)

    def stop_all(self) -> bool:
        # Tune drops the trials that are left without a word; recorder and bridge tell of them when they close.
        return self._stopping() and self._idle()


class _NoReport(Unsaved, tune.ProgressReporter):
    """Says nothing. In a notebook Tune's own one would clear the cell's output, whatever its verbosity."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:  # noqa: ARG002 - Tune's signature
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: Any) -> None:
        pass


def run_search(search: Search, ended: list[TrialResult], past: Past = NOTHING) -> None:
    """Run the trials of `search` on the Ray that is up; add to `ended` how each of them ended, in that order.

    The list is the caller's, so that it holds what there is even if the search is cut short by an exception. Where the
    run has a `past`, the list holds what ended in it; trials that did not end go on from their checkpoints.
    """
    budget = search.spec.search.time_budget
    deadline = time.monotonic() + budget - past.seconds if budget else None
    states = _states(search.store.path, past)
    past = past.going_on_from({name: epoch for name, (epoch, _) in states.items()})

    def why() -> str:
        if search.stopping():
            return search.reason()
        return "time budget" if time_is_up(deadline) else "search given up" if common_failure(ended) else ""

    def stopping() -> bool:
        return bool(why())

    study = _fresh_study(search)
    # A population is alive as a whole; otherwise no trial is proposed before there is a worker for it, so that each
    # proposal knows of every result there is.
    parallel = None if search.spec.search.scheduler == "pbt" else search.share.parallel
    cut = Interruptions(why)
    bridge = Bridge(
        study,
        search.space,
        search.spec,
        parallel=parallel,
        interruptions=cut,
        stopping=stopping,
        say=lambda text: search.emit(Warned(message=text)),
    )
    bridge.take_up(past, {name: ray.put(state) for name, (_, state) in states.items()})
    recorder = Recorder(search.spec, bridge, search.store, search.emit, search.registry, ended, cut, search.tick)
    # All workers are started at once, rather than one after the other.
    pending = {"TUNE_MAX_PENDING_TRIALS_PG": str(search.share.parallel)}
    try:
        with environment(pending), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _tuner(search, bridge, recorder, stopping, _StopAtEpoch(stopping, cut, recorder.idle), past).fit()
    finally:
        recorder.close()
        bridge.close()


def _fresh_study(search: Search) -> optuna.Study:
    """Return an empty study in `study.db`; one that an earlier driver has left is made anew from the events."""
    path = search.store.path / "study.db"
    for old in (path, *(path.with_name(f"{path.name}-{kind}") for kind in ("journal", "wal", "shm"))):
        old.unlink(missing_ok=True)
    return open_study(path, search.spec)


def _states(run: Path, past: Past) -> dict[str, tuple[int, bytes]]:
    """Return epoch and state of the newest whole checkpoint of each trial that goes on and has one.

    The last epoch is trained again in any case: whether the scheduler has judged it, and how, nobody has written down.
    """
    found = {one.name: newest_checkpoint(run, one.name, max(one.history, default=0) - 1) for one in past.unended}
    return {name: checkpoint for name, checkpoint in found.items() if checkpoint}


def _tuner(
    search: Search, bridge: Bridge, recorder: Recorder, stopping: Stopping, stopper: tune.Stopper, past: Past
) -> tune.Tuner:
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are events of ours
    np.random.seed(derive(search.spec.seed, Stream.SAMPLER))
    trainable = tune.with_resources(
        tune.with_parameters(PlanTrainable, shared=search.shared),
        {"cpu": search.share.cpus, "gpu": search.share.gpus},
    )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=bridge,
            scheduler=scheduler(search.spec, search.space, stopping, search.emit, past),
            num_samples=search.spec.search.trials,  # the bridge ends the search
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=f"tune-{past.drivers + 1}",
            storage_path=str((search.store.path / "ray").resolve()),
            stop=stopper,
            callbacks=[recorder],
            progress_reporter=_NoReport(),
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # nobody would read it
            verbose=0,
        ),
    )


def best_trials(results: Sequence[TrialResult], metric: str, top: int) -> list[TrialResult]:
    """Return the `top` best of the trials that used their full budget, best first; equal ones by their number.

    A plan that was tried several times counts once, by its best trial: its fresh seeds would be the same ones twice.
    """
    sign = -1 if higher_is_better(metric) else 1
    complete = [result for result in results if result.state == "complete"]
    ordered = sorted(complete, key=lambda r: (sign * r.metrics[metric], r.number))
    distinct: dict[str, TrialResult] = {}
    for result in ordered:
        distinct.setdefault(canonical(result.plan), result)
    return list(distinct.values())[:top]


@dataclass(frozen=True)
class Lost:
    """A task of which nothing more will be heard: its worker died, and so did those that tried again."""

    message: str


def run_tasks(
    search: Search,
    function: Callable[[Shared, Task], Iterator[Answer]],
    tasks: Sequence[Task],
    *,
    started: Callable[[Task], None] = lambda _: None,
    stopping: Stopping = lambda: False,
) -> Iterator[tuple[Task, Answer | Lost]]:
    """Run `function(search.shared, task)` in parallel workers; yield each task with whatever it yields, as it comes.

    `started(task)` is called when a task is given to a worker. One whose worker dies begins anew, three times; what it
    has yielded already is not yielded again. Once `stopping()`, no further task is started and what runs is given up.
    """
    common = ray.put(search.shared)
    remote: Any = ray.remote(function).options(num_cpus=search.share.cpus, num_gpus=search.share.gpus, max_retries=3)
    waiting, running = list(tasks), dict[Any, Task]()
    while waiting or running:
        while waiting and len(running) < search.share.parallel:
            task = waiting.pop(0)
            running[remote.remote(common, task)] = task
            started(task)
        ready: list[Any] = ray.wait(list(running), num_returns=1, timeout=0.5)[0]
        for stream in ready:
            try:
                yield running[stream], _answer(next(stream))
            except StopIteration:
                del running[stream]
        search.tick()
        if stopping():
            for stream in running:
                ray.cancel(stream, force=True)
            return


def _answer(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return Lost(f"worker lost: {first}")
