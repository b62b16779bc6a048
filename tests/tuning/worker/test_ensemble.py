"""The models of the champion's seeds together: what they are, when they are asked, and what is kept of that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mnistlab import events
from mnistlab.store import read_lines, read_run, read_weights
from mnistlab.store.results import EnsembleResult, RunRecord, TrialResult
from mnistlab.training import loop, weights
from mnistlab.tuning.confirm import confirm
from mnistlab.tuning.context import Search
from mnistlab.tuning.worker.ensemble import EnsembleAnswer, EnsembleTask, evaluate_ensemble
from mnistlab.tuning.worker.replicate import ReplicateTask, TestTask, images_of_test
from mnistlab.tuning.worker.trial import Here, Shared, ready
from mnistlab.util.seal import opened
from tests.tuning.conftest import RunTiny
from tests.tuning.test_confirm import CONFIRM, again
from tests.tuning.test_search import moods

pytestmark = pytest.mark.simulated


def last_of(record: RunRecord) -> EnsembleResult:
    assert record.ensemble
    return record.ensemble


def here(search: Search) -> Shared:
    """What a task is given that runs in this process."""
    return replace(search.shared, here=Here(search.registry, lambda: None))


def models_of(search: Search, trial: TrialResult) -> Iterator[loop.Training]:
    """The trained models of a trial's seeds, rebuilt from what the run keeps."""
    record = read_run(search.store.path)
    registry, data = ready(here(search))
    for one in (one for one in record.replicates if one.trial == trial.trial):
        model = loop.begin(dict(trial.plan), one.seed, data, registry)
        weights.load_weights(model.module, read_weights(record.path, one))
        yield model


def chances(model: loop.Training, images: torch.Tensor) -> np.ndarray:
    """What a model says, by numpy: its own prediction's probabilities."""
    logits = torch.cat([part.logits for part in loop.predict(model, images)]).double().numpy()
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def test_the_score_is_that_of_the_mean_of_the_probabilities_from_the_one_opening(run_tiny: RunTiny) -> None:
    said: list[tuple[int, float, float]] = []

    def confirm_then_average(search: Search, trials: list[TrialResult]) -> None:
        confirm(search, trials, "the command")
        models = list(models_of(search, trials[0]))
        data = models[0].data
        with opened():
            images, labels = images_of_test(here(search), models[0])
        test = np.mean([chances(one, images) for one in models], axis=0)
        own = np.mean([chances(one, data.validation_images) for one in models], axis=0)
        right = int((test.argmax(1) == labels.numpy()).sum())
        share = float((own.argmax(1) == data.validation_labels.numpy()).mean())
        said.append((right, float(-np.log(test[np.arange(len(test)), labels.numpy()]).mean()), share))

    text = moods("good", "stuck", scheduler="none") + CONFIRM.format(top=2, seeds=3)
    ran = run_tiny(text, then=confirm_then_average)
    one, (expected,) = last_of(read_run(ran.path)), said
    assert (one.trial, one.replicates, one.test.images) == ("0000", (1, 2, 3), 40)
    assert (one.test.correct, one.val_accuracy) == (expected[0], expected[2])
    assert one.test.loss == pytest.approx(expected[1], rel=1e-9)
    told, *entries = read_lines(ran.path / "test_ledger.jsonl")
    assert (told["type"], told["ensemble"]) == ("opened", "0000")
    assert [entry["type"] for entry in entries] == [*["evaluated"] * 6, "ensemble"]
    weights_ = [r.weights_sha256 for r in read_run(ran.path).replicates if r.trial == "0000"]
    assert entries[-1]["weights_sha256"] == weights_
    (event,) = [event for event in ran.stream if isinstance(event, events.EnsembleEvaluated)]
    assert (event.trial, event.members, event.images) == ("0000", 3, 40)
    assert (event.test_accuracy, event.val_accuracy) == (one.test.accuracy, one.val_accuracy)


def test_one_seed_is_no_ensemble(run_tiny: RunTiny) -> None:
    ran = run_tiny(
        moods("good", scheduler="none") + CONFIRM.format(top=1, seeds=1) + "refit = true\n",
        then=lambda search, trials: confirm(search, trials, "the command"),
    )
    assert read_run(ran.path).ensemble is None
    told, *entries = read_lines(ran.path / "test_ledger.jsonl")
    assert (told["ensemble"], [entry["type"] for entry in entries]) == ("", ["evaluated"] * 2)


def test_more_seeds_make_a_larger_ensemble_and_the_ledger_keeps_both(run_tiny: RunTiny) -> None:
    def confirm_twice(search: Search, trials: list[TrialResult]) -> None:
        confirm(search, trials, "the first")
        confirm(again(search, seeds=3), trials, "the second", read_run(search.store.path))

    ran = run_tiny(moods("good", scheduler="none") + CONFIRM.format(top=1, seeds=2), then=confirm_twice)
    entries = [entry for entry in read_lines(ran.path / "test_ledger.jsonl") if entry["type"] == "ensemble"]
    assert [(entry["command"], entry["replicates"]) for entry in entries] == [
        ("the first", [1, 2]),
        ("the second", [1, 2, 3]),
    ]
    record = read_run(ran.path)
    assert (last_of(record).replicates, record.test_openings) == ((1, 2, 3), 2)


@pytest.mark.parametrize("alike", [True, False])
def test_models_that_were_validated_on_other_images_have_no_validation_accuracy_together(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, alike: bool
) -> None:
    found: list[EnsembleAnswer] = []

    as_ever = ReplicateTask.ready

    def turned_round(task: ReplicateTask, shared: Any) -> Any:
        registry, data = as_ever(task, shared)
        other = replace(data, validation_images=data.validation_images.flip(0))
        return registry, data if alike or task.replicate == 1 else other

    def confirm_then_ask(search: Search, trials: list[TrialResult]) -> None:
        confirm(search, trials, "the command")
        record, plan = read_run(search.store.path), dict(trials[0].plan)
        tasks = [
            TestTask(ReplicateTask(one.trial, one.replicate, one.seed, plan), read_weights(record.path, one))
            for one in record.replicates
        ]
        monkeypatch.setattr(ReplicateTask, "ready", turned_round)
        found.extend(evaluate_ensemble(here(search), EnsembleTask("0000", tuple(tasks))))

    run_tiny(moods("good", scheduler="none") + CONFIRM.format(top=1, seeds=2), then=confirm_then_ask)
    (answer,) = found
    assert answer.test
    assert (answer.cause, answer.val_accuracy is not None) == ("", alike)
