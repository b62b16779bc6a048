"""A run's Optuna study: its file, and how a parameter of ours is asked of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import optuna
import sqlalchemy.event
from optuna.study import StudyDirection
from optuna.trial import Trial
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from mnistlab.api import Choice, Float, Scalar
from mnistlab.errors import RunWriteError
from mnistlab.results import higher_is_better
from mnistlab.seeds import Stream, derive
from mnistlab.space import Parameter, Space
from mnistlab.spec import ExperimentSpec
from mnistlab.tuning.samplers import Settings, sampler

BUSY_SECONDS = 30.0  # that another program, as one that looks at the study, may keep it locked


def open_study(path: Path, spec: ExperimentSpec, space: Space) -> optuna.Study:
    """Create the Optuna study of a run in the SQLite file `path`, which optuna-dashboard opens.

    Raises:
        RunWriteError: if SQLite refuses, then or whenever the study is asked or told later: the disk is full, or
            another program has locked the file for longer than SQLite waits.
    """
    # Built, not formatted: a path may hold signs that mean something in an address.
    address = sqlalchemy.engine.URL.create("sqlite", database=str(path))
    try:
        patience = {"connect_args": {"timeout": BUSY_SECONDS}}
        storage = optuna.storages.RDBStorage(address.render_as_string(hide_password=False), engine_kwargs=patience)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise RunWriteError(f"can't write {path}: {_reason(error)}") from error
    # The study can be rebuilt from the events, so it need not wait for the disk at each of its many small commits.
    sqlalchemy.event.listen(storage.engine, "connect", _relax)
    sqlalchemy.event.listen(storage.engine, "handle_error", partial(_refuse, path))
    storage.engine.dispose()
    return new_study(spec, space, storage)


def new_study(spec: ExperimentSpec, space: Space, storage: optuna.storages.BaseStorage | None = None) -> optuna.Study:
    """Create the study of an experiment, with its sampler; without a `storage` it is in memory."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = derive(spec.seed, Stream.SAMPLER)
    directions = [
        StudyDirection.MAXIMIZE if higher_is_better(metric) else StudyDirection.MINIMIZE
        for metric in spec.search.metric
    ]
    return optuna.create_study(
        storage=storage,
        study_name=spec.name,
        sampler=sampler(spec.search.algorithm, seed, spec.search.trials, settings_of(space)),
        directions=directions,
    )


def _refuse(path: Path, about: sqlalchemy.engine.ExceptionContext) -> None:
    """Say in our words that SQLite refuses: Optuna would take it for a fault of its own."""
    if type(about.sqlalchemy_exception) in {OperationalError, DatabaseError}:  # the latter where it is malformed
        raise RunWriteError(f"can't write {path}: {about.original_exception}") from about.original_exception


def _reason(error: Exception) -> str:
    """Return SQLite's own words, without those of the two libraries around them."""
    behind: BaseException | None = error
    while behind and not isinstance(behind, sqlite3.Error):
        behind = getattr(behind, "orig", None) or behind.__cause__ or behind.__context__
    return str(behind or error)


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


def settings_of(space: Space) -> Settings:
    """Return every setting of a space, of all its branches, as `ask` asks Optuna for it."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))  # in memory: nobody sees it
    enqueue(study, space, {parameter.path: parameter.default for parameter in space.parameters()})
    trial = study.ask()
    for parameter in space.parameters():
        ask(trial, parameter)
    return Settings(trial.distributions, trial.params)


def enqueue(study: optuna.Study, space: Space, point: Mapping[str, Scalar]) -> None:  # noqa: ARG001
    """Let the study propose a point of the space next; parameters that it leaves out are sampled."""
    study.enqueue_trial(dict(point))
