"""Confirmation: the best plans re-trained on fresh seeds, then the sealed test set, opened once and on the record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from mnistlab import events
from mnistlab.results import ReplicateResult, TestScore, TrialResult
from mnistlab.seeds import replicate_seed
from mnistlab.tuning.driver import Lost, Search, best_trials, run_tasks
from mnistlab.tuning.worker import (
    ReplicateAnswer,
    ReplicateProgress,
    ReplicateTask,
    TestAnswer,
    TestTask,
    evaluate_on_test,
    train_replicate,
)


@dataclass(frozen=True)
class _Trained:
    """A replicate that was trained, with its weights."""

    task: ReplicateTask
    result: ReplicateResult
    weights: bytes


def confirm(search: Search, trials: Sequence[TrialResult], command: str) -> None:
    """Re-train the best of `trials` on fresh seeds in parallel, then evaluate all of those models on the test set.

    Which plans are confirmed is decided by validation alone; the test set is opened once, after everything that could
    be chosen has been chosen. Nothing is opened if the run was asked to stop.
    """
    chosen = best_trials(trials, search.spec.search.metric[0], search.spec.confirm.top)
    if not chosen:
        return
    seeds = search.spec.confirm.seeds
    search.emit(events.ConfirmationStarted(trials=tuple(trial.trial for trial in chosen), seeds=seeds))
    tasks = [
        ReplicateTask(trial.trial, number, replicate_seed(search.spec.seed, number), dict(trial.plan))
        for number in range(1, seeds + 1)  # seeds first, so that plans stay comparable if the run is cut short
        for trial in chosen
    ]
    trained = _train(search, tasks)
    if trained and not search.stopping():
        _open_test_set(search, trained, command)


def _train(search: Search, tasks: Sequence[ReplicateTask]) -> list[_Trained]:
    """Train `tasks` in parallel; return those that came to something."""
    trained: list[_Trained] = []

    def say_started(task: ReplicateTask) -> None:
        search.emit(events.ReplicateStarted(trial=task.trial, replicate=task.replicate, seed=task.seed))

    for task, answer in run_tasks(search, train_replicate, tasks, started=say_started, stopping=search.stopping):
        if isinstance(answer, ReplicateProgress):
            about: dict[str, Any] = {"trial": task.trial, "replicate": task.replicate, **asdict(answer)}
            search.emit(events.ReplicateEpoch(**about))
        else:
            trained += filter(None, [_keep(search, task, answer)])
    return trained


def _keep(search: Search, task: ReplicateTask, answer: ReplicateAnswer | Lost) -> _Trained | None:
    """Write an answer into the run directory and say so; return what was trained, if anything was."""
    if isinstance(answer, Lost):
        answer = ReplicateAnswer(cause="worker", message=answer.message)
    result = _result(task, answer)
    log = answer.log and f"\n[replicate {task.replicate}]\n{answer.log}"
    search.store.append_log(task.trial, log, final=bool(answer.cause))
    search.store.write_replicate(result, answer.weights or None)
    about: dict[str, Any] = {"trial": task.trial, "replicate": task.replicate, "seed": task.seed}
    if answer.cause:
        search.emit(events.ReplicateFailed(**about, cause=answer.cause, message=answer.message))
        return None
    search.emit(events.ReplicateFinished(**about, metrics=result.metrics, seconds=result.seconds))
    return _Trained(task, result, answer.weights)


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
        val_correct=_digits(answer.correct),
        cost=answer.cost,
        cause=answer.cause,
        message=answer.message,
    )


def _digits(correct: npt.NDArray[np.bool_] | None) -> str:
    """Return one digit an image: 1 where it was classified correctly."""
    return "" if correct is None else (correct.astype(np.uint8) + ord("0")).tobytes().decode()


def _open_test_set(search: Search, trained: Sequence[_Trained], command: str) -> None:
    """Open the test set, once: first say so in the ledger, then evaluate every model on it, in the workers."""
    search.store.append_ledger(
        {
            "type": "opened",
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "dataset": search.shared.dataset,
            "models": [_about(one.result) for one in trained],
        }
    )
    trials = tuple(dict.fromkeys(one.task.trial for one in trained))
    search.emit(events.TestOpened(trials=trials, models=len(trained), count=1))
    results = {(one.task.trial, one.task.replicate): one.result for one in trained}
    tasks = [TestTask(one.task, one.weights) for one in trained]
    # What has been opened is evaluated to its end, whoever asks to stop now: it takes seconds.
    for task, answer in run_tasks(search, evaluate_on_test, tasks):
        _score(search, results[task.replicate.trial, task.replicate.replicate], answer)


def _score(search: Search, result: ReplicateResult, answer: TestAnswer | Lost) -> None:
    """Write a model's score into the ledger and into its result; a model that broke on the test set is a warning."""
    if isinstance(answer, Lost) or answer.correct is None:
        message = answer.message
        place = f"trial {result.trial}, replicate {result.replicate}"
        search.store.append_ledger({"type": "failed", **_about(result), "message": message})
        search.emit(events.Warned(message=f"{place} could not be evaluated on the test set: {message}"))
        return
    score = TestScore(correct=int(answer.correct.sum()), images=len(answer.correct), loss=answer.loss)
    search.store.append_ledger({"type": "evaluated", **_about(result), "correct": score.correct})
    search.store.write_replicate(replace(result, test=score, test_correct=_digits(answer.correct)))


def _about(result: ReplicateResult) -> dict[str, Any]:
    return {
        "trial": result.trial,
        "replicate": result.replicate,
        "seed": result.seed,
        "weights_sha256": result.weights_sha256,
    }
