"""A run's Optuna study: its file, and how a parameter of ours is asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import optuna
import sqlalchemy.event
from optuna.study import StudyDirection
from optuna.trial import Trial

from mnistlab.api import Choice, Float, Scalar
from mnistlab.results import higher_is_better
from mnistlab.seeds import Stream, derive
from mnistlab.space import Parameter
from mnistlab.spec import ExperimentSpec
from mnistlab.tuning.samplers import sampler


def open_study(path: Path, spec: ExperimentSpec) -> optuna.Study:
    """Create the Optuna study of a run in the SQLite file `path`, which optuna-dashboard opens."""
    with_sampler = sampler(spec.search.algorithm, derive(spec.seed, Stream.SAMPLER), spec.search.trials)
    # Built, not formatted: a path may hold signs that mean something in an address.
    address = sqlalchemy.engine.URL.create("sqlite", database=str(path))
    storage = optuna.storages.RDBStorage(address.render_as_string(hide_password=False))
    # The study can be rebuilt from the events, so it need not wait for the disk at each of its many small commits.
    sqlalchemy.event.listen(storage.engine, "connect", _relax)
    storage.engine.dispose()
    directions = [
        StudyDirection.MAXIMIZE if higher_is_better(metric) else StudyDirection.MINIMIZE
        for metric in spec.search.metric
    ]
    return optuna.create_study(storage=storage, study_name=spec.name, sampler=with_sampler, directions=directions)


def _relax(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def ask(trial: Trial, parameter: Parameter) -> Scalar:
    """Return what Optuna proposes for a parameter."""
    domain = parameter.domain
    if isinstance(domain, Choice):
        return cast("Scalar", trial.suggest_categorical(parameter.path, list(domain.options)))
    if isinstance(domain, Float):
        return trial.suggest_float(parameter.path, domain.low, domain.high, log=domain.log, step=domain.step)
    return trial.suggest_int(parameter.path, domain.low, domain.high, log=domain.log, step=domain.step)
