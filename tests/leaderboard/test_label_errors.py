"""For which test images the known label errors hold."""

from __future__ import annotations

import pytest

from mnistlab.leaderboard.label_errors import MNIST_TEST, SHA256, known_label_errors


@pytest.mark.parametrize("part", SHA256)
def test_one_part_of_another_dataset_is_enough_to_know_of_no_errors(part: str):
    assert known_label_errors({"name": "mnist", "sha256": SHA256}) == MNIST_TEST
    assert known_label_errors({"name": "mnist", "sha256": {**SHA256, part: "0" * 64}}) == ()
