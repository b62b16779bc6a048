"""What runs in a worker process after the search: replicates of the best plans, and tests of models, as Ray tasks.

A failure that is the plan's is an answer like any other (`cause`, `message`), as it is for trials (see `worker`).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from mnistlab.data import Division, open_test
from mnistlab.data.device import DeviceData, upload, whole
from mnistlab.plugins.registry import Registry
from mnistlab.store.results import REFIT, Cost
from mnistlab.training import loop, weights
from mnistlab.training.cost import cost_of
from mnistlab.training.loop import Training
from mnistlab.tuning.worker.forks import keep_from_children
from mnistlab.tuning.worker.leaving import judged, lacking, leave_unless_the_plans, one_line, place_here, say_in_log
from mnistlab.tuning.worker.leftovers import place_of
from mnistlab.tuning.worker.messages import Answer, Progress
from mnistlab.tuning.worker.output import Capture, NotCaptured, hear_nondeterminism
from mnistlab.tuning.worker.trial import Shared, dataset_of, give_back_memory, ready, watch_of
from mnistlab.tuning.worker.watchdog import Watch
from mnistlab.util.seal import opened, seal_for_good

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ReplicateTask:
    """One (plan, seed) of the confirmation; number REFIT stands for the training on training and validation images."""

    trial: str
    replicate: int
    seed: int
    plan: dict[str, Any]
    division: Division | None = None  # None: the run's own

    @property
    def name(self) -> str:
        """Return what no other task of the run is called."""
        return f"{self.trial}-{self.replicate}"

    @property
    def part(self) -> str:
        """Return in words which training of the trial's plan this is."""
        return "refit" if self.replicate == REFIT else f"replicate {self.replicate}"

    def ready(self, shared: Shared) -> tuple[Registry, DeviceData]:
        """Return the plugins, and what this is trained on.

        Raises:
            LackError: if this node lacks any of it.
        """
        registry, data = ready(shared if self.division is None else replace(shared, division=self.division))
        return registry, whole(data) if self.replicate == REFIT else data


@dataclass(frozen=True)
class ReplicateProgress(Progress):
    """A replicate has ended an epoch; `metrics` as `training.run_epoch` gives them."""

    epoch: int
    epochs: int
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ReplicateAnswer(Answer):
    """What came of it. `correct` is bool (validation images,); `weights` are safetensors bytes.

    `per_image` holds the values of `val_loss`, and of the measures of the model's predictions, float (validation
    images,).
    """

    history: tuple[dict[str, float], ...] = ()
    parameters: int = 0
    correct: npt.NDArray[np.bool_] | None = None
    per_image: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict[str, "npt.NDArray[np.float64]"])
    weights: bytes = b""
    cost: Cost | None = None


def train_replicate(shared: Shared, task: ReplicateTask) -> Iterator[ReplicateProgress | ReplicateAnswer]:
    """Train a plan on a fresh seed for its full budget: yield each epoch, then the answer; a failure is one too."""
    capture, watch = _watched(shared, task.name)
    watch.begin(shared.trial_seconds)
    history: list[dict[str, float]] = []
    try:
        answer = yield from _trained(shared, task, watch, history)
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        answer = ReplicateAnswer(cause=_cause(error, shared, begun=bool(history)), message=one_line(error))
    give_back_memory()
    capture.remove()
    yield replace(answer, history=tuple(history), log=capture.take())


def _trained(
    shared: Shared, task: ReplicateTask, watch: Watch, history: list[dict[str, float]]
) -> Generator[ReplicateProgress, None, ReplicateAnswer]:
    """Train and evaluate; add each epoch's metrics to `history`."""
    registry, data = task.ready(shared)
    with watch.over():
        one = loop.begin(task.plan, task.seed, data, registry)
        one.on_step = watch.step
    while one.epoch < one.epochs:
        with watch.over():
            history.append(loop.run_epoch(one))
        yield ReplicateProgress(one.epoch, one.epochs, history[-1], place=place_here())
    with watch.over():
        found = loop.evaluate(one, data.validation_images, data.validation_labels)
    return ReplicateAnswer(
        parameters=loop.count_parameters(one.module),
        correct=found.correct.cpu().numpy(),
        per_image={f"val_{name}": values.cpu().numpy() for name, values in found.per_image.items()},
        weights=weights.pack_weights(one.module),
        cost=_measured(one),
    )


