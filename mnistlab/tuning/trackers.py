"""Trackers: what other programs show of a search (`--log`), written by Ray's own logger callbacks.

They are fed from the event stream, as every view is, in a thread of their own: a tracker that is slow or away delays
nothing, and one that fails is given up with a word while the search goes on.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

from ray.tune.logger import LoggerCallback

from mnistlab import events
from mnistlab.api import Scalar
from mnistlab.errors import Fault, RunDirectoryError, SpecError, must_be_one_of
from mnistlab.events import Event, Stamped
from mnistlab.store.layout import TENSORBOARD
from mnistlab.util.credentials import without_credentials
from mnistlab.util.text import settings, unbroken

Name = Literal["tensorboard", "mlflow"]

WAIT_SECONDS = 30.0  # how long the end of a run waits for trackers that are behind
INSTALL = "pip install 'mnistlab[trackers]'"
_PACKAGES: Mapping[Name, str] = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}


def check_trackers(names: Sequence[str]) -> tuple[Name, ...]:
    """Return the trackers that `names` ask for, each once.

    Raises:
        SpecError: naming every one that is unknown, or whose package is not installed.
    """
    faults = [must_be_one_of("--log", name, get_args(Name)) for name in names if name not in get_args(Name)]
    known = cast("list[Name]", [name for name in dict.fromkeys(names) if name in get_args(Name)])
    faults += [
        Fault("--log", f"needs the package {_PACKAGES[name]}: {INSTALL}", name)
        for name in known
        if importlib.util.find_spec(_PACKAGES[name]) is None
    ]
    if faults:
        raise SpecError("trackers", faults)
    return tuple(known)


class Tracking:
    """Hands events to trackers. Only `__call__` and `finish` say what went wrong, each trouble once."""

    def __init__(self, names: Sequence[Name], path: Path, experiment: str, plans: Mapping[str, events.Plan]) -> None:
        """Open the trackers for the run in `path`; that itself happens in the thread, because it takes seconds.

        `plans` holds those of trials that have begun already, by name.
        """
        self._waiting: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._troubles: queue.SimpleQueue[str] = queue.SimpleQueue()
        opening = [(name, _OPENERS[name]) for name in names]
        work = (opening, _Book(path, plans), path, experiment, self._waiting, self._troubles)
        self._thread = threading.Thread(target=_follow, args=work, name="trackers", daemon=True) if names else None
        if self._thread:
            self._thread.start()

    def __call__(self, stamped: Stamped) -> Iterator[str]:
        """Take an event; yield in words what has gone wrong since the last call."""
        if self._thread and isinstance(stamped.event, _FOLLOWED):
            self._waiting.put(stamped.event)
        while not self._troubles.empty():
            yield self._troubles.get()

    def stop(self) -> None:
        """Let the thread end once it has written what it was given."""
        self._waiting.put(None)

    def finish(self, wait: float = WAIT_SECONDS, tick: Callable[[], object] = lambda: None) -> Iterator[str]:
        """Wait at most `wait` seconds until all is written, calling `tick` meanwhile; yield what went wrong."""
        self.stop()
        deadline = time.monotonic() + wait
        while self._thread and self._thread.is_alive() and time.monotonic() < deadline:
            tick()
            self._thread.join(0.1)
        while not self._troubles.empty():
            yield self._troubles.get()
        if self._thread and self._thread.is_alive():
            yield f"--log: the trackers are still writing after {wait:g} s; what they have not got by now is left out"


@contextmanager
def tracking(
    names: Sequence[Name], path: Path, experiment: str, plans: Mapping[str, events.Plan] = MappingProxyType({})
) -> Generator[Tracking]:
    """Yield what hands the events of the run in `path` to the trackers of these names; `plans` as `Tracking` says."""
    open_ones = Tracking(names, path, experiment, plans)
    try:
        yield open_ones
    finally:
        open_ones.stop()


# --- in the thread ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Followed:
    """A training as Ray's logger callbacks want to see it: what they ask of a Tune trial, and no more."""

    run: str
    name: str
    config: Mapping[str, Scalar]
    local_path: str

    @property
    def evaluated_params(self) -> Mapping[str, Scalar]:
        """Return the settings: nothing is left to be evaluated in them."""
        return self.config

    def init_local_path(self) -> None:
        """Refuse a link, which a tracker would follow; else do nothing: whoever writes there makes the folder."""
        if Path(self.local_path).is_symlink():
            raise RunDirectoryError(f"can't write into {self.local_path}: it is a symbolic link")

    def __str__(self) -> str:
        return f"{self.run}/{self.name}"


