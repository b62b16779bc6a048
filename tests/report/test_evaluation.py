from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mnistlab.report import evaluation
from mnistlab.report.evaluation import Evaluated, Votes
from mnistlab.report.mistakes import mistakes
from tests.report.runs import evaluated


def told(labels: list[int], said: list[list[list[float]]], wrong: list[int] | None = None) -> Evaluated:
    """What models said of a few images of two classes; `said` is (models, images, classes)."""
    count = len(labels)
    return Evaluated(
        trial="0000",
        classes=("a", "b"),
        indices=np.arange(10, 10 + count),
        images=np.zeros((count, 1, 2, 2), dtype=np.uint8),
        labels=np.array(labels),
        probabilities=np.array(said, dtype=np.float32),
        agreement=1.0,
        votes=Votes(np.array(wrong or [0] * count), 2),
    )


TWO = told([0, 0, 1], [[[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], [[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]])


def test_confusion_counts_every_model_apart() -> None:
    assert evaluation.confusion(TWO).tolist() == [[3, 1], [0, 2]]
    assert evaluation.confusions(evaluation.confusion(TWO), TWO.classes) == [("a", "b", 1)]


def test_recall_is_the_mean_over_models_with_an_interval_over_images() -> None:
    first, second = evaluation.recalls(TWO)
    assert (first.name, first.images, first.share) == ("a", 2, 0.75)
    assert first.interval.low < 0.75 < first.interval.high
    assert (second.images, second.share) == (1, 1.0)


def test_a_class_without_images_has_no_recall() -> None:
    assert [one.name for one in evaluation.recalls(told([0], [[[1.0, 0.0]]]))] == ["a"]


def test_a_model_that_is_as_sure_as_it_is_right_has_no_calibration_error() -> None:
    sure = told([0, 0, 0, 1], [[[0.75, 0.25]] * 4])
    bins, error = evaluation.calibration(sure)
    assert error == pytest.approx(0.0)
    assert [(one.count, one.accuracy) for one in bins] == [(4, 0.75)]


def test_a_model_that_is_surer_than_right_has_the_difference_as_its_error() -> None:
    assert evaluation.calibration(told([1, 1, 0, 0], [[[0.9, 0.1]] * 4]))[1] == pytest.approx(0.4)


def test_every_prediction_lies_in_one_bin() -> None:
    found = evaluated()
    assert sum(one.count for one in evaluation.calibration(found)[0]) == found.models * len(found.labels)


def test_the_surest_mistakes_come_first_and_nothing_right_is_among_them() -> None:
    found = evaluated()
    sure = evaluation.most_confidently_wrong(found)
    assert [one.confidence for one in sure] == sorted((one.confidence for one in sure), reverse=True)
    assert sure
    assert all(one.label != one.predicted for one in sure)
    assert all(one.index % 3 == 0 for one in sure)


def test_the_hardest_are_those_that_most_models_got_wrong() -> None:
    found = told([0, 0, 1], [[[0.1, 0.9], [0.6, 0.4], [0.4, 0.6]]], wrong=[1, 2, 2])
    assert [(one.index, one.wrong) for one in evaluation.hardest(found)] == [(11, 2), (12, 2)]


def test_a_page_says_how_the_two_lists_overlap() -> None:
    found = told([0, 0, 1], [[[0.1, 0.9], [0.6, 0.4], [0.6, 0.4]]], wrong=[2, 0, 2])
    assert mistakes("r", found).lists.endswith("confirmed models are wrong; 2 images stand in both.")
    found = told([0, 0, 1], [[[0.1, 0.9], [0.6, 0.4], [0.4, 0.6]]], wrong=[0, 2, 2])
    assert mistakes("r", found).lists.endswith("confirmed models are wrong; no image is in both.")
    right = told([0], [[[0.9, 0.1]]], wrong=[0])
    assert mistakes("r", right).lists == ""


def test_a_gallery_has_an_end() -> None:
    found = replace(evaluated(images=3_000))
    assert len(evaluation.hardest(found)) == len(evaluation.most_confidently_wrong(found)) == evaluation.GALLERY


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (2, "L")])
def test_an_image_is_a_png_with_its_own_pixels(channels: int, mode: str) -> None:
    image = np.arange(channels * 6, dtype=np.uint8).reshape(channels, 2, 3)
    head, _, body = evaluation.png(image).partition(",")
    assert head == "data:image/png;base64"
    read = Image.open(io.BytesIO(base64.b64decode(body)))
    assert (read.mode, read.size) == (mode, (3, 2))
    if channels != 2:
        assert (np.asarray(read).reshape(2, 3, channels) == image.transpose(1, 2, 0)).all()
