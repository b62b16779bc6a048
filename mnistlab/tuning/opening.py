"""The opening of the sealed test set: once for all models of a confirmation, and on the record.

First the ledger says so, then every model is evaluated by a worker, to the last one, whoever asks to stop meanwhile.
Then the champion's models are evaluated together, as an ensemble. Which plan that is was decided by validation before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from mnistlab import __version__, events
from mnistlab.errors import DamagedError, MnistlabError, RunDirectoryError
from mnistlab.experiment.identity import plan_sha256
from mnistlab.leaderboard import rank
from mnistlab.store import id_of, key_of, note_opening, read_run, read_weights
from mnistlab.store.layout import RESULT, in_trial
from mnistlab.store.results import REFIT, ReplicateResult, RunRecord, Split, TestScore
from mnistlab.tuning.context import Search
from mnistlab.tuning.tasks import Lost, run_tasks
from mnistlab.tuning.usage import DiskLowError, shortage
from mnistlab.tuning.worker.ensemble import EnsembleAnswer, EnsembleTask, evaluate_ensemble
from mnistlab.tuning.worker.messages import Answer
from mnistlab.tuning.worker.replicate import ReplicateTask, TestAnswer, TestTask, evaluate_on_test

Task = ReplicateTask | TestTask | EnsembleTask


@dataclass(frozen=True)
class Trained:
    """A replicate that was trained, with its weights."""

    task: ReplicateTask
    result: ReplicateResult
    weights: bytes


def open_test_set(search: Search, trained: Sequence[Trained], command: str, count: int) -> None:
    """Open the test set, once: first say so in the ledger, then evaluate every model on it, in the workers.

    Raises:
        DiskLowError: before that, where there may not be room for the scores.
    """
    if short := shortage(search.store.path):
        raise DiskLowError(f"{short}, so that the test set stays closed: free some, then `{search.again}`")
    record = read_run(search.store.path)
    team, before = _team(search, record), _runs_before(search, record)
    entry = {"type": "opened", "time": now(), "command": command, "dataset": search.shared.dataset}
    entry |= {"models": [_about(one) for one in trained], "ensemble": team, "runs_before": before}
    search.store.append_ledger(entry)
    trials = tuple(dict.fromkeys(one.task.trial for one in trained))
    search.emit(events.TestOpened(trials=trials, models=len(trained), count=count, runs_before=before))
    ours = {(one.task.trial, one.task.replicate): one for one in trained}
    tasks = [TestTask(one.task, one.weights) for one in trained]
    # What has been opened is evaluated to its end, whoever asks to stop now: it takes seconds.
    anew = partial(say_anew, search)
    for task, answer in run_tasks(search, evaluate_on_test, tasks, anew=anew, whatever_the_disk=True):
        # First the score: a model whose log the disk refuses has been evaluated all the same, and must not be again.
        _score(search, ours[task.replicate.trial, task.replicate.replicate], answer, command)
        append_log(search, task, answer)
    if team:
        evaluate_together(search, team, command)


def _runs_before(search: Search, record: RunRecord) -> int | None:
    """Tell the ledger of this machine of the opening; return how many other runs it knows to have opened this test set.

    None where that can't be known: nothing of the run depends on it, so that it is a warning at most.
    """
    if not (key := key_of(record.run.get("dataset", {}).get("sha256", {}))):
        return None
    run = search.store.path
    about = {"mnistlab": __version__, "dataset": search.shared.dataset, "sha256": key}
    try:
        entry = {"time": now(), "run": run.name, "run_id": id_of(run), **about}
        return note_opening(search.shared.place.cache, entry)
    except (OSError, MnistlabError, NotImplementedError) as error:  # the last: locks that a file system lacks
        said = f"how many runs have opened this test set before on this machine is not known: {error}"
        search.emit(events.Warned(message=said))
        return None


def _score(search: Search, one: Trained, answer: TestAnswer | Lost, command: str) -> None:
    """Write a model's score into the ledger and into its result; a model that broke on the test set is a warning."""
    about = {"time": now(), "command": command, **_about(one)}
    if isinstance(answer, Lost) or answer.correct is None:
        message = answer.message
        place = f"trial {one.result.trial}, replicate {one.result.replicate}"
        search.store.append_ledger({"type": "failed", **about, "cause": answer.cause, "message": message})
        search.emit(events.Warned(message=f"{place} could not be evaluated on the test set: {message}"))
        return
    score = TestScore(correct=int(answer.correct.sum()), images=len(answer.correct), loss=answer.loss)
    search.store.append_ledger({"type": "evaluated", **about, "correct": score.correct})
    search.store.write_replicate(replace(one.result, test=score, test_correct=digits(answer.correct)))


def _about(one: Trained) -> Mapping[str, Any]:
    """Return what an entry of the ledger says of a model: which plan, which seed, which weights."""
    return {
        "trial": one.result.trial,
        "replicate": one.result.replicate,
        "seed": one.result.seed,
        "plan_sha256": plan_sha256(one.task.plan),
        "weights_sha256": one.result.weights_sha256,
    }


# --- the ensemble -------------------------------------------------------------------------------------------------


