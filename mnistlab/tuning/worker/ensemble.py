"""What runs in a worker process to evaluate an ensemble: the models of a plan's seeds, asked about the same images.

Each of them predicts as its plan says. What they say together is the mean of their class probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from mnistlab.data.device import DeviceData
from mnistlab.store.results import TestScore
from mnistlab.training import loop
from mnistlab.training.loop import Training
from mnistlab.training.precision import reproducible
from mnistlab.training.prediction import together
from mnistlab.tuning.worker.leaving import place_here
from mnistlab.tuning.worker.messages import Answer
from mnistlab.tuning.worker.replicate import TestTask, answered, images_of_test, model_of
from mnistlab.tuning.worker.trial import Shared
from mnistlab.tuning.worker.watchdog import Watch


@dataclass(frozen=True)
class EnsembleTask:
    """The trained models of a plan's seeds, two or more."""

    trial: str
    members: tuple[TestTask, ...]

    @property
    def name(self) -> str:
        """Return what no other task of the run is called."""
        return f"{self.trial}-ensemble-test"

    @property
    def part(self) -> str:
        """Return in words what of the trial's plan this is about."""
        return f"{len(self.members)} seeds together on the test set"


@dataclass(frozen=True, kw_only=True)
class EnsembleAnswer(Answer):
    """What came of it. `val_accuracy` is None where the models have no validation images in common."""

    test: TestScore | None = None
    val_accuracy: float | None = None


def evaluate_ensemble(shared: Shared, task: EnsembleTask) -> Iterator[EnsembleAnswer]:
    """Evaluate models together on the test set and on the validation images, and yield the answer.

    Only the confirmation sends this, once the ledger says so.
    """
    yield from answered(shared, task.name, lambda watch: _evaluated(shared, task, watch), EnsembleAnswer)


def _evaluated(shared: Shared, task: EnsembleTask, watch: Watch) -> EnsembleAnswer:
    """Ask one model after the other: a device need not hold all of them."""
    on_test, on_validation, data = list[Tensor](), list[Tensor](), list[DeviceData]()
    test: tuple[Tensor, Tensor] | None = None
    for member in task.members:
        model = model_of(shared, member, watch)
        test = test or images_of_test(shared, model)
        with watch.over():
            on_test.append(_logits(model, test[0]))
            on_validation.append(_logits(model, model.data.validation_images))
        data.append(model.data)
    assert test is not None
    unseen = all(torch.equal(data[0].validation_images, other.validation_images) for other in data[1:])
    validation = _score(on_validation, data[0].validation_labels).accuracy if unseen else None
    return EnsembleAnswer(test=_score(on_test, test[1]), val_accuracy=validation, place=place_here())


def _logits(model: Training, images: Tensor) -> Tensor:
    """Return what a model says of uint8 (N, C, H, W): float64 (N, classes), in the arithmetic it was trained in."""
    with reproducible(images.device), torch.inference_mode():
        return torch.cat([part.logits for part in loop.predict(model, images)]).double()


def _score(said: Sequence[Tensor], labels: Tensor) -> TestScore:
    logits = together(said)
    correct = int((logits.argmax(1) == labels).sum())
    return TestScore(correct=correct, images=len(labels), loss=float(F.cross_entropy(logits, labels)))
