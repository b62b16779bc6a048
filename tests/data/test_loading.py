"""The doors through which images come, and what they say of a dataset plugin that breaks its word."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from mnistlab.api import Config, DataPlace, Dataset, DatasetInfo, ImageShape, LabelledImages
from mnistlab.data import open_test, open_train, prepare_dataset
from mnistlab.errors import DataError, PluginError
from mnistlab.util.seal import SealedError, guarded, opened, sealed

GOOD = LabelledImages(images=np.zeros((4, 1, 3, 3), dtype=np.uint8), labels=np.arange(4))
INFO = DatasetInfo(
    shape=ImageShape(1, 3, 3, 4), class_names=("a", "b", "c", "d"), train_count=4, test_count=4, source="x"
)


def dataset(load=lambda config, place, split: GOOD, prepare=lambda config, place: INFO):
    return Dataset(name="mine", config=Config, prepare=prepare, load=load, summary="For tests.")


@pytest.fixture
def place(tmp_path):
    return DataPlace(data_dir=None, cache=tmp_path)


def test_each_door_asks_for_its_own_split(place):
    asked = []
    mine = dataset(load=lambda config, place, split: asked.append(split) or GOOD)
    assert open_train(mine, Config(), place) is GOOD
    assert asked == ["train"]
    with opened():
        assert open_test(mine, Config(), place) is GOOD
    assert asked == ["train", "test"]
    assert prepare_dataset(mine, Config(), place) is INFO
    assert asked == ["train", "test"]


def test_the_test_images_are_refused_where_nobody_has_opened_them(place):
    asked = []
    mine = dataset(load=lambda config, place, split: asked.append(split) or GOOD)
    with pytest.raises(SealedError, match="dataset 'mine' was asked for its test images, but the test set is sealed"):
        open_test(mine, Config(), place)
    assert asked == []


def test_a_thread_sees_nothing_of_what_another_has_opened(place):
    with opened(), ThreadPoolExecutor(1) as pool, pytest.raises(SealedError):
        pool.submit(open_test, dataset(), Config(), place).result()


def test_while_a_run_goes_on_a_datasets_own_function_refuses_the_test_images_alone(place):
    load = guarded("mine", lambda config, place, split: GOOD)
    assert load(Config(), place, "test") is GOOD
    with sealed():
        assert load(Config(), place, "train") is GOOD
        with pytest.raises(SealedError, match="dataset 'mine'"):
            load(Config(), place, "test")
        with pytest.raises(SealedError, match="dataset 'mine'"):
            load(Config(), place, split="test")
        with opened():
            assert load(Config(), place, "test") is GOOD
    assert load(Config(), place, "test") is GOOD


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": np.zeros((4, 1, 3, 3), dtype=np.float32)}, r"images float32 \(4, 1, 3, 3\), but uint8"),
        ({"images": np.zeros((4, 3, 3), dtype=np.uint8)}, r"images uint8 \(4, 3, 3\)"),
        ({"labels": np.arange(5)}, r"labels int64 \(5,\), but int64 \(4,\)"),
        ({"labels": np.arange(4, dtype=np.int32)}, "labels int32"),
        ({"labels": np.arange(4) - 1}, "no images or labels below 0"),
        ({"groups": np.arange(3)}, r"groups int64 \(3,\)"),
    ],
)
def test_images_that_break_the_contract_are_the_plugins_fault(place, change, words):
    mine = dataset(load=lambda config, place, split: replace(GOOD, **change))
    with pytest.raises(PluginError, match=rf"dataset 'mine': load\(\.\.\., 'train'\) returned {words}"):
        open_train(mine, Config(), place)


def test_an_exception_of_the_plugin_is_named_and_a_data_error_passes(place):
    def broken(config, place):
        raise ZeroDivisionError("by zero")

    def wrong(config, place):
        raise DataError("file x: truncated")

    with pytest.raises(PluginError, match="dataset 'mine': prepare failed with ZeroDivisionError: by zero"):
        prepare_dataset(dataset(prepare=broken), Config(), place)
    with pytest.raises(DataError, match=r"^file x: truncated$"):
        prepare_dataset(dataset(prepare=wrong), Config(), place)


def test_the_package_needs_neither_torch_nor_the_network_libraries():
    code = (
        "import sys, mnistlab.data, mnistlab.builtin.datasets;"
        "print([m for m in ('torch', 'sklearn', 'scipy', 'pooch', 'requests', 'filelock') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
