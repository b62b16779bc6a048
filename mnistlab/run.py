"""One run from end to end: data, run directory, cluster, search, confirmation, and how it ended."""

from __future__ import annotations

import hashlib
import platform
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from mnistlab import __version__, events
from mnistlab.api import DataPlace
from mnistlab.confirm import confirm
from mnistlab.dataset import Data, find_data
from mnistlab.discovery import Selection
from mnistlab.errors import ExitCode, MnistlabError
from mnistlab.events import Stamped
from mnistlab.experiment import Experiment
from mnistlab.registry import Registry
from mnistlab.results import TrialResult, higher_is_better
from mnistlab.search.cluster import cluster
from mnistlab.search.driver import Search, run_search
from mnistlab.search.machine import Machine, Share, share, this_machine
from mnistlab.search.outcome import FIRST_TRIALS, TOO_MANY, common_failure
from mnistlab.search.worker import Shared, digest
from mnistlab.spec import ExperimentSpec, spec_json
from mnistlab.store import RunWriter, create_run

View = Callable[[], AbstractContextManager[Callable[[Stamped], None]]]


@dataclass(frozen=True)
class Options:
    """What the command line adds to an experiment."""

    runs: Path
    place: DataPlace
    address: str | None
    command: str


@dataclass(frozen=True)
class Finished:
    """Where the run lies and how it ended."""

    path: Path
    exit_code: ExitCode


def shared_of(data: Data, place: DataPlace, portion: Share, plugins: Selection) -> Shared:
    """Return what every worker needs to load the same data."""
    return Shared(
        dataset=data.choice.offer.qualified,
        config=data.choice.config.model_dump(mode="json"),
        place=place,
        shape=data.info.shape,
        train_sha256=digest(data.images),
        division=data.division,
        cpus=portion.cpus,
        gpus=portion.gpus,
        plugins=plugins,
    )


# --- the run ------------------------------------------------------------------------------------------------------


class StopRequest:
    """Whether someone has asked the run to stop: the first signal asks, the second insists."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.signal: signal.Signals | None = None
        self.told = False  # whether the user has been told that the request was heard

    def __call__(self) -> bool:
        """Return whether to stop."""
        return self.signal is not None

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


@contextmanager
def signals_as(request: StopRequest) -> Generator[None]:
    """Send SIGINT, SIGTERM and SIGHUP to `request` for a while."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, request.receive) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def search(experiment: Experiment, options: Options, registry: Registry, view: View) -> Finished:
    """Run a whole search and leave its run directory.

    Raises:
        MnistlabError: if it can't begin (data, plugins, resources), or can't write down what it does.
    """
    data = find_data(experiment, options.place)
    here = this_machine()
    if options.address is None:
        share(here, experiment.spec.resources)  # refuse what can't fit before anything is started
    path = create_run(options.runs, experiment.spec.name, datetime.now().astimezone())
    writer, request = RunWriter(path), StopRequest()
    try:
        with view() as handle, signals_as(request):
            run = _Run(experiment, data, options, registry, writer, request, lambda e: handle(writer.append(e)))
            return Finished(path, _to_the_end(run, here))
    finally:
        writer.close()
        if not (path / "run.json").exists():  # it never began: leave nothing behind
            shutil.rmtree(path)


@dataclass(frozen=True)
class _Run:
    """What a run is made of, from its first event to its last."""

    experiment: Experiment
    data: Data
    options: Options
    registry: Registry
    writer: RunWriter
    request: StopRequest
    emit: events.Emit
    trials: list[TrialResult] = field(default_factory=list[TrialResult])


def _to_the_end(run: _Run, here: Machine) -> ExitCode:
    """Search and confirm; however that ends, the last event says how."""
    start = time.monotonic()
    try:
        _search_and_confirm(run, here)
    except KeyboardInterrupt:
        run.request.signal = run.request.signal or signal.SIGINT
    except Exception as error:
        code = error.exit_code if isinstance(error, MnistlabError) else ExitCode.INTERNAL
        with suppress(MnistlabError):  # the disk may be what failed
            _say_finished(run, f"broken off: {type(error).__name__}", code, start)
        raise
    outcome, code = _ending(run)
    _say_finished(run, outcome, code, start)
    return code


def _search_and_confirm(run: _Run, here: Machine) -> None:
    spec = run.experiment.spec
    with cluster(run.options.address, here) as machine:
        portion = share(machine, spec.resources)
        record = run_record(run.experiment, run.data, machine, portion, run.registry, run.options.command)
        for file in run.registry.selection.files:
            run.writer.write_plugin(file.name, file.source)
        run.writer.write_run({"run": run.writer.path.name, **record})
        run.emit(_started(run.experiment, run.data, machine, portion, run.registry, run.writer.path))
        for warning in run.experiment.warnings:
            run.emit(events.Warned(message=warning))
        job = Search(
            spec=spec,
            space=run.experiment.space,
            shared=shared_of(run.data, run.options.place, portion, _needed(run)),
            share=portion,
            registry=run.registry,
            store=run.writer,
            emit=run.emit,
            stopping=lambda: _stopping(run),
        )
        run_search(job, run.trials)
        if not _stopping(run) and not common_failure(run.trials):
            confirm(job, run.trials, run.options.command)