def _tensorboard(path: Path, experiment: str) -> LoggerCallback:  # noqa: ARG001 - as every opener
    from ray.tune.logger import TBXLoggerCallback  # noqa: PLC0415 - only where it is asked for

    return TBXLoggerCallback()


def _mlflow(path: Path, experiment: str) -> LoggerCallback:
    """Open MLflow where MLFLOW_TRACKING_URI says, else where MLflow itself does: in the current folder."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from ray.air.integrations.mlflow import MLflowLoggerCallback  # noqa: PLC0415 - seconds long

    callback = MLflowLoggerCallback(experiment_name=experiment, tags={"mnistlab_run": path.name})
    callback.setup()
    return callback


_OPENERS: Mapping[Name, Callable[[Path, str], LoggerCallback]] = {"tensorboard": _tensorboard, "mlflow": _mlflow}


def _follow(
    opening: Sequence[tuple[Name, Callable[[Path, str], LoggerCallback]]],
    book: _Book,
    path: Path,
    experiment: str,
    waiting: queue.SimpleQueue[Event | None],
    troubles: queue.SimpleQueue[str],
) -> None:
    """Open the trackers and hand them event after event, until None comes; one that fails gets nothing more."""
    trackers: dict[Name, LoggerCallback] = {}

    def guarded(name: Name, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever a tracker's library raises, the search goes on
            trackers.pop(name, None)
            said = unbroken(without_credentials(str(error)))[:300] or "no reason given"
            troubles.put(f"--log {name}: {type(error).__name__}: {said}; nothing more is written there")

    for name, opener in opening:
        guarded(name, lambda n=name, o=opener: trackers.update({n: o(path, experiment)}))
    while (event := waiting.get()) is not None:
        for step in book.steps(event):
            for name, tracker in list(trackers.items()):
                guarded(name, lambda tracker=tracker, step=step: step(tracker))


Step = Callable[[Any], None]


class _Book:
    """Which trainings are being followed, and what an event means to their trackers."""

    def __init__(self, path: Path, plans: Mapping[str, events.Plan]) -> None:
        self._path = path
        self._plans = dict(plans)
        self._open: dict[str, Followed] = {}
        self._before: dict[str, int] = {}  # epochs of a trial's trainings at lower rungs

    def steps(self, event: Event) -> Iterator[Step]:
        """Yield what is to be done with each tracker."""
        if isinstance(event, events.TrialStarted):
            self._plans[event.trial] = event.plan
        if isinstance(event, _STARTS):
            followed = self._open[_name(event)] = self._followed(event)
            yield lambda tracker: tracker.log_trial_start(followed)
        elif (one := self._open.get(_name(event))) is None:
            return
        elif isinstance(event, events.TrialPaused):
            self._before[event.trial] = self._before.get(event.trial, 0) + max(1, round(event.budget))
        elif isinstance(event, _EPOCHS):
            epoch = event.epoch + self._before.get(_name(event), 0)
            result = {"training_iteration": epoch, **event.metrics}
            yield lambda tracker: tracker.log_trial_result(epoch, one, result)
        elif isinstance(event, _ENDS):
            self._open.pop(_name(event))
            failed = isinstance(event, _FAILURES)
            yield lambda tracker: tracker.log_trial_end(one, failed=failed)

    def _followed(self, event: events.TrialStarted | events.ReplicateStarted) -> Followed:
        name = _name(event)
        config = {**settings(self._plans.get(event.trial, {})), "seed": event.seed}
        return Followed(self._path.name, name, config, str(self._path / TENSORBOARD / name))


def _name(event: Any) -> str:
    """Return the name of the training that an event is about: `0003`, or `0003-replicate-1`."""
    replicate = getattr(event, "replicate", None)
    return event.trial if replicate is None else f"{event.trial}-replicate-{replicate}"


_STARTS = (events.TrialStarted, events.ReplicateStarted)
_EPOCHS = (events.TrialEpoch, events.ReplicateEpoch)
_FAILURES = (events.TrialFailed, events.ReplicateFailed)
_ENDS = (
    events.TrialFinished,
    events.TrialPruned,
    events.TrialInterrupted,
    events.ReplicateFinished,
    *_FAILURES,
)
_FOLLOWED = (*_STARTS, events.TrialPaused, *_EPOCHS, *_ENDS)
