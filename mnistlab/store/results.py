"""What is known of a trial or a replicate once it has ended: plain frozen records that the run directory keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mnistlab.store.layout import REFIT_FOLDER, REPLICATES, record_name
from mnistlab.util.text import plan_label

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

State = Literal["complete", "pruned", "interrupted", "failed"]
"""At its full budget; stopped by the scheduler; cut short from outside; come to nothing."""


@dataclass(frozen=True, kw_only=True)
class RungResult:
    """A training of a trial that has ended at a rung below its full budget (in epochs), and what it came to.

    `seconds` is how long the trial has taken up to then.
    """

    rung: int
    budget: float
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """A trial that has ended.

    `history` holds one mapping per epoch (train_loss, val_loss, val_accuracy, images_per_second, seconds); `metrics` is
    its last entry plus `parameters` and, where they can be counted, `macs` (the multiply-accumulates for one image), or
    empty if no epoch ended. `message` says why it failed or was interrupted; `cause` is the kind of a failure, in a
    word. `repeats` names the trial that tried the same plan first: this one is another seed of it; "" where the plan
    was new. Where a trial is trained anew at each rung, `history` is that of its last training, whose `budget` may be
    less than the full one, and `rungs` are the trainings that ended below.
    """

    trial: str
    number: int
    state: State
    seed: int
    plan: Mapping[str, Any]
    label: str
    history: tuple[Mapping[str, float], ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    seconds: float = 0.0
    cause: str = ""
    message: str = ""
    repeats: str = ""
    budget: float | None = None  # epochs, of one below 1 that share of the images; None: the plan's
    rungs: tuple[RungResult, ...] = ()


def epochs_of(trial: TrialResult) -> float:
    """Return how many epochs the last training of a trial had: 0.5 where that was half of the images, once."""
    if trial.rungs and not trial.history:  # it was cut short before the first epoch at its next rung had ended
        return trial.rungs[-1].budget
    return min(float(len(trial.history)), trial.budget or math.inf)


BASELINE = "baseline"  # begins the name of a plan of all defaults that no trial had; alone, it stands for any of them


def baseline_name(number: int) -> str:
    """Return the name of the plan `number` (from 1) of all defaults that no trial had: `baseline`, `baseline-2`, ..."""
    return BASELINE if number == 1 else f"{BASELINE}-{number}"


def untried(name: str, plan: Mapping[str, Any], number: int = 1) -> TrialResult:
    """Return a plan that no trial of a search had as a trial that never began; its `number` is below 0."""
    about: dict[str, Any] = {"number": -number, "state": "interrupted", "seed": 0, "label": plan_label(plan)}
    return TrialResult(trial=name, plan=plan, message="no trial of the search had this plan", **about)


REFIT = 0  # the number, among the replicates of a plan, of its training on training and validation images together


def place_of(replicate: int) -> tuple[str, ...]:
    """Return where in its trial's folder a replicate lies."""
    return (REFIT_FOLDER,) if replicate == REFIT else (REPLICATES, str(replicate))


@dataclass(frozen=True, kw_only=True)
class TestScore:
    """The one evaluation of a replicate on the test set: how many of `images` were classified correctly."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    correct: int
    images: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Return the share of images classified correctly."""
        return self.correct / self.images


@dataclass(frozen=True, kw_only=True)
class EnsembleResult:
    """The models of a plan's seeds together: the class with the greatest mean probability is their answer.

    `replicates` are their numbers and `weights_sha256` their weights, in the same order. `val_accuracy` is None where
    they have no validation images in common: then some were trained on what others were validated on. `time` is when.
    """

    trial: str
    replicates: tuple[int, ...]
    weights_sha256: tuple[str, ...]
    test: TestScore
    val_accuracy: float | None = None
    time: str = ""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a prediction takes: multiply-accumulates for one image, and median seconds for a batch of 1 and of 256.

    `macs` counts convolutions and matrix products; it is None where torch can't count them. The times are of `device`,
    while other trainings may have run on it.
    """

    macs: int | None
    latency_1: float
    latency_256: float
    device: str


@dataclass(frozen=True, kw_only=True)
class PerImage:
    """What is known of metrics that are means over the validation images: their values for each image.

    The values lie in a file of their own, which `sha256` is of: `read` returns float32 (images,) by metric, and is None
    where the file is not at hand. `sd` is the standard deviation of each metric over the images, so that much can be
    said without reading the file.
    """

    sha256: str
    images: int
    sd: Mapping[str, float]
    read: Callable[[], Mapping[str, npt.NDArray[np.float32]]] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Split:
    """The split that a replicate has drawn for itself: how many images it trains and validates on, and leaves out.

    `sha256` is of their positions, as `split_sha256` in `run.json` is. The seed of the run and the replicate's number
    draw it again (`mnistlab.experiment.dataset.fresh_division`).
    """

    sha256: str
    train: int
    validation: int
    left_out: int = 0

    @property
    def overlap(self) -> float:
        """Return the validation images for each of the others: by how much such splits depend on one another."""
        return self.validation / (self.train + self.left_out)


@dataclass(frozen=True, kw_only=True)
class ReplicateResult:
    """One (plan, seed) of the confirmation. `val_correct` and `test_correct` tell each image's outcome as "0"/"1".

    `cost` is None where it could not be measured, and in runs of before it was. So is `per_image`.
    `split` is None where it has that of the run, as all have unless each seed draws its own.
    The `replicate` REFIT was trained on the validation images too, and so knows nothing of `val_`.
    """

    trial: str
    replicate: int
    seed: int
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    history: tuple[Mapping[str, float], ...] = ()
    seconds: float = 0.0
    weights_sha256: str = ""
    val_correct: str = ""
    test: TestScore | None = None
    test_correct: str = ""
    cost: Cost | None = None
    per_image: PerImage | None = None
    split: Split | None = None
    cause: str = ""
    message: str = ""

    @property
    def place(self) -> tuple[str, ...]:
        """Return where in its trial's folder this lies."""
        return place_of(self.replicate)


