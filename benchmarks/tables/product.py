"""mnistlab's own search on a table: its driver, searcher, scheduler, recorder and loop; only workers are looked up."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from optuna.samplers import BaseSampler

from mnistlab.experiment.earlier import Earlier
from mnistlab.experiment.loader import Experiment
from mnistlab.experiment.portfolio import looks_of
from mnistlab.plugins.registry import Registry
from mnistlab.store import RunWriter
from mnistlab.store.results import TrialResult
from mnistlab.tuning import driver, study
from mnistlab.tuning.context import Executor, Parts, Search
from mnistlab.tuning.local_loop import Happening, Loop, LoopTrial, Steps
from mnistlab.tuning.resources import Share
from mnistlab.tuning.samplers import About, sampler
from mnistlab.tuning.schedulers.halving import rungs_of
from tables.clock import Clock, Ended, Searched
from tables.table import FULL, Snapped, Table

MEMORY = Path("/dev/shm")


class Worker:
    """Trains a plan by looking up the training of the nearest budget."""

    def __init__(self, table: Table, config: dict[str, Any], seed: int) -> None:
        """Begin a task. A plan has one of the table's two seeds in a search, another one in another."""
        task = json.loads(config["task"])
        self.plan, self.seed, self.budget = task["plan"], task["seed"], float(task.get("budget", FULL))
        self.complete = "budget" not in task
        self.row = table.nearest(self.plan)
        budget = min(table.budgets, key=lambda one: abs(math.log(one / self.budget)))
        training = self.row.trainings[budget, (seed + self.row.number) % 2]
        self.epochs, self.failed, self.at = training.epochs, training.failed, 0
        self.cost = min(1.0, budget)  # of each of its epochs

    @property
    def seconds(self) -> float:
        """Return what the next epoch takes."""
        return self.epochs[self.at][2] if self.at < len(self.epochs) else 0.0

    def step(self) -> dict[str, Any]:
        """Return the report of the next epoch."""
        about = {"plan": json.dumps(self.plan), "seed": self.seed, "log": "", "epochs": max(1, len(self.epochs))}
        about |= {} if self.complete else {"budget": self.budget}
        if self.at >= len(self.epochs):
            return {**about, "epoch": self.at, "cause": "nan", "message": self.failed, "done": True}
        accuracy, loss, seconds = self.epochs[self.at]
        self.at += 1
        metrics = {"val_accuracy": accuracy, "val_loss": loss, "train_loss": loss, "seconds": seconds}
        metrics["images_per_second"] = 1 / max(seconds, 1e-3)
        done = self.at >= len(self.epochs) and not self.failed
        return {**about, **metrics, "epoch": self.at, "done": done, "parameters": 1, "metrics": json.dumps(metrics)}


class TableLoop(Loop):
    """The product's own loop over a clock."""

    def __init__(self, parts: Parts, workers: int, table: Table, seed: int, found: Searched) -> None:
        """Note in `found` what comes of the search."""
        super().__init__(parts, workers)
        self._table, self._seed, self._found, self._clock = table, seed, found, Clock()

    def _new_trial(self, config: dict[str, Any]) -> LoopTrial:
        return LoopTrial(f"t_{len(self._trials):05}", config)

    def _worker(self, trial: Any) -> Steps:
        worker = trial.worker or Worker(self._table, trial.config, self._seed)
        self._found.proposed.add(worker.row.number)
        return worker

    def _later(self, what: Happening, trial: Any) -> None:
        self._clock.later(trial.worker.seconds if what == "report" else 0.0, (what, trial))

    def _next(self) -> Any:
        return self._clock.next()

    def _report(self, trial: Any) -> None:
        worker: Worker = trial.worker
        self._clock.spent += worker.cost if worker.at < len(worker.epochs) else 0.0
        super()._report(trial)
        if worker.at == len(worker.epochs) and not worker.failed:
            value = worker.epochs[-1][0]
            ended = Ended(self._clock.spent, self._clock.now, worker.row.number, value, worker.complete)
            self._found.ended.append(ended)


def search(
    table: Table, wanted: Experiment, registry: Registry, workers: int, earlier: tuple[Earlier, ...] = ()
) -> tuple[Searched, list[TrialResult]]:
    """Return what the search that an experiment describes finds in a table, and how its trials ended."""
    found, ended = Searched(), list[TrialResult]()

    def run(_: Search, parts: Parts) -> None:
        TableLoop(parts, workers, table, wanted.spec.seed, found).run()

    def snapped(algorithm: Any, seed: int, about: About) -> BaseSampler:
        return Snapped(sampler(algorithm, seed, about), table, about.settings)

    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.exists() else None) as folder:
        writer = RunWriter(Path(folder))
        with patch.object(study, "sampler", snapped):
            looks = looks_of(wanted.spec.search, earlier)
            in_memory = study.new_study(wanted.spec, wanted.space, earlier, looks)
        with patch.object(driver, "_fresh_study", return_value=in_memory):
            driver.run_search(_job(table, wanted, registry, writer, workers, run, earlier), ended)
        writer.close()
    return found, ended


def _job(
    table: Table,
    wanted: Experiment,
    registry: Registry,
    writer: RunWriter,
    workers: int,
    run: Any,
    earlier: tuple[Earlier, ...],
) -> Search:
    nothing: Any = None
    executor = Executor(
        check=nothing,
        preparing=nothing,
        joined=nothing,
        portion=nothing,
        alive=nothing,
        put=nothing,
        run=run,
        leftover=nothing,
        streams=nothing,
    )
    return Search(
        spec=wanted.spec,
        space=wanted.space,
        shared=nothing,
        share=Share(1, 0.0, workers),
        room=None,
        registry=registry,
        store=writer,
        emit=lambda _: None,
        stopping=lambda: False,
        looks=looks_of(wanted.spec.search, earlier),
        rungs=rungs_of(wanted.spec, wanted.space, table.images),
        earlier=earlier,
        executor=executor,
    )
