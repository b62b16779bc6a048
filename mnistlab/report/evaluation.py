"""What predictions come to: confusion, recall, calibration and the images that go wrong. Pure functions."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.metrics import confusion_matrix

from mnistlab.leaderboard.statistics import Interval, wilson

BINS = 15  # of equal width, as C. Guo (2017, ICML) has them
GALLERY = 24  # images of each kind
COMMONEST = 8  # confusions that are named


@dataclass(frozen=True)
class Votes:
    """How many of `models` got each image (N,) wrong."""

    wrong: npt.NDArray[np.int64]
    models: int


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What S models of one plan say of N validation images.

    `probabilities` is float32 (S, N, classes); `indices` (N,) are the images' places in the training part of the
    dataset, `images` uint8 (N, C, H, W). `agreement` is the share of outcomes that are those the run recorded.
    """

    trial: str
    classes: tuple[str, ...]
    indices: npt.NDArray[np.int64]
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    agreement: float
    votes: Votes

    @property
    def models(self) -> int:
        """Return how many models were asked."""
        return len(self.probabilities)


@dataclass(frozen=True)
class Recall:
    """Of `images` of a class, the mean share that the models got right, with Wilson's interval over images."""

    name: str
    images: int
    share: float
    interval: Interval


@dataclass(frozen=True)
class Bin:
    """Of the predictions whose confidence lies in one bin: how many, their mean confidence and how many were right."""

    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Digit:
    """An image that went wrong: its place in the data, what it is and what was said, and its PNG as a data URI."""

    index: int
    label: str
    predicted: str
    confidence: float
    wrong: int
    png: str


def confusion(found: Evaluated) -> npt.NDArray[np.int64]:
    """Return counts int64 (true class, predicted class), summed over the models."""
    numbers = range(len(found.classes))
    counts = [confusion_matrix(found.labels, said, labels=numbers) for said in found.probabilities.argmax(2)]
    return np.stack(counts).sum(0)


def recalls(found: Evaluated) -> list[Recall]:
    """Return the recall of every class of which there are images."""
    right = (found.probabilities.argmax(2) == found.labels).mean(0)
    made: list[Recall] = []
    for number, name in enumerate(found.classes):
        mine = right[found.labels == number]
        if len(mine):
            share = float(mine.mean())
            made.append(Recall(name, len(mine), share, wilson(min(share, 1.0) * len(mine), len(mine))))
    return made


def calibration(found: Evaluated) -> tuple[list[Bin], float]:
    """Return the bins that hold predictions, and the expected calibration error over them.

    Each model's predictions count one by one: averaging models would hide how sure a single one is.
    """
    confidence = found.probabilities.max(2).ravel().astype(np.float64)
    right = (found.probabilities.argmax(2) == found.labels).ravel()
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    bins = [
        Bin(int(here.sum()), float(confidence[here].mean()), float(right[here].mean()))
        for number in range(BINS)
        if (here := place == number).any()
    ]
    error = sum(one.count * abs(one.confidence - one.accuracy) for one in bins) / max(1, len(right))
    return bins, float(error)


def hardest(found: Evaluated) -> list[Digit]:
    """Return the images that most of all confirmed models got wrong, two or more of them, the hardest first."""
    true = found.probabilities.mean(0)[np.arange(len(found.labels)), found.labels]
    order = np.lexsort((found.indices, true, -found.votes.wrong))
    least = min(2, found.votes.models)
    return [_digit(found, int(i)) for i in order[:GALLERY] if found.votes.wrong[i] >= max(1, least)]


def most_confidently_wrong(found: Evaluated) -> list[Digit]:
    """Return the images on which the champion's models, taken together, were wrong and the surest of it."""
    mean = found.probabilities.mean(0)
    wrong = np.flatnonzero(mean.argmax(1) != found.labels)
    order = wrong[np.lexsort((found.indices[wrong], -mean[wrong].max(1)))]
    return [_digit(found, int(i)) for i in order[:GALLERY]]


def _digit(found: Evaluated, place: int) -> Digit:
    mean = found.probabilities[:, place].mean(0)
    return Digit(
        index=int(found.indices[place]),
        label=found.classes[int(found.labels[place])],
        predicted=found.classes[int(mean.argmax())],
        confidence=float(mean.max()),
        wrong=int(found.votes.wrong[place]),
        png=png(found.images[place]),
    )


def png(image: npt.NDArray[np.uint8]) -> str:
    """Return uint8 (C, H, W) as a data URI: grey for one channel, colours for three; other counts by their mean."""
    pixels = image.transpose(1, 2, 0) if len(image) == 3 else image.mean(0).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def confusions(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> list[tuple[str, str, int]]:
    """Return the commonest confusions as (true class, predicted class, count)."""
    pairs = [(int(counts[i, j]), i, j) for i in range(len(classes)) for j in range(len(classes)) if i != j]
    common = sorted((pair for pair in pairs if pair[0]), key=lambda pair: (-pair[0], pair[1:]))
    return [(classes[i], classes[j], count) for count, i, j in common[:COMMONEST]]
