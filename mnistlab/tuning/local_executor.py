"""The executor `local`: trials and replicates run in the driver's own process, one after the other, without Ray.

It serves tests, the debugging of plugins (a breakpoint works), notebooks, and machines on which Ray can't start. It
can't run trials side by side, end one that hangs, or train a population.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mnistlab.errors import Fault, SpecError
from mnistlab.experiment.spec import ExperimentSpec
from mnistlab.store.schedulers import traits_of
from mnistlab.training.precision import Draws, process_restored
from mnistlab.tuning.context import Executor, GoneError, Parts, Search, Streams
from mnistlab.tuning.local_loop import Loop, Steps
from mnistlab.tuning.resources import Machine, Share
from mnistlab.tuning.retries import Leftover
from mnistlab.tuning.worker.leaving import LeftError, place_here
from mnistlab.tuning.worker.messages import Answer
from mnistlab.tuning.worker.output import Capture
from mnistlab.tuning.worker.trial import Here, Shared, Worker, forget_data, watch_of

TICK_SECONDS = 0.2  # between two looks at signals and the machine, while a training goes on
CANT = (
    "--executor local: trials run in this process, one after the other, and one that hangs can't be ended "
    "(search.stall_timeout has no effect)"
)


def _check(spec: ExperimentSpec, address: str | None) -> None:
    """Refuse what this executor can't do.

    Raises:
        SpecError: saying what, and what would do it.
    """
    faults: list[Fault] = []
    name = spec.search.scheduler
    if traits_of(name).all_at_once:
        rule = f"must not be {name} with --executor local: a population trains side by side (--executor ray does that)"
        faults.append(Fault("search.scheduler", rule, name))
    if address is not None:
        faults.append(Fault("--address", "must not be given with --executor local: it joins no Ray cluster", address))
    if faults:
        raise SpecError("executor local", faults)


@contextmanager
def _joined(_address: str | None, machine: Machine, _again: str) -> Generator[Machine]:
    """Train in this process for a while: its threads, random numbers, warnings and memory are as before afterwards.

    Meanwhile it ignores warnings, as Ray's workers do (see `cluster`).
    """
    with process_restored(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield machine
        finally:
            forget_data()


def _portion(found: Share) -> Share:
    """Return what a trial gets that is alone here."""
    return Share(found.cpus, 1.0 if found.gpus else 0.0, 1)


class _BreakOff(BaseException):
    """Carries an error of the driver's through a training, which would take it for its plan's."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Aside:
    """Keeps apart from the driver what trainings do to this process: what they print and the random numbers they draw.

    A training seeds numpy's generator, from which Ray draws a trial's bracket.
    """

    def __init__(self, search: Search, capture: Capture) -> None:
        """Have `capture` hold what they print; at their steps the driver of `search` looks around."""
        self.capture, self._draws = capture, Draws()
        self._tick, self._due = search.tick, 0.0
        self.shared = replace(search.shared, here=Here(search.registry, self._look_around))

    @contextmanager
    def on(self) -> Generator[None]:
        """Train for a while.

        Raises:
            Exception: what the driver has raised while it looked around.
        """
        try:
            with self.capture.on(), self._draws.on():
                yield
        except _BreakOff as broken:
            raise broken.error from None

    def _look_around(self) -> None:
        if time.monotonic() < self._due:
            return
        try:
            with self.capture.off(), self._draws.off():
                self._tick()
        except Exception as error:
            raise _BreakOff(error) from error
        self._due = time.monotonic() + TICK_SECONDS


@contextmanager
def _aside(search: Search) -> Generator[_Aside]:
    """Yield what keeps the trainings of a search apart."""
    with tempfile.TemporaryDirectory(prefix="mnistlab-") as folder:
        capture = Capture(Path(folder) / "log")
        try:
            yield _Aside(search, capture)
        finally:
            capture.close()


# --- trials -------------------------------------------------------------------------------------------------------


class _Loop(Loop):
    """One trial at a time."""

    def __init__(self, parts: Parts, aside: _Aside) -> None:
        """Train `aside`."""
        super().__init__(parts, workers=1)
        self._aside = aside

    def _worker(self, trial: Any) -> Steps:
        if trial.worker:
            return trial.worker
        shared = self._aside.shared
        made = Worker(shared, self._aside.capture, watch_of(shared, None))
        state = trial.config.get("state")
        with self._aside.on():
            made.begin(trial.config["task"], None if state is None else lambda: state)
        return _WorkerAside(made, self._aside)


@dataclass(frozen=True)
class _WorkerAside:
    """A worker that trains aside."""

    worker: Worker
    aside: _Aside

    def step(self) -> dict[str, Any]:
        """Train an epoch and report.

        Raises:
            LeftError: if it can't go on; its text is what was printed and not yet reported, with the last words.
        """
        try:
            with self.aside.on():
                return self.worker.step()
        except LeftError as error:
            said = f"{self.aside.capture.take()}\n{error}"
        raise LeftError(said)  # without what it came of, which holds all of the training


def _run(search: Search, parts: Parts) -> None:
    with _aside(search) as aside:
        _Loop(parts, aside).run()


def _leftover(trial: Any) -> Leftover:
    return Leftover(log=str(trial.error))


# --- tasks --------------------------------------------------------------------------------------------------------


@contextmanager
def _streams(
    search: Search, function: Callable[[Shared, Any], Iterator[Any]], limit: float | None
) -> Generator[Streams]:
    """Yield what runs tasks here, each as the generator that it is."""
    with _aside(search) as aside:
        shared = replace(aside.shared, trial_seconds=limit)

        def said(stream: Iterator[Any]) -> Any:
            try:
                with aside.on():
                    one = next(stream, None)
            except LeftError as error:
                raise GoneError(Leftover(log=f"{aside.capture.take()}\n{error}")) from error
            return replace(one, log=aside.capture.take()) if isinstance(one, Answer) else one

        yield Streams(
            begin=lambda task, _room: function(shared, task),
            ready=list,
            said=said,
            give_up=lambda stream: stream.close(),
        )


def _alive(_cpus: int = 0, _gpus: float = 0.0) -> Mapping[str, str]:
    """Return the one node that there is, this machine, by the id that a failure here names."""
    return {place_here().partition("/")[0]: "127.0.0.1"}


LOCAL = Executor(
    check=_check,
    preparing=lambda _: "",
    joined=_joined,
    portion=_portion,
    alive=_alive,
    put=lambda state: state,
    run=_run,
    leftover=_leftover,
    streams=_streams,
    cant=CANT,
)
