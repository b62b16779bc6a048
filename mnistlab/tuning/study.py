"""A run's Optuna study: its file, and how a parameter of ours is asked of it."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import optuna
import sqlalchemy.event
from optuna.trial import FrozenTrial, Trial, create_trial
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from mnistlab.api import Choice, Domain, Float, Scalar
from mnistlab.errors import RunWriteError
from mnistlab.experiment.earlier import Earlier
from mnistlab.experiment.points import closest
from mnistlab.experiment.portfolio import first_looks
from mnistlab.experiment.space import Parameter, Space
from mnistlab.experiment.spec import ExperimentSpec
from mnistlab.store.metric import Metric
from mnistlab.store.schedulers import traits_of
from mnistlab.tuning.samplers import About, Settings, sampler
from mnistlab.util.seeds import Stream, derive
from mnistlab.util.steps import Steps

BUSY_SECONDS = 30.0  # that another program, as one that looks at the study, may keep it locked


def open_study(
    path: Path, spec: ExperimentSpec, space: Space, earlier: Sequence[Earlier] = (), looks: int = 1
) -> optuna.Study:
    """Create the Optuna study of a run in the SQLite file `path`, which optuna-dashboard opens.

    At most `looks` of its trials are known plans, also of `earlier` runs.

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
    return new_study(spec, space, earlier, looks, storage)


def new_study(
    spec: ExperimentSpec,
    space: Space,
    earlier: Sequence[Earlier] = (),
    looks: int = 1,
    storage: optuna.storages.BaseStorage | None = None,
) -> optuna.Study:
    """Create the study of an experiment, with its sampler; without a `storage` it is in memory."""
    _be_quiet()
    metrics = [Metric(name) for name in spec.search.metric]
    about = About(
        settings_of(space),
        spec.search.trials,
        rungs=traits_of(spec.search.scheduler).retrains,
        known=tuple(_as_told(space, point) for point in islice(first_looks(space, earlier), looks)),
        earlier=tuple(_results(space, earlier, metrics)),
    )
    return optuna.create_study(
        storage=storage,
        study_name=spec.name,
        sampler=sampler(spec.search.algorithm, derive(spec.seed, Stream.SAMPLER), about),
        directions=[metric.direction for metric in metrics],
    )


def _results(space: Space, earlier: Sequence[Earlier], metrics: Sequence[Metric]) -> Iterator[FrozenTrial]:
    """Yield the results of earlier runs as trials, by the share of their run that they beat.

    With several objectives a trial has values and no such share: then only plans are taken.
    """
    if len(metrics) > 1 or not earlier:
        return
    settings = settings_of(space)
    for point, beats in (one for run in earlier for one in run.weighed()):
        yield create_trial(
            value=beats if metrics[0].higher_is_better else 1 - beats,
            params=_as_told(space, point),
            distributions={path: settings.distributions[path] for path in point},
        )


def _be_quiet() -> None:
    """Keep Optuna from saying what a user can't act on."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Optuna computes steps such as 1/3 in decimals, and finds the last one outside the range; `ask` sees to that.
    warnings.filterwarnings("ignore", "The distribution is specified by .* not divisible by `step`")
    warnings.filterwarnings(
        "ignore", "Fixed parameter .* is out of range for distribution FloatDistribution.*, step=[0-9]"
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
    """Return the value of a parameter that Optuna proposes, as the parameter's domain writes it.

    Optuna computes steps in floats and may leave a range by their rounding.
    """
    domain, path = parameter.domain, parameter.path
    if isinstance(domain, Choice):
        named = {told(domain, option): option for option in domain.options}
        return named[cast("Scalar", trial.suggest_categorical(path, list(named)))]
    if isinstance(domain, Float):
        high = _high(domain)
        return closest(domain, trial.suggest_float(path, domain.low, high, log=domain.log, step=domain.step))
    low, high = domain.corners()  # without a rest beyond the last step, of which Optuna would warn
    return closest(domain, trial.suggest_int(path, low, high, log=domain.log, step=domain.step))


def _high(domain: Float) -> float:
    """Return the end of a range for Optuna, which counts steps in decimals and loses the last one to rounding."""
    high = domain.corners()[1]
    if domain.step is None:
        return high
    step, reach = Decimal(repr(domain.step)), Decimal(repr(high)) - Decimal(repr(domain.low))
    steps = Steps(domain.low, domain.high, domain.step)
    return high if reach // step == len(steps) - 1 else high + domain.step / 4


def told(domain: Domain, value: Scalar) -> Scalar:
    """Return what Optuna calls a value: the value, or its text where the options hold both `1` and `True`, or `1.0`.

    Optuna takes values for the same that Python calls equal.
    """
    ambiguous = isinstance(domain, Choice) and len(set(domain.options)) < len(domain.options)
    return repr(value) if ambiguous else value


def enqueue(study: optuna.Study, space: Space, point: Mapping[str, Scalar]) -> None:
    """Let the study propose a point of the space next; parameters that it leaves out are sampled."""
    study.enqueue_trial(_as_told(space, point))


def _as_told(space: Space, point: Mapping[str, Scalar]) -> dict[str, Scalar]:
    domains = {one.path: one.domain for one in space.parameters()}
    return {path: told(domains[path], value) for path, value in point.items()}


def settings_of(space: Space) -> Settings:
    """Return every setting of a space, of all its branches, as `ask` asks Optuna for it."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))  # in memory: nobody sees it
    enqueue(study, space, {parameter.path: parameter.default for parameter in space.parameters()})
    trial = study.ask()
    for parameter in space.parameters():
        ask(trial, parameter)
    return Settings(trial.distributions, trial.params)
