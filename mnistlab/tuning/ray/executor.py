"""Ray Tune carries out a search: it starts workers, hands them what the bridge proposes, and tells what they report."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air._internal import usage as air_usage
from ray.tune.experiment import Trial

from mnistlab.store.layout import RAY
from mnistlab.tuning.context import Executor, Parts, Search, Stopping
from mnistlab.tuning.outcome import Interruptions
from mnistlab.tuning.ray.cluster import alive_nodes, cluster
from mnistlab.tuning.ray.nodes import selector
from mnistlab.tuning.ray.placement import Places
from mnistlab.tuning.ray.remote import streams
from mnistlab.tuning.ray.surroundings import environment
from mnistlab.tuning.ray.trainable import PlanTrainable
from mnistlab.tuning.ray.workers import workers_kept
from mnistlab.tuning.resources import Share
from mnistlab.tuning.retries import Leftover
from mnistlab.tuning.tune_compat import Unsaved
from mnistlab.tuning.worker.leftovers import taken


class _StopAtEpoch(Unsaved, tune.Stopper):
    """Ends each running trial at its next epoch once the time is up or a stop was asked for, then the paused ones.

    Tune asks the scheduler about a report only where this does not stop its trial, so that it is always clear whose
    decision an early end was.
    """

    def __init__(self, stopping: Stopping, interruptions: Interruptions, idle: Stopping) -> None:
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


class _Unread(Unsaved, tune.Callback):
    """Keeps Tune from reading the errors of lost workers back in: it has pickled them into the run directory."""

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:  # noqa: ARG002 - Tune's signature
        """Forget where they are; what they say is in the events and logs by now."""
        for trial in trials:
            trial.run_metadata.pickled_error_filename = None


def _run(search: Search, parts: Parts) -> None:
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are events of ours
    # All workers are started at once, rather than one after the other.
    pending = {"TUNE_MAX_PENDING_TRIALS_PG": str(search.share.parallel)}
    with environment(pending), workers_kept(), _uncounted(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _tuner(search, parts).fit()


@contextmanager
def _uncounted() -> Generator[None]:
    """Keep Tune from counting our callbacks for its reports of usage, which are off: it imports what they could be.

    That are the clients of four trackers, and most of a second before the first trial.
    """

    def uncounted(_callbacks: object) -> bool:
        return False

    before, air_usage.tag_callbacks = air_usage.tag_callbacks, uncounted
    try:
        yield
    finally:
        air_usage.tag_callbacks = before


def _resources(share: Share, room: Share | None, config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """Return what a trial gets of a node: the usual share, or all the room there is; and which nodes won't do."""
    task = json.loads(config["task"])
    given = room if room and task.get("room") else share
    away: dict[str, Any] = {"bundle_label_selector": [selector(task["away"])]} if task.get("away") else {}
    return tune.PlacementGroupFactory([{"CPU": given.cpus, "GPU": given.gpus}], **away)


def _tuner(search: Search, parts: Parts) -> tune.Tuner:
    trainable = tune.with_resources(
        tune.with_parameters(PlanTrainable, shared=search.shared), partial(_resources, search.share, search.room)
    )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=parts.bridge,
            scheduler=parts.scheduler,
            num_samples=-1,  # the bridge ends the search: a trial that is gone on with is another one to Tune
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=f"tune-{parts.drivers + 1}",
            storage_path=str((search.store.path / RAY).resolve()),
            stop=_StopAtEpoch(parts.stopping, parts.interruptions, parts.recorder.idle),
            callbacks=[parts.recorder, Places(search.again), _Unread()],
            progress_reporter=_NoReport(),
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # nobody would read it
            verbose=0,
        ),
    )


def _leftover(trial: Trial) -> Leftover:
    """Return what is left of a trial's worker. Tune's own reader of errors looks where they are copied to later."""
    error = ""
    with suppress(OSError):
        error = Path(str(trial.error_file)).read_text(encoding="utf-8", errors="replace").partition("\n")[2]
    return Leftover(error, taken(trial.trial_id))


def _preparing(address: str | None) -> str:
    return f"joining the Ray cluster at {address}" if address else "starting Ray"


RAY_TUNE = Executor(
    check=lambda _spec, _address: None,
    preparing=_preparing,
    joined=cluster,
    portion=lambda found: found,
    alive=alive_nodes,
    put=ray.put,
    run=_run,
    leftover=_leftover,
    streams=streams,
)
