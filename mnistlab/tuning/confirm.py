"""Confirmation: the best plans re-trained on fresh seeds, then the sealed test set, opened once and on the record.

A later confirmation adds to what an earlier one has left: it trains what is missing, and opens the test set for models
that have not been evaluated. What was asked for beyond the experiment's own confirmation is on the record, so that it
can be gone on with if it was cut off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mnistlab import events
from mnistlab.leaderboard.racing import LEAST, Beaten, beaten, confidence_of
from mnistlab.store import pack_per_image, read_run, read_weights, with_per_image
from mnistlab.store.layout import LOG, in_trial
from mnistlab.store.results import REFIT, ReplicateResult, RunRecord, TrialResult
from mnistlab.tuning.confirm_work import Work, left_of, work_of
from mnistlab.tuning.context import Search
from mnistlab.tuning.opening import (
    Trained,
    append_log,
    champion_of,
    digits,
    evaluate_together,
    now,
    open_test_set,
    say_anew,
    split_of,
    task_again,
    with_split,
)
from mnistlab.tuning.tasks import Lost, run_tasks
from mnistlab.tuning.worker.replicate import ReplicateAnswer, ReplicateProgress, ReplicateTask, train_replicate
from mnistlab.util.seeds import Stream, derive


def confirm(search: Search, trials: Sequence[TrialResult], command: str, before: RunRecord | None = None) -> None:
    """Re-train the best of `trials` and the plan of all defaults on fresh seeds, then evaluate all on the test set.

    Which plans are confirmed is decided by validation alone; the test set is opened once, after everything that could
    be chosen has been chosen. Nothing is opened if the run was asked to stop. `before` is what the run holds already.
    """
    work = work_of(search.spec, search.space, trials, before)
    if not work.done:
        _carry_out(search, work, command, before)


def go_on(search: Search, trials: Sequence[TrialResult], command: str) -> None:
    """Go on with a confirmation that asked for more than the experiment does and was cut off, if there is one."""
    before = read_run(search.store.path)
    if work := left_of(search.spec, trials, before):
        _carry_out(search, work, command, before)


def _carry_out(search: Search, work: Work, command: str, before: RunRecord | None) -> None:
    names, seeds = tuple(trial.trial for trial in work.trials), work.seeds
    for number in sorted({task.replicate for task in work.tasks}):
        search.split(number)  # one that can't be drawn is told before anything is written that has to be gone on with
    planned = {"type": "planned", "time": now(), "command": command, "trials": list(names), "seeds": seeds}
    search.store.append_confirmation({**planned, **work.chosen.said})
    search.emit(events.ConfirmationStarted(trials=names, seeds=seeds, baseline=work.chosen.baseline))
    train = _race if search.spec.confirm.racing else _train_all
    plans = {trial.trial: dict(trial.plan) for trial in work.trials}
    trained = [*_from_disk(search, work.untested, plans), *train(search, work)]
    if search.spec.confirm.refit and not search.stopping():
        trained += _refit(search, work)
    if not trained and work.ensemble_due and not search.stopping():
        evaluate_together(search, work.ensemble_due, command)
    if trained and not search.stopping():
        open_test_set(search, trained, command, count=(before.test_openings if before else 0) + 1)


# --- training -----------------------------------------------------------------------------------------------------


def _from_disk(search: Search, models: Sequence[ReplicateResult], plans: Mapping[str, dict[str, Any]]) -> list[Trained]:
    """Return `models`, which were trained before, with the weights that were kept; `plans` by their trials' names.

    Raises:
        RunDirectoryError: if these are not the weights that were written, or its split is not drawn alike any more.
    """
    found: list[Trained] = []
    for one in models:
        task = task_again(search, one, plans[one.trial])
        found.append(Trained(task, one, read_weights(search.store.path, one)))
    return found


def _train_all(search: Search, work: Work) -> list[Trained]:
    return _train(search, work.tasks)


def _race(search: Search, work: Work) -> list[Trained]:
    """Train seed by seed; after each, from the third on, plans that can no longer win get no more of them.

    A round is a seed, however many workers there are, so that the same results drop the same plans everywhere, and
    wherever a race was cut off: each look sees the seeds up to its own, or those that all who are left had before.
    The plan of all defaults stays in, however it does: what the search has gained over it is told over all seeds.
    """
    seeds, metric = work.seeds, search.spec.search.metric[0]
    confidence = confidence_of(len(work.trials), seeds, work.earlier)
    alive = [trial.trial for trial in work.trials if trial.trial not in work.out]
    before = min((task.replicate - 1 for task in work.tasks), default=seeds)  # seeds that all of them had before
    trained: list[Trained] = []
    for first, last in [(1, min(LEAST, seeds)), *((n, n) for n in range(LEAST + 1, seeds + 1))]:
        trained += _train(search, [t for t in work.tasks if t.trial in alive and first <= t.replicate <= last])
        if search.stopping():
            break
        seen = max(last, before)
        every = [*work.known, *(new.result for new in trained)]
        good = [one for one in every if not one.cause and one.replicate <= seen]
        found = beaten({name: [one for one in good if one.trial == name] for name in alive}, metric, confidence)
        for loser in found if seen < seeds else ():
            if loser.trial != work.chosen.baseline:
                alive.remove(loser.trial)
                _drop(search, loser)
    return trained


def _drop(search: Search, loser: Beaten) -> None:
    """Write down, and say, that a plan has left the race."""
    gap = loser.difference
    about: dict[str, Any] = {"trial": loser.trial, "leader": loser.leader, "seeds": loser.seeds}
    about |= {"difference": gap.mean, "low": gap.interval.low, "high": gap.interval.high}
    about |= {"confidence": loser.confidence, "seeds_only": loser.seeds_only}
    search.store.append_confirmation({"type": "dropped", "time": now(), **about})
    search.emit(events.PlanDropped(**about))


def _train(search: Search, tasks: Sequence[ReplicateTask]) -> list[Trained]:
    """Train `tasks` in parallel; return those that came to something."""
    trained: list[Trained] = []

    def say_started(task: ReplicateTask) -> None:
        search.emit(events.ReplicateStarted(trial=task.trial, replicate=task.replicate, seed=task.seed))

    limit = search.spec.search.trial_timeout  # a replicate is a training of the same budget
    anew = partial(say_anew, search)
    tasks = [with_split(search, task) for task in tasks]
    for task, answer in run_tasks(
        search, train_replicate, tasks, started=say_started, anew=anew, limit=limit, stopping=search.stopping
    ):
        if isinstance(answer, ReplicateProgress):
            about: dict[str, Any] = {"trial": task.trial, "replicate": task.replicate, "epoch": answer.epoch}
            search.emit(events.ReplicateEpoch(**about, epochs=answer.epochs, metrics=answer.metrics))
        else:
            trained += filter(None, [_keep(search, task, answer)])
    return trained


def _refit(search: Search, work: Work) -> list[Trained]:
    """Train the champion, which validation has chosen by now, on training and validation images together.

    For as many epochs as ever, to the last one: nothing is left to choose by. One that was tried is not tried again,
    whichever confirmation that was in; if it was cut off there before the test set was opened, its model is returned.
    """
    record = read_run(search.store.path)
    plans = {trial.trial: dict(trial.plan) for trial in record.plans}  # it may be one of an earlier confirmation
    if not (name := champion_of(search, record)):
        return []
    seed = derive(search.spec.seed, Stream.REFIT)
    if before := [one for one in record.refits if one.trial == name]:
        there = {one.trial for one in work.refits}  # among the models that the test set is to be opened for
        return [] if name in there else _from_disk(search, work.untested_of(before), plans)
    search.emit(events.RefitStarted(trial=name, seed=seed))
    task = ReplicateTask(name, REFIT, seed, plans[name])
    anew = partial(say_anew, search)
    said = [said for _, said in run_tasks(search, train_replicate, [task], anew=anew, stopping=search.stopping)]
    last = said[-1] if said else None
    return [] if last is None or isinstance(last, ReplicateProgress) else _keep_refit(search, task, last)


def _answer_of(said: ReplicateAnswer | Lost) -> ReplicateAnswer:
    """Return the answer of a replicate that may have lost its worker."""
    return ReplicateAnswer(cause=said.cause, message=said.message, log=said.log) if isinstance(said, Lost) else said


def _keep_refit(search: Search, task: ReplicateTask, answer: ReplicateAnswer | Lost) -> list[Trained]:
    """Write a refit into the run directory, without what was measured on images that it was trained on."""
    answer = _answer_of(answer)
    history = [{key: value for key, value in epoch.items() if not key.startswith("val_")} for epoch in answer.history]
    result = _result(task, replace(answer, history=tuple(history), correct=None, per_image={}))
    append_log(search, task, answer)
    search.store.write_replicate(result, answer.weights or None)
    if answer.cause:
        said = f"the refit of trial {task.trial} came to nothing ({answer.cause}): {answer.message}"
        search.emit(events.Warned(message=said))
        return []
    about: dict[str, Any] = {"metrics": result.metrics, "seconds": result.seconds}
    search.emit(events.RefitFinished(trial=task.trial, seed=task.seed, **about))
    return [Trained(task, result, answer.weights)]


def _keep(search: Search, task: ReplicateTask, answer: ReplicateAnswer | Lost) -> Trained | None:
    """Write an answer into the run directory and say so; return what was trained, if anything was."""
    answer = _answer_of(answer)
    wanted = {"val_loss", *search.spec.search.metric}
    values, known = pack_per_image({name: ones for name, ones in answer.per_image.items() if name in wanted})
    result = replace(_result(task, answer), per_image=known)
    append_log(search, task, answer)
    result = with_per_image(result, search.store.write_replicate(result, answer.weights or None, values))
    about: dict[str, Any] = {"trial": task.trial, "replicate": task.replicate, "seed": task.seed}
    if answer.cause:
        log = in_trial(task.trial, LOG)
        search.emit(events.ReplicateFailed(**about, cause=answer.cause, message=answer.message, log=log))
        return None
    search.emit(events.ReplicateFinished(**about, metrics=result.metrics, seconds=result.seconds))
    return Trained(task, result, answer.weights)


def _result(task: ReplicateTask, answer: ReplicateAnswer) -> ReplicateResult:
    last = answer.history[-1] if answer.history else {}
    return ReplicateResult(
        trial=task.trial,
        replicate=task.replicate,
        seed=task.seed,
        metrics={**last, "parameters": answer.parameters} if last else {},
        history=answer.history,
        seconds=sum(epoch["seconds"] for epoch in answer.history),
        weights_sha256=hashlib.sha256(answer.weights).hexdigest() if answer.weights else "",
        val_correct=digits(answer.correct),
        split=split_of(task),
        cost=answer.cost,
        cause=answer.cause,
        message=answer.message,
    )
