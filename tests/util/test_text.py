from __future__ import annotations

import pytest

from mnistlab.util.text import (
    chosen_text,
    counted,
    error_text,
    listed,
    metric_text,
    names,
    plan_label,
    seconds_text,
    settings,
    unbroken,
    varying,
)

PLAN = {
    "model": {"name": "cnn", "plugin": "mnistlab:cnn", "config": {"depth": 3, "channels": 32, "batch_norm": True}},
    "optimizer": {"name": "adamw", "config": {"weight_decay": 0.01, "lr": 0.0031234}},
    "transforms": [
        {"name": "shift", "config": {"pixels": 2, "chance": 0.5}},
        {"name": "rotate", "config": {"chance": 1.0}},
    ],
    "training": {"epochs": 8, "batch_size": 128},
}


@pytest.mark.parametrize(
    ("limit", "label"),
    [
        (100, "cnn depth=3 channels=32 batch_norm=true · adamw lr=0.00312 weight_decay=0.01 · shift · rotate"),
        (60, "cnn depth=3 … · adamw lr=0.00312 … · shift · rotate"),
        (30, "cnn depth=3 … · adamw …"),
        (9, "cnn … · …"),
    ],
)
def test_a_label_says_as_much_as_fits(limit: int, label: str):
    assert plan_label(PLAN, limit) == label
    assert len(plan_label(PLAN, limit)) <= limit


def test_settings_stand_under_the_keys_that_set_takes():
    assert settings(PLAN) == {
        "model": "cnn",
        "model.cnn.depth": 3,
        "model.cnn.channels": 32,
        "model.cnn.batch_norm": True,
        "optimizer": "adamw",
        "optimizer.adamw.weight_decay": 0.01,
        "optimizer.adamw.lr": 0.0031234,
        "transforms": "shift, rotate",
        "transform.shift.pixels": 2,
        "transform.shift.chance": 0.5,
        "transform.rotate.chance": 1.0,
        "training.epochs": 8,
        "training.batch_size": 128,
    }


def test_what_is_no_scalar_stands_as_json():
    plan = {"model": {"name": "m", "config": {"widths": [1, 2], "nested": {"deep": None}}}}
    assert settings(plan) == {
        "model": "m",
        "model.m.widths": "[1, 2]",
        "model.m.nested.deep": "null",
        "transforms": "",
    }


def test_only_what_varies_is_shown_and_ambiguous_words_are_qualified():
    other = PLAN | {"training": {"epochs": 8, "batch_size": 64}}
    assert varying([PLAN, other]) == ("training.batch_size",)
    assert chosen_text(settings(PLAN), varying([PLAN, other])) == "batch_size=128"
    keys = ("transform.shift.chance", "transform.rotate.chance", "model.cnn.batch_norm", "model")
    assert chosen_text(settings(PLAN), keys) == "model=cnn batch_norm=true shift.chance=0.5 rotate.chance=1"


def test_what_only_one_model_has_does_not_vary():
    mlp = {"model": {"name": "mlp", "config": {"width": 4}}}
    cnn = {"model": {"name": "cnn", "config": {"depth": 4}}}
    assert varying([mlp, cnn]) == ()


def test_true_and_one_are_two_values():
    plans = [{"model": {"name": "m", "config": {"x": value}}} for value in (1, True)]
    assert varying(plans) == ("model.m.x",)


def test_names_of_an_empty_plan_are_empty():
    assert (names(PLAN), names({}), plan_label({})) == ("cnn · adamw", "", "")


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("val_accuracy", 0.99123, "99.12 %"),
        ("val_loss", 0.012344, "0.01234"),
        ("parameters", 1234567, "1,234,567"),
        ("images_per_second", 1234.56, "1,235"),
        ("val_accuracy", None, "-"),
        ("val_accuracy", float("nan"), "nan"),
    ],
)
def test_metrics_in_words(metric: str, value: float | None, text: str):
    assert metric_text(metric, value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0s"), (4.24, "4.2s"), (9.96, "10s"), (59.6, "1m00s"), (130, "2m10s"), (3599.7, "1h00m"), (3720, "1h02m")],
)
def test_times_in_words(seconds: float, text: str):
    assert seconds_text(seconds) == text


def test_counts_and_lists_in_words():
    assert (counted(1, "seed"), counted(1000, "image"), counted(0, "trial")) == ("1 seed", "1,000 images", "0 trials")
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_a_text_is_brought_onto_one_line():
    assert unbroken("  it\n\tfailed \r\n twice ") == "it failed twice"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no\n  such thing"), "ValueError: no such thing"),
        (KeyError(), "KeyError"),
        (OSError(" "), "OSError"),
    ],
)
def test_an_error_is_told_with_its_kind_on_one_line(error, said):
    assert error_text(error) == said