def champion_of(search: Search, record: RunRecord) -> str:
    """Return the trial whose plan leads the confirmed ones by validation, "" where none is confirmed."""
    about = {"metric": search.spec.search.metric[0], "dataset": {"name": search.shared.dataset}}
    champion = rank(replace(record, run={**about, **record.run})).champion
    return champion.trial if champion and champion.state == "confirmed" else ""


def _team(search: Search, record: RunRecord) -> str:
    """Return the champion's trial, "" where it has fewer than two models."""
    trial = champion_of(search, record)
    models = [one for one in record.replicates if one.trial == trial and one.weights_sha256 and not one.cause]
    return trial if len(models) > 1 else ""


def evaluate_together(search: Search, trial: str, command: str) -> None:
    """Evaluate all models of a trial's plan together that have been evaluated one by one.

    That is part of the opening before it, also where another driver has died in between: nothing more is opened.
    """
    record = read_run(search.store.path)
    members = [one for one in record.replicates if one.trial == trial and one.weights_sha256 and one.test]
    about: dict[str, Any] = {"command": command, "trial": trial, "replicates": [one.replicate for one in members]}
    about["weights_sha256"] = [one.weights_sha256 for one in members]
    try:
        task = EnsembleTask(trial, tuple(_member(search, record, one) for one in members))
    except RunDirectoryError as error:
        return _break_up(search, about, "weights", str(error))
    if len(members) < 2:
        return _break_up(search, about, "members", "fewer than two of its models have been evaluated")
    anew = partial(say_anew, search)
    for _, answer in run_tasks(search, evaluate_ensemble, [task], anew=anew, whatever_the_disk=True):
        _score_together(search, about, answer)
        append_log(search, task, answer)
    return None


def _member(search: Search, record: RunRecord, one: ReplicateResult) -> TestTask:
    plan = next(dict(trial.plan) for trial in record.plans if trial.trial == one.trial)
    return TestTask(task_again(search, one, plan), read_weights(record.path, one))


def _score_together(search: Search, about: Mapping[str, Any], answer: EnsembleAnswer | Lost) -> None:
    """Write the score of an ensemble into the ledger, which alone has it, and say it."""
    if isinstance(answer, Lost) or answer.test is None:
        return _break_up(search, about, answer.cause, answer.message)
    score = {**asdict(answer.test), "val_accuracy": answer.val_accuracy}
    search.store.append_ledger({"type": "ensemble", "time": now(), **about, **score})
    said = events.EnsembleEvaluated(
        trial=about["trial"],
        members=len(about["replicates"]),
        test_accuracy=answer.test.accuracy,
        images=answer.test.images,
        val_accuracy=answer.val_accuracy,
    )
    return search.emit(said)


def _break_up(search: Search, about: Mapping[str, Any], cause: str, message: str) -> None:
    """Write down, and say, that an ensemble has no score. It is not tried again, as no model is that broke."""
    search.store.append_ledger({"type": "ensemble_failed", "time": now(), **about, "cause": cause, "message": message})
    said = f"the seeds of trial {about['trial']} could not be evaluated together: {message}"
    search.emit(events.Warned(message=said))


# --- what the trainings of a confirmation need as well ---------------------------------------------------------------


def task_again(search: Search, one: ReplicateResult, plan: dict[str, Any]) -> ReplicateTask:
    """Return the task that a replicate was, with its split.

    Raises:
        DamagedError: if that is not drawn alike any more.
    """
    task = with_split(search, ReplicateTask(one.trial, one.replicate, one.seed, plan))
    if split_of(task) != one.split:
        why = "its split can't be drawn again: another version of a library draws otherwise"
        raise DamagedError(search.store.path / in_trial(one.trial, *one.place, RESULT), why)
    return task


def with_split(search: Search, task: ReplicateTask) -> ReplicateTask:
    """Return a task with the split of its seed; the refit, which has all images, is left to the run's own."""
    return task if task.replicate == REFIT else replace(task, division=search.split(task.replicate))


def split_of(task: ReplicateTask) -> Split | None:
    """Return what is written down of a task's own split."""
    if (own := task.division) is None:
        return None
    return Split(sha256=own.digest(), train=len(own.train), validation=len(own.validation), left_out=own.left_out)


def say_anew(search: Search, task: Task, lost: Lost) -> None:
    """Write down what a task has left that lost its worker, and say that it begins anew."""
    append_log(search, task, lost)
    how = " with all of a device" if lost.cause == "memory" else ""
    search.emit(events.Warned(message=f"trial {task.trial}, {task.part} begins anew{how}: {lost.message}"))


def append_log(search: Search, task: Task, said: Answer | Lost) -> None:
    """Add what a task has printed to its trial's log, under a heading."""
    search.store.append_log(task.trial, said.log and f"\n[{task.part}]\n{said.log}", final=bool(said.cause))


def digits(correct: npt.NDArray[np.bool_] | None) -> str:
    """Return one digit an image: 1 where it was classified correctly."""
    return "" if correct is None else (correct.astype(np.uint8) + ord("0")).tobytes().decode()


def now() -> str:
    """Return the time as entries of a run directory have it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
