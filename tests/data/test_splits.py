"""Splitting: proportions, whole writers, and the same seed giving the same split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from mnistlab.data.splits import _by_class, part_of, split_indices
from mnistlab.errors import DataError

LABELS = np.random.default_rng(0).choice(4, size=2000, p=[0.5, 0.3, 0.15, 0.05]).astype(np.int64)
GROUPS = np.random.default_rng(1).integers(40, size=2000)


def divide(validation=500, seed=0, how="stratified", labels=LABELS, groups=GROUPS):
    return split_indices(labels, groups, validation=validation, seed=seed, how=how)


def assert_complete(division, total):
    together = np.concatenate([division.train, division.validation])
    assert sorted(together.tolist()) == list(range(total))
    for part in (division.train, division.validation):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize("how", ["stratified", "writer"])
def test_every_image_is_in_exactly_one_part(how):
    assert_complete(divide(how=how), 2000)


@pytest.mark.parametrize("how", ["stratified", "writer"])
def test_the_seed_decides(how):
    same, again, other = divide(seed=7, how=how), divide(seed=7, how=how), divide(seed=8, how=how)
    np.testing.assert_array_equal(same.validation, again.validation)
    assert same.digest() == again.digest()
    assert same.digest() != other.digest()


def test_a_seed_may_be_larger_than_scikit_learn_takes():
    assert len(divide(seed=2**63).validation) == 500


def test_stratified_keeps_the_share_of_every_class():
    division = divide(validation=500)
    assert len(division.validation) == 500
    wished = np.bincount(LABELS) / 4
    assert np.abs(np.bincount(LABELS[division.validation]) - wished).max() <= 1


def test_a_share_means_the_rounded_count():
    assert len(divide(validation=0.1).validation) == 200


@settings(max_examples=60, deadline=None)
@given(
    writers=st.lists(st.integers(1, 30), min_size=6, max_size=40), seed=st.integers(0, 99), share=st.floats(0.2, 0.6)
)
def test_writers_stay_whole_and_the_count_comes_near(writers, seed, share):
    groups = np.repeat(np.arange(len(writers)), writers)
    labels = np.zeros(len(groups), dtype=np.int64)
    count = max(1, round(share * len(groups)))
    if min(writers) > count:
        with pytest.raises(DataError, match=r"lacks \[0\]"):
            divide(validation=count, seed=seed, how="writer", labels=labels, groups=groups)
        return
    division = divide(validation=count, seed=seed, how="writer", labels=labels, groups=groups)
    assert_complete(division, len(groups))
    outside = set(groups[division.train])
    assert not outside & set(groups[division.validation])
    missing = count - len(division.validation)
    assert 0 <= missing < min(writers[g] for g in outside)  # no writer that is left would still fit


def test_writer_without_groups_says_where_the_file_goes():
    with pytest.raises(DataError, match=r"needs the QMNIST label file.*qmnist-train-labels\.tsv\.gz beside"):
        divide(how="writer", groups=None)


@pytest.mark.parametrize("validation", [0, 3, 1997, 2000, 99999, -5, 0.0001, 0.9999])
def test_too_few_and_too_many_are_refused_with_the_range(validation):
    with pytest.raises(DataError, match=r"data\.validation: 4 to 1996 images can be held out of 2,000 in 4 classes"):
        divide(validation=validation)


def test_a_class_with_one_image_can_not_be_split():
    with pytest.raises(DataError, match="class 1 has one"):
        divide(validation=10, labels=np.array([0] * 50 + [1]), groups=None)


def test_a_class_that_would_be_missing_is_named():
    labels = np.array([0] * 96 + [1] * 4)
    groups = np.array([0] * 48 + [1] * 48 + [2] * 4)  # the only writer of 1s can be on one side only
    with pytest.raises(DataError, match=r"the writer split must leave every class in both parts.*lacks \[1\]"):
        divide(validation=50, how="writer", labels=labels, groups=groups)


@pytest.mark.parametrize(
    ("train", "count"), [(200, 200), (0.1, 150), (1, None), (1500, 1500), (1.0, None), (1499, None)]
)
def test_a_part_to_train_on_keeps_shares_and_touches_no_validation_image(train, count):
    whole = divide()
    if count is None:
        with pytest.raises(
            DataError, match=r"data\.train: 4 to 1496 images can be trained on, or all 1,500 that do not"
        ):
            part_of(whole, LABELS, train=train, seed=1)
        return
    part = part_of(whole, LABELS, train=train, seed=1)
    assert (len(part.train), part.left_out) == (count, 1500 - count)
    assert set(part.train) <= set(whole.train)
    assert (np.diff(part.train) > 0).all()
    np.testing.assert_array_equal(part.validation, whole.validation)
    shares = [np.bincount(LABELS[one.train]) / len(one.train) for one in (part, whole)]
    assert np.abs(shares[0] - shares[1]).max() < 1 / count
    assert (part.digest() == whole.digest()) == (count == 1500)


def test_the_seed_decides_which_part():
    one, again, other = (part_of(divide(), LABELS, train=200, seed=seed) for seed in (1, 1, 2))
    assert one.digest() == again.digest() != other.digest()


@given(
    sizes=st.lists(st.integers(2, 40), min_size=2, max_size=12),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_stratified_split_is_scikit_learns(sizes: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes), dtype=np.uint8), sizes))
    count = round(len(sizes) + share * (len(labels) - 2 * len(sizes)))
    state = int(np.random.Generator(np.random.PCG64(seed)).integers(2**32))
    _, theirs = train_test_split(np.arange(len(labels)), test_size=count, stratify=labels, random_state=state)
    ours = _by_class(labels, count, np.random.Generator(np.random.PCG64(seed)))
    assert sorted(ours) == sorted(theirs)