def to_json(result: TrialResult | ReplicateResult) -> dict[str, Any]:
    """Return a result as a JSON object."""
    body = asdict(result)
    if body.get("per_image"):
        del body["per_image"]["read"]
    unsaid = [key for key, nothing in (("budget", None), ("rungs", ()), ("split", None)) if body.get(key, 0) == nothing]
    return {key: value for key, value in body.items() if key not in unsaid}


def trial_from_json(record: Mapping[str, Any]) -> TrialResult:
    """Return the trial of a JSON object that `to_json` made; unknown keys are skipped."""
    known: dict[str, Any] = {k: v for k, v in record.items() if k in TrialResult.__dataclass_fields__}
    known["history"] = tuple(known.get("history", ()))
    known["rungs"] = tuple(RungResult(**rung) for rung in known.get("rungs", ()))
    return TrialResult(**known)


def replicate_from_json(record: Mapping[str, Any]) -> ReplicateResult:
    """Return the replicate of a JSON object that `to_json` made; unknown keys are skipped."""
    known: dict[str, Any] = {k: v for k, v in record.items() if k in ReplicateResult.__dataclass_fields__}
    known["history"] = tuple(known.get("history", ()))
    known["test"] = TestScore(**known["test"]) if known.get("test") else None
    known["cost"] = Cost(**known["cost"]) if known.get("cost") else None
    known["split"] = _split(known["split"]) if known.get("split") else None
    known["per_image"] = _per_image(known["per_image"]) if known.get("per_image") else None
    return ReplicateResult(**known)


def ensemble_from_json(entry: Mapping[str, Any]) -> EnsembleResult:
    """Return the ensemble of an entry of the test ledger; unknown keys are skipped.

    Raises:
        KeyError, TypeError, ValueError: if it lacks a key or holds something else under one.
    """
    score = TestScore(correct=int(entry["correct"]), images=int(entry["images"]), loss=float(entry["loss"]))
    validation = entry["val_accuracy"]
    return EnsembleResult(
        trial=str(entry["trial"]),
        replicates=tuple(map(int, entry["replicates"])),
        weights_sha256=tuple(map(str, entry["weights_sha256"])),
        test=score,
        val_accuracy=None if validation is None else float(validation),
        time=str(entry["time"]),
    )


def _split(record: Mapping[str, Any]) -> Split:
    """Return the split of a JSON object; unknown keys are skipped.

    Raises:
        TypeError, ValueError: if it lacks a key or holds something else under one.
    """
    counts = {key: int(record.get(key, 0)) for key in ("train", "validation", "left_out")}
    return Split(sha256=str(record["sha256"]), **counts)


def _per_image(record: Mapping[str, Any]) -> PerImage:
    """Return what a JSON object says of the values for each image; unknown keys are skipped.

    Raises:
        TypeError, ValueError: if it lacks a key or holds something else under one.
    """
    known = {key: record[key] for key in ("sha256", "images", "sd") if key in record}
    known["sd"] = {str(name): float(value) for name, value in dict(known.get("sd", ())).items()}
    return PerImage(**known)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything that a run directory says of its results; `run` is its newest record, `number` which one that is.

    It is 1 for `run.json`; each amendment of the experiment has left one more. `ensemble` is the one that was evaluated
    last, None in a run of before there were any; `ensemble_due` is the trial for whose ensemble the test set has been
    opened and that has no score yet, "" where there is none. `runs_before` is how many other runs had opened the same
    test set on the machine of the last opening, None where that is not known.
    """

    path: str
    run: Mapping[str, Any]
    number: int = 1
    trials: tuple[TrialResult, ...] = ()
    replicates: tuple[ReplicateResult, ...] = ()
    test_openings: int = 0
    refits: tuple[ReplicateResult, ...] = ()
    confirmations: tuple[Mapping[str, Any], ...] = ()  # the entries of `confirmation.jsonl`
    broken_on_test: frozenset[tuple[str, int]] = frozenset()  # (trial, replicate) of models that could not be evaluated
    ensemble: EnsembleResult | None = None
    ensemble_due: str = ""
    runs_before: int | None = None

    @property
    def baseline(self) -> str:
        """Return the trial of the plan of all defaults in the newest confirmation that has one, or ""."""
        said = [entry["baseline"]["trial"] for entry in self.confirmations if entry.get("baseline")]
        return str(said[-1]) if said else ""

    @property
    def untried(self) -> tuple[TrialResult, ...]:
        """Return the plans that were to be confirmed and that no trial had: those of all defaults."""
        said = [entry["baseline"] for entry in self.confirmations if entry.get("baseline")]
        plans = {str(one["trial"]): one["plan"] for one in said if one.get("plan")}
        return tuple(untried(name, plan, number) for number, (name, plan) in enumerate(plans.items(), start=1))

    @property
    def plans(self) -> tuple[TrialResult, ...]:
        """Return the trials, and those plans that no trial had and that were trained on fresh seeds all the same."""
        trained = {one.trial for one in self.replicates}
        return (*self.trials, *(one for one in self.untried if one.trial in trained))

    def called(self, name: str) -> str:
        """Return the trial that a name stands for: `baseline` is the plan of all defaults, whichever trial had it."""
        return self.baseline or name if name == BASELINE else name

    @property
    def file(self) -> str:
        """Return the name of the file that `run` was read from."""
        return record_name(self.number)