def _cause(error: BaseException, shared: Shared, *, begun: bool = False) -> str:
    """Write a failure into the log and return its cause; where that is not the plan's, end this process."""
    say_in_log(error)
    cause = judged(error, more_nodes=shared.more_nodes, begun=begun)
    leave_unless_the_plans(error, cause, here=shared.here is not None)  # Ray would give this process the next task
    return cause


def _watched(shared: Shared, name: str) -> tuple[Capture | NotCaptured, Watch]:
    """Set this process up for a task: from here on what it prints is captured, and the test set is sealed.

    In the driver's own process the one is the executor's, and the other the run's.
    """
    if shared.here:
        hear_nondeterminism()
        return NotCaptured(), watch_of(shared, None)
    seal_for_good()
    keep_from_children()
    capture = Capture(place_of(name))
    capture.start()
    hear_nondeterminism()
    return capture, watch_of(shared, capture.descriptor)


def _measured(one: Training) -> Cost | None:
    """Return what a prediction takes. Where that can't be measured, the training was good all the same."""
    try:
        return cost_of(one)
    except Exception:  # noqa: BLE001, RUF100 - a plugin may raise anything
        traceback.print_exc()
        return None


@dataclass(frozen=True)
class TestTask:
    """One trained model to be evaluated on the test set; `weights` are those of its replicate."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    replicate: ReplicateTask
    weights: bytes

    @property
    def trial(self) -> str:
        """Return whose plan it is."""
        return self.replicate.trial

    @property
    def name(self) -> str:
        """Return what no other task of the run is called."""
        return f"{self.replicate.name}-test"

    @property
    def part(self) -> str:
        """Return in words which training of the trial's plan this is about."""
        return f"{self.replicate.part} on the test set"


@dataclass(frozen=True, kw_only=True)
class TestAnswer(Answer):
    """What came of it. `correct` is bool (test images,), `loss` the mean cross-entropy in nats."""

    __test__ = False

    correct: npt.NDArray[np.bool_] | None = None
    loss: float = 0.0


def evaluate_on_test(shared: Shared, task: TestTask) -> Iterator[TestAnswer]:
    """Evaluate a trained model on the test set and yield the answer.

    Only the confirmation sends this, once the ledger says so.
    """
    yield from answered(shared, task.name, lambda watch: _tested(shared, task, watch), TestAnswer)


A = TypeVar("A", bound=Answer)


def answered(shared: Shared, name: str, work: Callable[[Watch], A], kind: type[A]) -> Iterator[A]:
    """Do `work` as the task `name` and yield its answer with what was printed; a failure is one of that `kind` too."""
    capture, watch = _watched(shared, name)
    try:
        answer = work(watch)
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        answer = kind(cause=_cause(error, shared), message=one_line(error))
    give_back_memory()
    capture.remove()
    yield replace(answer, log=capture.take())


def _tested(shared: Shared, task: TestTask, watch: Watch) -> TestAnswer:
    """Evaluate."""
    model = model_of(shared, task, watch)
    images, labels = images_of_test(shared, model)
    with watch.over():
        found = loop.evaluate(model, images, labels)
    return TestAnswer(correct=found.correct.cpu().numpy(), loss=found.loss, place=place_here())


def model_of(shared: Shared, task: TestTask, watch: Watch) -> Training:
    """Return the trained model of a task, with the data that it was trained on."""
    one = task.replicate
    registry, data = one.ready(shared)
    with watch.over():
        model = loop.begin(one.plan, one.seed, data, registry)
    weights.load_weights(model.module, task.weights)
    model.on_step = watch.step
    return model


def images_of_test(shared: Shared, model: Training) -> tuple[Tensor, Tensor]:
    """Return the images and labels of the test set on the model's device; the ledger has said so before."""
    with opened(), lacking("data"):
        test = open_test(*dataset_of(shared, model.registry), shared.place)
    return upload(test, model.data.train_images.device)
