"""The test images of MNIST whose labels people do not confirm, and the accuracy without them: a second figure.

C. G. Northcutt, A. Athalye, J. Mueller, "Pervasive label errors in test sets", 2021, arXiv:2103.14749. Confident
learning flagged 100 test images and five people judged each; 15 labels were not confirmed. The authors call it a lower
bound. The list is of github.com/cleanlab/label-errors, `mturk/mnist_mturk.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Positions from 0 in the standard order of the file t10k. Ten have another label by the majority, three are "neither",
# on two (2130, 8527) people do not agree.
MNIST_TEST = (947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729)
SHA256 = {
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def known_label_errors(dataset: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the positions of the known label errors of a run's test set, or () where none are known.

    `dataset` is that of `run.json`. The positions hold for the very bytes of MNIST's test files only.
    """
    digests = dataset.get("sha256") or {}
    same = dataset.get("name") == "mnist" and all(digests.get(part) == digest for part, digest in SHA256.items())
    return MNIST_TEST if same else ()


def without(correct: str, positions: tuple[int, ...]) -> tuple[int, int]:
    """Return how many images were right and how many there are, without those at `positions`.

    `correct` holds one digit an image, 1 where it was right.

    Raises:
        ValueError: if a position is beyond its end.
    """
    if positions and max(positions) >= len(correct):
        raise ValueError(f"there is no image {max(positions)} among {len(correct)}")
    dropped = sum(correct[position] == "1" for position in positions)
    return correct.count("1") - dropped, len(correct) - len(positions)