def _needed(run: _Run) -> Selection:
    """Return the plugins that trials can name: a worker that imported all others too would start seconds later."""
    sources = [branch.source.get("distribution", "") for branch in run.experiment.space.branches()]
    return run.registry.selection.only([*sources, run.data.choice.offer.distribution])


def _stopping(run: _Run) -> bool:
    """Return whether the run was asked to stop; say so the first time, because an epoch may take a while to end."""
    if run.request() and not run.request.told:
        run.request.told = True
        run.emit(events.Warned(message="stopping after the epochs that are running; Ctrl-C again stops at once"))
    return run.request()


def _ending(run: _Run) -> tuple[str, ExitCode]:
    """Return in words how a run ended that was not broken off, and its exit code."""
    if run.request.signal is not None:
        run.emit(events.RunInterrupted(reason=run.request.signal.name))
        by_key = run.request.signal == signal.SIGINT
        return "interrupted", ExitCode.INTERRUPTED if by_key else ExitCode.TERMINATED
    if common_failure(run.trials):
        cause = common_failure(run.trials)
        return f"stopped: cause '{cause}' in {TOO_MANY} of the first {FIRST_TRIALS} trials", ExitCode.TOO_MANY_FAILURES
    if not any(trial.state == "complete" for trial in run.trials):
        return "no trial succeeded", ExitCode.NO_TRIAL_SUCCEEDED
    return "done", ExitCode.DONE


def _say_finished(run: _Run, outcome: str, code: ExitCode, start: float) -> None:
    counts = dict(Counter(trial.state for trial in run.trials))
    seconds = time.monotonic() - start
    run.emit(events.RunFinished(outcome=outcome, exit_code=int(code), counts=counts, seconds=seconds))


# --- what is written down -----------------------------------------------------------------------------------------


def rule_of(spec: ExperimentSpec) -> str:
    """Return in a sentence what "best" means in a run of `spec`."""
    metric = spec.search.metric[0]
    better = "higher" if higher_is_better(metric) else "lower"
    rule = f"{metric} at the last epoch of the full budget, {better} is better; pruned trials rank below finished ones"
    seeds = spec.confirm.seeds
    return f"{rule}; among confirmed plans the mean over {seeds} fresh seeds decides, those that have all of them first"


def _started(
    experiment: Experiment, data: Data, machine: Machine, portion: Share, registry: Registry, path: Path
) -> events.RunStarted:
    spec = experiment.spec
    return events.RunStarted(
        run=path.name,
        experiment=spec.name,
        directory=str(path),
        seed=spec.seed,
        dataset=data.choice.record.name,
        fallback=data.fallback and f"{experiment.dataset.record.name} is not available: {data.fallback}",
        trials=spec.search.trials,
        epochs=experiment.space.epochs,
        parallel=portion.parallel,
        devices=str(machine),
        metric=spec.search.metric[0],
        rule=rule_of(spec),
        algorithm=spec.search.algorithm,
        scheduler=spec.search.scheduler,
        plugins=registry.versions(),
    )


def run_record(
    experiment: Experiment, data: Data, machine: Machine, portion: Share, registry: Registry, command: str
) -> Mapping[str, Any]:
    """Return the content of `run.json`: everything needed to say what was done and to do it again."""
    spec = experiment.spec
    return {
        "experiment": spec_json(spec),
        "seed": spec.seed,
        "metric": spec.search.metric[0],
        "metrics": list(spec.search.metric),
        "rule": rule_of(spec),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "dataset": _dataset_record(experiment, data),
        "plugins": registry.versions(),
        "plugin_files": {file.name: file.version for file in registry.selection.files},
        "plugins_not_loaded": {p.title: p.reason for p in registry.plugins if p.status != "ok"},
        "machine": _machine_record(machine, portion),
        "versions": _versions(),
        "code_sha256": _code_digest(),
    }


def _dataset_record(experiment: Experiment, data: Data) -> Mapping[str, Any]:
    how = "stratified" if data.fallback else experiment.spec.data.split
    return {
        "name": data.choice.record.name,
        "requested": experiment.dataset.record.name,
        "fallback": data.fallback,
        "plugin": data.choice.offer.qualified,
        "version": data.choice.offer.version,
        "source": data.info.source,
        "sha256": dict(data.info.sha256),
        "train": len(data.division.train),
        "validation": len(data.division.validation),
        "test": data.info.test_count,
        "split": how,
        "split_sha256": data.division.digest(),
        "validation_indices": data.division.validation.tolist(),
    }


def _machine_record(machine: Machine, portion: Share) -> Mapping[str, Any]:
    return {
        "device": str(machine),
        "processor": platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "parallel": portion.parallel,
        "cpus_per_trial": portion.cpus,
        "gpus_per_trial": portion.gpus,
    }


def _versions() -> Mapping[str, str]:
    names = ("torch", "torchvision", "ray", "optuna", "numpy", "pydantic", "pluggy", "safetensors")
    python = ".".join(map(str, sys.version_info[:3]))
    return {"mnistlab": __version__, "python": python, **{name: version(name) for name in names}}


def _code_digest() -> str:
    """Return the sha256 of this package's own source files, in the order of their names."""
    root, whole = Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        whole.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()
