"""Whole runs by the program's own `search` and `resume`, in a process that may be killed; only Ray is simulated."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import optuna
from sklearn.datasets import load_digits

from mnistlab import events
from mnistlab.api import DataPlace
from mnistlab.errors import MnistlabError
from mnistlab.events import Stamped
from mnistlab.experiment import loader
from mnistlab.plugins.discovery import Selection
from mnistlab.plugins.registry import Registry, select
from mnistlab.store import durable
from mnistlab.tuning import run
from mnistlab.tuning.executors import EXECUTORS
from mnistlab.tuning.reopen import reopen_search
from mnistlab.tuning.resources import Machine
from tests.simulated.controller import World, simulated

ALGORITHMS = ("tpe", "random", "grid", "qmc", "cmaes", "gp", "nsga2")
SCHEDULERS = ("halving", "asha", "hyperband", "median", "none")
NOTHING_TO_DO = 99  # what a child ends with whose `resume` had nothing to do

SPACE = """
name = "simulated"
seed = {seed}
[data]
dataset = "digits"
validation = 64
[model.mlp]
depth = {{ low = 1, high = 3 }}
width = {width}
dropout = {dropout}
activation = ["relu", "gelu"]
batch_norm = true
[optimizer.sgd]
lr = {lr}
momentum = 0.9
weight_decay = 1e-6
schedule = "constant"
warmup = 0.0
[training]
epochs = {epochs}
batch_size = 16
[search]
trials = {trials}
algorithm = "{algorithm}"
scheduler = "{scheduler}"
metric = "{metric}"
reduction_factor = {factor}
grace_epochs = 1
[confirm]
top = 0
"""
ENDLESS = {
    "width": "{ low = 32, high = 1024 }",
    "dropout": "{ low = 0.0, high = 0.5 }",
    "lr": "{ low = 0.005, high = 0.5, log = true }",
}
FINITE = {"width": "[64, 128]", "dropout": "[0.0, 0.2]", "lr": "[0.01, 0.1]"}  # 48 plans


@dataclass(frozen=True)
class Case:
    """A search: what its experiment says, how many workers it has, in which world."""

    algorithm: str = "random"
    scheduler: str = "asha"
    trials: int = 8
    epochs: int = 9
    metric: str = "val_accuracy"
    seed: int = 0
    factor: int = 3
    parallel: int = 1
    world: World = field(default_factory=World)

    def __hash__(self) -> int:
        """Equal cases are equal keys; the nodes of a world are a dictionary, which has no hash of its own."""
        return hash(repr(self))

    @property
    def text(self) -> str:
        space = FINITE if self.algorithm == "grid" else ENDLESS
        return SPACE.format(**{**vars(self), **space})


@dataclass(frozen=True)
class Fault:
    """What happens to a driver at its event number `at` (from 1), or some writing after it.

    `stop`: it is asked to stop; `kill`: SIGKILL; `point`: SIGKILL at a passing of a point of writing, POINT:N, counted
    from that event on (0: from its start), or from when the trial and epoch `after` have been told. With `unflushed`
    the power fails as well: of what was not flushed of the event stream, this share stays.
    """

    kind: str = "none"  # none, stop, kill, point
    at: int = 0
    point: str = ""
    after: tuple[str, int] | None = None
    unflushed: float | None = None

    def is_due(self, seen: int, event: events.Event | None) -> bool:
        """Return whether it is due at an event, the `seen`-th one."""
        if self.after is None:
            return seen == self.at
        return isinstance(event, events.TrialEpoch) and (event.trial, event.epoch) == self.after


NO_FAULT = Fault()


@cache
def registry() -> Registry:
    """The built-in plugins alone, loaded once for all children, with whatever else takes each of them time."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(storage="sqlite://")  # imports a lot
    load_digits()
    return select(Selection(only_built_in=True))


@cache
def warm() -> None:
    """Search once in this process: what a driver compiles and imports for itself its children then find done."""
    registry()
    one = Case(trials=2, epochs=1, world=World(failing=0.0))
    with tempfile.TemporaryDirectory() as folder, without_ray(one, Path(folder)):
        _search(Path(folder), one, lambda _path: nullcontext(lambda _stamped: None))


@dataclass
class Driven:
    """What came of a driver: how its process ended, and what it had been told was written, in order."""

    code: int  # minus the signal, where one has killed it
    told: list[dict]
    said: str = ""  # the error that has ended it

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


