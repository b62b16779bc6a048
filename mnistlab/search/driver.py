"""The driver of a search: assembles the Tuner and runs it within its trial, time and failure budgets."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.exceptions import RayError

from mnistlab.events import Emit
from mnistlab.registry import Registry
from mnistlab.results import TrialResult, higher_is_better
from mnistlab.search.bridge import Bridge, open_study, time_is_up
from mnistlab.search.machine import Share
from mnistlab.search.outcome import common_failure
from mnistlab.search.recorder import Recorder
from mnistlab.search.schedulers import scheduler
from mnistlab.search.unsaved import Unsaved
from mnistlab.search.worker import PlanTrainable, ReplicateAnswer, ReplicateTask, Shared, train_replicate
from mnistlab.seeds import Stream, derive
from mnistlab.space import Space
from mnistlab.spec import ExperimentSpec
from mnistlab.store import RunWriter

Stopping = Callable[[], bool]


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


class _StopAtEpoch(Unsaved, tune.Stopper):
    """Ends each running trial at its next epoch once the time is up or a stop was asked for."""

    def __init__(self, stopping: Stopping) -> None:
        self._stopping = stopping

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002 - Tune's signature
        return self._stopping()

    def stop_all(self) -> bool:
        return False  # Tune would drop the trials without a word to the searcher


def run_search(search: Search) -> list[TrialResult]:
    """Run the trials of `search` on the Ray that is up; return how each of them ended, in that order."""
    budget = search.spec.search.time_budget
    deadline = time.monotonic() + budget if budget else None

    def stopping() -> bool:
        return search.stopping() or time_is_up(deadline) or bool(common_failure(recorder.results))

    study = open_study(search.store.path / "study.db", search.spec)
    # A population is alive as a whole; otherwise no trial is proposed before there is a worker for it, so that each
    # proposal knows of every result there is.
    parallel = None if search.spec.search.scheduler == "pbt" else search.share.parallel
    bridge = Bridge(study, search.space, search.spec, parallel=parallel, stopping=stopping)
    recorder = Recorder(search.spec, bridge, search.store, search.emit, search.registry)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _tuner(search, bridge, recorder, stopping).fit()
    finally:
        recorder.close()
        bridge.close()
    return recorder.results


def _tuner(search: Search, bridge: Bridge, recorder: Recorder, stopping: Stopping) -> tune.Tuner:
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are events of ours
    # All workers are started at once, rather than one after the other.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(search.share.parallel)
    np.random.seed(derive(search.spec.seed, Stream.SAMPLER))
    trainable = tune.with_resources(
        tune.with_parameters(PlanTrainable, shared=search.shared),
        {"cpu": search.share.cpus, "gpu": search.share.gpus},
    )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=bridge,
            scheduler=scheduler(search.spec, search.space),
            num_samples=search.spec.search.trials,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str((search.store.path / "ray").resolve()),
            stop=_StopAtEpoch(stopping),
            callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )


def best_trials(results: Sequence[TrialResult], metric: str, top: int) -> list[TrialResult]:
    """Return the `top` best of the trials that used their full budget, best first; equal ones by their number."""
    sign = -1 if higher_is_better(metric) else 1
    complete = [result for result in results if result.state == "complete"]
    return sorted(complete, key=lambda r: (sign * r.metrics[metric], r.number))[:top]


def run_replicates(
    tasks: Sequence[ReplicateTask], shared: Shared, share: Share, stopping: Stopping
) -> Iterator[ReplicateAnswer]:
    """Train the replicates in parallel on the Ray that is up and yield each answer as it comes.

    Once `stopping()`, no further replicate is started and what runs is given up.
    """
    common = ray.put(shared)
    remote = ray.remote(train_replicate).options(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=3)
    waiting, running = list(tasks), dict[Any, ReplicateTask]()
    while waiting or running:
        while waiting and len(running) < share.parallel:
            task = waiting.pop(0)
            running[remote.remote(common, task)] = task
        done, _ = ray.wait(list(running), num_returns=1, timeout=0.5)
        for reference in done:
            yield _answer(reference, running.pop(reference))
        if stopping():
            for reference in running:
                ray.cancel(reference, force=True)
            return


def _answer(reference: Any, task: ReplicateTask) -> ReplicateAnswer:
    try:
        return ray.get(reference)
    except RayError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return ReplicateAnswer(task, cause="worker", message=f"worker lost: {first}")
