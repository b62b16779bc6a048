"""`mnistlab predict`: pictures in, classes out, for people and for programs."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from tests.trained.drawing import drawn
from tests.trained.runs import typed


@pytest.fixture(scope="module")
def model(small_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    code, text = typed("export", small_run, "-o", path)
    assert code == 0, text
    return path


def test_an_answer_names_the_class_the_three_likeliest_and_what_was_done(model, tmp_path):
    drawn(3).save(tmp_path / "three.png")
    drawn(0, ink=255, paper=0).save(tmp_path / "nought.jpg")
    code, text = typed("predict", model, tmp_path / "three.png", tmp_path / "nought.jpg")
    assert code == 0, text
    first, steps, second, _ = text.splitlines()
    assert first.startswith(f"{tmp_path / 'three.png'}: 3  (3 ")
    assert first.count("%") == 3
    assert "dark ink on light ground: inverted" in steps
    assert second.startswith(f"{tmp_path / 'nought.jpg'}: 0  (0 ")


def test_programs_get_json_with_every_class_the_likeliest_first(model, tmp_path):
    drawn(0, mode="RGBA", ink=(9, 9, 9, 255), paper=(0, 0, 0, 0)).save(tmp_path / "x.png")
    code, text = typed("predict", "--json", model, tmp_path / "x.png")
    assert code == 0
    answer = json.loads(text)
    chances = list(answer["probabilities"].values())
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1, abs=1e-4)
    assert answer["class"] == next(iter(answer["probabilities"])) == "0"
    assert set(answer["probabilities"]) == set("0123456789")


def test_a_run_answers_as_its_exported_model_does(model, small_run, tmp_path):
    drawn(6).save(tmp_path / "x.png")
    (_, straight), (_, left) = (typed("predict", "--json", name, tmp_path / "x.png") for name in (small_run, model))
    assert json.loads(straight) == json.loads(left)


def test_a_picture_that_can_t_be_used_does_not_hide_the_others(model, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (50, 50), 255).save(tmp_path / "blank.png")
    drawn(0).save(tmp_path / "good.png")
    code, text = typed("predict", model, *(tmp_path / f"{name}.png" for name in ("text", "blank", "missing", "good")))
    assert code == 5
    assert f"{tmp_path / 'text.png'} is no picture" in text
    assert f"{tmp_path / 'blank.png'}: nothing can be seen" in text
    assert f"can't read {tmp_path / 'missing.png'}" in text
    assert f"{tmp_path / 'good.png'}: 0 " in text


def test_what_the_model_was_shown_can_be_looked_at(model, tmp_path):
    drawn(1).save(tmp_path / "one.png")
    code, text = typed("predict", "--show", model, tmp_path / "one.png")
    assert code == 0
    rows = text.splitlines()[2:]
    assert len(rows) == 28
    inked = [row for row in rows if "@@" in row]
    assert 18 <= len(inked) <= 20


def test_what_is_neither_a_file_nor_a_run_is_refused(tmp_path):
    for name, message in ((tmp_path / "no.onnx", "can't read"), ("no-such-run", "no run 'no-such-run'")):
        code, text = typed("predict", name, tmp_path / "x.png", "--runs", tmp_path)
        assert code == 2
        assert message in text


@pytest.mark.simulated
def test_a_digit_drawn_by_hand_is_read_by_a_model_of_mnist(mnist_model, tmp_path):
    for digit in range(10):
        drawn(digit, size=(640, 480), pen=14, mode="RGB", ink=(20, 30, 90), paper=(250, 248, 240)).save(
            tmp_path / f"{digit}.png"
        )
    code, text = typed(
        "predict", "--json", "--no-plugins", mnist_model, *(tmp_path / f"{digit}.png" for digit in range(10))
    )
    assert code == 0, text
    answers = [json.loads(line)["class"] for line in text.splitlines()]
    assert sum(answer == str(digit) for digit, answer in enumerate(answers)) >= 9, answers