class Drives:
    """One run in a folder of its own, driven by one process after the other."""

    def __init__(self, root: Path, case: Case, pause: float = 0.0) -> None:
        """Drive `case` into a run directory under `root`; after each event a driver waits `pause` seconds."""
        self.root, self.case, self._pause = root, case, pause
        self._witness = root / "told"
        root.mkdir(parents=True, exist_ok=True)
        warm()

    @property
    def path(self) -> Path:
        """The run directory; the newest one, if earlier drivers died before they had written down what they do."""
        return max((self.root / "runs").iterdir(), key=lambda path: path.stat().st_ctime_ns)

    @property
    def begun(self) -> bool:
        return any((self.root / "runs").glob("*/run.json"))

    def go(self, fault: Fault = NO_FAULT) -> Driven:
        """Let a driver begin the run or go on with it, until it ends or its fault ends it."""
        driven = self.wait(self.start(fault))
        if fault.unflushed is not None and driven.killed and self.begun:
            self._lose_power(fault.unflushed)
        return driven

    def more(self, *changes: str, again: bool = False) -> None:
        """Go on with the run in this process, with changes as `resume` takes them; `again`: as `retry` does."""
        with without_ray(self.case, self.root):
            found, options = reopen_search(self.path, place(self.root), changes), options_in(self.root)
            run.resume(found, options, lambda _: nullcontext(lambda _: None), again=again)

    def start(self, fault: Fault = NO_FAULT) -> int:
        """Start a driver; return its process."""
        self._witness.write_bytes(b"")
        pid = os.fork()
        if pid == 0:
            code = 3
            gc.disable()  # a child lives for a second at most, and would copy every page that is only looked at
            try:
                code = self._drive(fault)
            except MnistlabError as error:
                code = int(error.exit_code)
                self._said(os.getpid()).write_text(str(error))
            except BaseException:
                self._said(os.getpid()).write_text(traceback.format_exc())
            finally:
                os._exit(code)
        return pid

    def told(self) -> int:
        """Return how many events the driver that runs now has written."""
        return self._witness.read_bytes().count(b"\n")

    def wait(self, pid: int) -> Driven:
        """Wait for a driver's end."""
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = self._said(pid).read_text() if self._said(pid).exists() else ""
        return Driven(code, [json.loads(line) for line in self._witness.read_bytes().splitlines()], said)

    def _said(self, pid: int) -> Path:
        return self.root / f"said-{pid}"

    def to_the_end(self) -> Driven:
        """Drive without a fault, as often as that takes: once."""
        driven = self.go()
        assert driven.code in {0, 1, 4, NOTHING_TO_DO}, f"the driver ended with {driven.code}: {driven.said}"
        return driven

    def _lose_power(self, stays: float) -> None:
        stream = self.path / "events.jsonl"
        noted = self.root / "flushed"
        flushed = int(noted.read_text()) if noted.exists() else 0
        os.truncate(stream, flushed + round(stays * (stream.stat().st_size - flushed)))

    # --- in the child ---

    def _drive(self, fault: Fault) -> int:
        with quiet(), without_ray(self.case, self.root, fault):
            view = partial(_witnessed, self._witness, fault, self._pause)
            if self.begun:
                options = options_in(self.root)
                finished = run.resume(reopen_search(self.path, options.place), options, view)
            else:
                (self.root / "flushed").unlink(missing_ok=True)
                finished = _search(self.root, self.case, view)
            return int(finished.exit_code) if finished else NOTHING_TO_DO


def _search(root: Path, case: Case, view: run.View) -> run.Finished:
    file = root / "x.toml"
    file.write_text(case.text)
    return run.search(loader.load(file, (), registry()), options_in(root), registry(), view)


def options_in(root: Path, command: str = "simulated") -> run.Options:
    return run.Options(runs=root / "runs", place=place(root), address=None, command=command)


def place(root: Path) -> DataPlace:
    """Where data would lie, if the dataset had any files."""
    return DataPlace(data_dir=None, cache=root / "cache", offline=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Let nothing that a dying driver says reach the terminal."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        yield


@contextmanager
def without_ray(case: Case, root: Path, fault: Fault = NO_FAULT) -> Iterator[None]:
    """Put the simulation in Ray's place, and in the process whatever the fault needs."""
    if fault.is_due(0, None):
        _happen(fault)
    with (
        patch.dict(EXECUTORS, ray=simulated(case.world, case.parallel)),
        patch.object(run, "this_machine", lambda: Machine(cpus=case.parallel, gpus=0.0)),
        patch.object(durable, "fsync", _noting(root / "flushed")),
    ):
        yield


def _noting(file: Path) -> Callable[[int], None]:
    """Return an fsync that notes up to where the event stream is on the disk."""
    really = durable.fsync

    def fsync(descriptor: int) -> None:
        really(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("events.jsonl"):
            file.write_text(str(os.fstat(descriptor).st_size))

    return fsync


@contextmanager
def _witnessed(witness: Path, fault: Fault, pause: float, _path: Path) -> Iterator[Callable[[Stamped], None]]:
    """Yield a view that notes every event once it has been written, and lets the fault happen when it is due."""
    descriptor = os.open(witness, os.O_WRONLY | os.O_APPEND)
    seen = 0

    def handle(stamped: Stamped) -> None:
        nonlocal seen
        seen += 1
        os.write(descriptor, json.dumps(events.to_json(stamped)).encode() + b"\n")
        time.sleep(pause) if pause else None
        if fault.is_due(seen, stamped.event):
            _happen(fault)

    try:
        yield handle
    finally:
        os.close(descriptor)


def _happen(fault: Fault) -> None:
    if fault.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.kind == "stop":
        os.kill(os.getpid(), signal.SIGTERM)
    elif fault.kind == "point":
        os.environ[durable.CRASH_AT] = fault.point


def drawn_case(seed: int) -> Case:
    """Return a search with one worker, everything about it drawn."""
    draw = random.Random(seed)
    world = World(seed, spread=10.0, failing=draw.choice([0.0, 0.2, 0.4]), keep_every=draw.choice([1, 2]))
    return Case(
        algorithm=draw.choice(ALGORITHMS),
        scheduler=draw.choice(SCHEDULERS),
        trials=draw.randint(4, 10),
        epochs=draw.randint(2, 9),
        metric=draw.choice(["val_accuracy", "val_loss"]),
        seed=seed,
        factor=draw.choice([2, 3]),
        world=world,
    )


def clear(folder: Path) -> None:
    """Remove a folder that a test has done with: there is a run in it, and many tests."""
    shutil.rmtree(folder, ignore_errors=True)
