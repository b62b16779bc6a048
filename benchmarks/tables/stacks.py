"""Searches as the documents of other tools show them, on a table and over a clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from mnistlab.experiment.space import suggest
from mnistlab.tuning import study
from tables.clock import Clock, Ended, Searched
from tables.table import FULL, Row, Snapped, Table, Training

GRACE, FACTOR = 1, 4  # of AsyncHyperBandScheduler
Judgement = Literal["goes on", "pruned", "complete"]
Judge = Callable[[optuna.Trial, int, float], Judgement]


@dataclass
class _Live:
    """A trial that is being trained, after `at` epochs."""

    trial: optuna.Trial
    row: Row
    training: Training
    at: int = 0


def _asked(table: Table, made: optuna.Study, judge: Judge, seed: int, workers: int, trials: int) -> Searched:
    """Search by ask and tell. `judge(trial, epoch, value)` says after each epoch but the last what becomes of it."""
    found, clock, begun, live = Searched(), Clock(), 0, 0
    while True:
        while begun < trials and live < workers:
            _begin(table, made, seed, clock, found)
            begun, live = begun + 1, live + 1
        one: _Live | None = clock.next()
        if one is None:
            return found
        if _goes_on(one, made, judge, clock, found):
            _train(one, clock)
        else:
            live -= 1


def _begin(table: Table, made: optuna.Study, seed: int, clock: Clock, found: Searched) -> None:
    trial = made.ask()
    row = table.nearest(suggest(table.space, lambda parameter: study.ask(trial, parameter)))
    found.proposed.add(row.number)
    _train(_Live(trial, row, row.trainings[FULL, (seed + row.number) % 2]), clock)


def _train(one: _Live, clock: Clock) -> None:
    """Let the next epoch end when it does; a training that fails then ends at once."""
    epochs = one.training.epochs
    clock.later(epochs[one.at][2] if one.at < len(epochs) else 0.0, one)


def _goes_on(one: _Live, made: optuna.Study, judge: Judge, clock: Clock, found: Searched) -> bool:
    """Tell what the epoch that has just ended showed; return whether another one follows."""
    if one.at >= len(one.training.epochs):
        made.tell(one.trial, state=TrialState.FAIL)
        return False
    value = one.training.epochs[one.at][0]
    one.at, clock.spent = one.at + 1, clock.spent + 1
    last = one.at == FULL
    judgement = "complete" if last else judge(one.trial, one.at, value)
    if judgement == "complete":
        made.tell(one.trial, value)
        found.ended.append(Ended(clock.spent, clock.now, one.row.number, value, last))
    elif judgement == "pruned":
        made.tell(one.trial, state=TrialState.PRUNED)
    return judgement == "goes on"


def _study(table: Table, sampler: BaseSampler, *, median: bool = False) -> optuna.Study:
    about = study.settings_of(table.space)
    pruner = MedianPruner() if median else NopPruner()
    return optuna.create_study(direction="maximize", sampler=Snapped(sampler, table, about), pruner=pruner)


def _never(_trial: optuna.Trial, _epoch: int, _value: float) -> Judgement:
    return "goes on"


def random_search(table: Table, seed: int, workers: int, trials: int) -> Searched:
    """Random plans, each in full."""
    return _asked(table, _study(table, RandomSampler(seed)), _never, seed, workers, trials)


def tpe_median(table: Table, seed: int, workers: int, trials: int) -> Searched:
    """Optuna's defaults: TPE, and its median pruner."""

    def judge(trial: optuna.Trial, epoch: int, value: float) -> Judgement:
        trial.report(value, epoch)
        return "pruned" if trial.should_prune() else "goes on"

    return _asked(table, _study(table, TPESampler(seed=seed), median=True), judge, seed, workers, trials)


def asha(table: Table, seed: int, workers: int, trials: int) -> Searched:
    """Ray Tune's ASHA with Optuna's TPE, which is told a trial that was stopped as complete."""
    rungs: dict[int, list[float]] = {GRACE: [], GRACE * FACTOR: []}

    def judge(_: optuna.Trial, epoch: int, value: float) -> Judgement:
        if epoch not in rungs:
            return "goes on"
        earlier = rungs[epoch]
        stops = bool(earlier) and value < float(np.percentile(earlier, 100 * (1 - 1 / FACTOR)))
        earlier.append(value)
        return "complete" if stops else "goes on"

    return _asked(table, _study(table, TPESampler(seed=seed)), judge, seed, workers, trials)


def first_look(table: Table, seed: int, workers: int, trials: int, keep: int) -> Searched:
    """All plans for one epoch, then only the best `keep` go on to the end (R. Egele and others 2023)."""
    draw = np.random.default_rng(seed)
    rows = [table.rows[number] for number in draw.permutation(len(table.rows))[:trials]]
    found, clock, live = Searched(proposed={row.number for row in rows}), Clock(), 0
    waiting: list[tuple[Row, bool]] = [(row, False) for row in rows]
    values: dict[int, float] = {}
    while True:
        while waiting and live < workers:
            row, chosen = waiting.pop(0)
            epochs = row.trainings[FULL, (seed + row.number) % 2].epochs
            part = epochs[1:] if chosen else epochs[:1]
            live += 1
            clock.later(sum(epoch[2] for epoch in part), (row, chosen, part))
        happening: Any = clock.next()
        if happening is None:
            return found
        row, chosen, part = happening
        live, clock.spent = live - 1, clock.spent + len(part)
        if chosen:
            if len(part) == FULL - 1:
                found.ended.append(Ended(clock.spent, clock.now, row.number, part[-1][0], complete=True))
            continue
        values[row.number] = part[0][0] if part else 0.0
        if len(values) == len(rows):
            best = sorted(values, key=lambda number: -values[number])[:keep]
            waiting += [(table.rows[number], True) for number in best]
