"""Confirmation: the best plans re-trained on fresh seeds, then the sealed test set, opened once and on the record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mnistlab import events, training, weights
from mnistlab.data import open_test
from mnistlab.data.device import upload
from mnistlab.experiment import DatasetChoice
from mnistlab.results import ReplicateResult, TestScore, TrialResult
from mnistlab.search.driver import Search, best_trials, run_replicates
from mnistlab.search.worker import ReplicateAnswer, ReplicateTask, data_for
from mnistlab.seeds import replicate_seed


@dataclass(frozen=True)
class _Kept:
    """A replicate that was trained, with where its weights lie."""

    result: ReplicateResult
    plan: dict[str, Any]
    folder: Path


def confirm(search: Search, trials: Sequence[TrialResult], dataset: DatasetChoice, command: str) -> None:
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
    kept = [_keep(search, answer) for answer in run_replicates(tasks, search.shared, search.share, search.stopping)]
    trained = [one for one in kept if not one.result.cause]
    if trained and not search.stopping():
        _open_test_set(search, trained, dataset, command)


def _keep(search: Search, answer: ReplicateAnswer) -> _Kept:
    """Write an answer into the run directory and say so."""
    task, last = answer.task, answer.history[-1] if answer.history else {}
    seconds = sum(epoch["seconds"] for epoch in answer.history)
    result = ReplicateResult(
        trial=task.trial,
        replicate=task.replicate,
        seed=task.seed,
        metrics={**last, "parameters": answer.parameters} if last else {},
        history=answer.history,
        seconds=seconds,
        weights_sha256=hashlib.sha256(answer.weights).hexdigest() if answer.weights else "",
        val_correct=_digits(answer.correct),
        cause=answer.cause,
        message=answer.message,
    )
    search.store.append_log(task.trial, answer.log and f"\n[replicate {task.replicate}]\n{answer.log}")
    folder = search.store.write_replicate(result, answer.weights or None)
    about: dict[str, Any] = {"trial": task.trial, "replicate": task.replicate, "seed": task.seed}
    if answer.cause:
        search.emit(events.ReplicateFailed(**about, cause=answer.cause, message=answer.message))
    else:
        search.emit(events.ReplicateFinished(**about, metrics=result.metrics, seconds=seconds))
    return _Kept(result, task.plan, folder)


def _digits(correct: npt.NDArray[np.bool_] | None) -> str:
    """Return one digit an image: 1 where it was classified correctly."""
    return "" if correct is None else (correct.astype(np.uint8) + ord("0")).tobytes().decode()


def _open_test_set(search: Search, trained: Sequence[_Kept], dataset: DatasetChoice, command: str) -> None:
    """Open the test set, once: first say so in the ledger, then evaluate every model on it."""
    search.store.append_ledger(
        {
            "type": "opened",
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "dataset": search.shared.dataset,
            "models": [_about(one.result) for one in trained],
        }
    )
    trials = tuple(dict.fromkeys(one.result.trial for one in trained))
    search.emit(events.TestOpened(trials=trials, models=len(trained), count=1))
    # The driver evaluates, and while it does no worker is at work: it may use what all of them had together.
    device = training.set_up_process(search.share.cpus * search.share.parallel)
    images, labels = upload(open_test(dataset.record, dataset.config, search.shared.place), device)
    for one in trained:
        result = _evaluated(search, one, device, images, labels)
        assert result.test is not None
        search.store.append_ledger({"type": "evaluated", **_about(result), "correct": result.test.correct})
        search.store.write_replicate(result)


def _about(result: ReplicateResult) -> dict[str, Any]:
    return {
        "trial": result.trial,
        "replicate": result.replicate,
        "seed": result.seed,
        "weights_sha256": result.weights_sha256,
    }


def _evaluated(
    search: Search, one: _Kept, device: torch.device, images: torch.Tensor, labels: torch.Tensor
) -> ReplicateResult:
    """Return the replicate with its score on the test images; the weights are those in the run directory."""
    data = data_for(search.shared, search.registry, device)
    model = training.begin(one.plan, one.result.seed, data, search.registry)
    model.module.load_state_dict(weights.unpack((one.folder / "weights.safetensors").read_bytes()))
    loss, correct = training.evaluate(model, images, labels)
    hits = correct.cpu().numpy()
    score = TestScore(correct=int(hits.sum()), images=len(hits), loss=loss)
    return replace(one.result, test=score, test_correct=_digits(hits))
