"""The built-in datasets, on the real files where they are there."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import time

import numpy as np
import pytest
from torchvision.datasets import MNIST as TORCHVISION_MNIST

from mnistlab.api import DataPlace, ImageShape
from mnistlab.builtin.datasets import mnist, mnistlab_datasets, own, qmnist, relatives
from mnistlab.data import default_place, open_test, open_train, prepare_dataset, split_indices
from mnistlab.errors import DataError, DataUnavailableError
from mnistlab.util.seal import opened

RECORDS = {record.name: record for record in mnistlab_datasets()}
PUBLISHED = {"mnist": mnist.FILES, "fashion-mnist": relatives.FASHION_FILES, "kmnist": relatives.KMNIST_FILES}


def prepare(name, place, **config):
    return prepare_dataset(RECORDS[name], RECORDS[name].config(**config), place)


def train(name, place, **config):
    return open_train(RECORDS[name], RECORDS[name].config(**config), place)


def held_out(name, place, **config):
    with opened():
        return open_test(RECORDS[name], RECORDS[name].config(**config), place)


@pytest.fixture
def place(tmp_path):
    return DataPlace(data_dir=None, cache=tmp_path / "cache", offline=True)


@pytest.fixture
def real(mnist_folder, tmp_path):
    return DataPlace(data_dir=mnist_folder, cache=tmp_path / "cache", offline=True)


# --- the records --------------------------------------------------------------------------------------------------


def test_the_records_are_those_of_the_readme():
    assert list(RECORDS) == ["mnist", "fashion-mnist", "kmnist", "digits", "idx"]
    assert all(record.summary.endswith(".") for record in RECORDS.values())


@pytest.mark.parametrize("files", PUBLISHED.values(), ids=PUBLISHED)
def test_every_mirror_is_https_and_every_archive_is_pinned(files):
    assert files.mirrors
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in files.mirrors)
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", part.archive) for part in files.parts)
    assert len({part.archive for part in files.parts}) == 4


def test_mnist_archives_are_those_that_torchvision_publishes(mnist_folder):
    published = dict(TORCHVISION_MNIST.resources)
    checked = 0
    for part in mnist.FILES.parts:
        content = (mnist_folder / f"{part.name}.gz").read_bytes()
        if hashlib.md5(content).hexdigest() == published[f"{part.name}.gz"]:  # a repacked archive says nothing here
            assert part.archive == f"sha256:{hashlib.sha256(content).hexdigest()}"
            checked += 1
    assert checked > 0


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_datasets_without_files_and_network_are_unavailable(place, name):
    with pytest.raises(DataUnavailableError, match=f"dataset '{name}' is neither to be found nor to be fetched"):
        prepare(name, place)


def test_files_of_another_dataset_are_not_taken_for_fashion(real):
    with pytest.raises(DataError, match="a file of another dataset: sha256 3aede38d61863908ad78613f6a32ed2716"):
        prepare("fashion-mnist", real)


# --- mnist --------------------------------------------------------------------------------------------------------


def test_the_real_mnist_whole_and_quick(real):
    start = time.perf_counter()
    info = prepare("mnist", real)
    assert time.perf_counter() - start < 5  # about 0.3 s on an idle core: this catches only the absurd
    assert info.shape == ImageShape(1, 28, 28, 10)
    assert (info.train_count, info.test_count) == (60_000, 10_000)
    assert info.class_names == tuple("0123456789")
    assert info.source == str(real.data_dir)
    assert {name: digest for name, digest in info.sha256.items() if name != qmnist.NAME} == {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }


def test_the_real_mnist_looks_like_mnist(real):
    images, test = train("mnist", real), held_out("mnist", real)
    assert images.images.shape == (60_000, 1, 28, 28)
    assert images.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.images.shape == (10_000, 1, 28, 28)
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert round(float(images.images.mean()) / 255, 4) == 0.1307
    assert test.groups is None


@pytest.mark.parametrize("layout", [".", "mnist", "MNIST/raw"])
def test_mnistlab_data_in_each_layout(mnist_folder, tmp_path, monkeypatch, layout):
    folder = tmp_path / layout
    folder.mkdir(parents=True, exist_ok=True)
    for path in mnist_folder.glob("*.gz"):
        (folder / path.name).symlink_to(path)
    monkeypatch.setenv("MNISTLAB_DATA", str(tmp_path))
    assert prepare("mnist", default_place()).source == str(folder)


def test_a_flipped_byte_in_the_real_labels_is_found(mnist_folder, tmp_path, place):
    for path in mnist_folder.glob("*.gz"):
        shutil.copyfile(path, tmp_path / path.name)
    labels = bytearray(gzip.decompress((tmp_path / "train-labels-idx1-ubyte.gz").read_bytes()))
    labels[1000] ^= 1
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(labels)))
    with pytest.raises(DataError) as caught:
        prepare("mnist", DataPlace(data_dir=tmp_path, cache=place.cache, offline=True))
    assert "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5" in str(caught.value)
    assert hashlib.sha256(labels).hexdigest() in str(caught.value)


# --- who wrote it -------------------------------------------------------------------------------------------------


@pytest.fixture
def with_writers(mnist_folder, qmnist_folder, tmp_path):
    """MNIST in one folder; the label file where `put` says, relative to it."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for path in mnist_folder.glob("*.gz"):
        (folder / path.name).symlink_to(path)

    def put(where: str, content: bytes | None = None) -> DataPlace:
        target = folder / where / f"{qmnist.NAME}.gz"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content or (qmnist_folder / target.name).read_bytes())
        return DataPlace(data_dir=folder, cache=tmp_path / "cache", offline=True)

    return put


@pytest.mark.parametrize("where", [".", "qmnist", "../qmnist"])
def test_writers_are_read_from_beside_inside_or_next_to_the_files(with_writers, where):
    place = with_writers(where)
    assert prepare("mnist", place).sha256[qmnist.NAME]
    groups = train("mnist", place).groups
    assert groups is not None
    assert groups.dtype == np.int64
    assert len(np.unique(groups)) == 539


def test_the_writer_split_of_the_real_mnist_is_disjoint(with_writers):
    images = train("mnist", with_writers("."))
    division = split_indices(images.labels, images.groups, validation=10_000, seed=3, how="writer")
    assert not set(images.groups[division.train]) & set(images.groups[division.validation])
    left_out = np.unique(images.groups[division.train], return_counts=True)[1]
    assert 0 <= 10_000 - len(division.validation) < left_out.min()  # no writer that is left would still fit
    assert len(division.train) + len(division.validation) == 60_000
    stratified = split_indices(images.labels, images.groups, validation=10_000, seed=3)
    assert set(images.groups[stratified.train]) & set(images.groups[stratified.validation])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda rows: [rows[1], rows[0], *rows[2:]], "label 5 was expected in row 0, as in MNIST, but found 0"),
        (lambda rows: rows[:-1], "60,000 rows were expected .* but found 59,999"),
        (lambda rows: [b"nonsense"], "tab-separated columns"),
    ],
    ids=["order", "count", "nonsense"],
)
def test_a_label_file_that_is_not_about_these_images_is_refused(with_writers, qmnist_folder, spoil, words):
    rows = gzip.decompress((qmnist_folder / f"{qmnist.NAME}.gz").read_bytes()).splitlines()
    place = with_writers(".", gzip.compress(b"\n".join(spoil(rows)) + b"\n", compresslevel=1))
    with pytest.raises(DataError, match=words):
        prepare("mnist", place)


def test_a_truncated_label_file_is_refused(with_writers, qmnist_folder):
    place = with_writers(".", (qmnist_folder / f"{qmnist.NAME}.gz").read_bytes()[:5000])
    with pytest.raises(DataError, match="tab-separated columns"):
        train("mnist", place)


# --- digits -------------------------------------------------------------------------------------------------------


def test_digits_need_nothing_and_look_like_mnist(place):
    info = prepare("digits", place)
    images, test = train("digits", place), held_out("digits", place)
    assert info.shape == ImageShape(1, 28, 28, 10)
    assert (info.train_count, info.test_count) == (len(images.labels), len(test.labels)) == (1297, 500)
    assert images.images.shape == (1297, 1, 28, 28)
    assert images.images.dtype == np.uint8
    assert images.labels.dtype == np.int64
    assert images.images.max() == 255
    assert images.images.min() == 0
    assert 100 < images.images.mean(axis=(0, 1))[10:18, 10:18].mean() < 200  # ink in the middle
    share = np.bincount(test.labels) / np.bincount(np.concatenate([images.labels, test.labels]))
    assert np.abs(share - 500 / 1797).max() < 0.01


def test_digits_are_the_same_every_time_and_no_image_is_in_both_parts(place):
    images, test = train("digits", place), held_out("digits", place)
    assert prepare("digits", place) == prepare("digits", place)
    assert prepare("digits", place).sha256["train-images"] == hashlib.sha256(images.images.tobytes()).hexdigest()
    trained_on = {image.tobytes() for image in images.images}
    assert sum(image.tobytes() in trained_on for image in test.images) == 0


def test_digits_keep_their_form_when_scaled(place):
    from sklearn.datasets import load_digits

    images = train("digits", place)
    box = images.images[:, 0, 4:24, 4:24]
    assert images.images.sum() == box.sum()  # nothing but background around it
    raw = load_digits()
    small = raw.images.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)) * (255 / 16)
    large = box.reshape(-1, 4, 5, 4, 5).mean(axis=(2, 4))  # a 4x4 grid over the same picture
    for i in range(0, 1297, 50):
        distance = np.abs(small - large[i]).max(axis=(1, 2))
        assert distance.min() < 40
        assert raw.target[distance.argmin()] == images.labels[i]


# --- idx ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 5), (3, 6, 5)], ids=["grey", "three channels"])
@pytest.mark.parametrize("compress", [True, False])
def test_a_folder_of_ones_own_files(place, tmp_path, write_four, shape, compress):
    contents = write_four(tmp_path / "mine", shape=shape, compress=compress)
    folder = str(tmp_path / "mine")
    info = prepare("idx", place, folder=folder)
    channels = 1 if len(shape) == 2 else 3
    assert info.shape == ImageShape(channels, 6, 5, 3)
    assert (info.train_count, info.test_count, info.class_names) == (60, 20, ("0", "1", "2"))
    assert info.sha256 == {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    pixels = np.frombuffer(contents["t10k-images-idx3-ubyte"][4 + 4 * (1 + len(shape)) :], dtype=np.uint8)
    np.testing.assert_array_equal(held_out("idx", place, folder=folder).images.ravel(), pixels)
    assert train("idx", place, folder=folder).images.shape == (60, channels, 6, 5)


def test_images_with_channels_may_be_called_idx4(place, tmp_path, write_four):
    write_four(tmp_path / "mine", shape=(3, 6, 5))
    for part in ("train", "t10k"):
        (tmp_path / "mine" / f"{part}-images-idx3-ubyte.gz").rename(tmp_path / "mine" / f"{part}-images-idx4-ubyte.gz")
    assert prepare("idx", place, folder=str(tmp_path / "mine")).shape.channels == 3


def test_idx_takes_the_data_folder_where_none_is_set(tmp_path, write_four):
    write_four(tmp_path / "mine")
    assert prepare("idx", DataPlace(data_dir=tmp_path / "mine", cache=tmp_path)).source == str(tmp_path / "mine")


def test_a_relative_folder_is_seen_from_where_it_was_named(place, tmp_path, write_four, monkeypatch):
    write_four(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    named = own.IdxConfig.model_validate({"folder": "mine"})
    monkeypatch.chdir("/")  # where workers are, and whoever goes on with the run
    assert own.IDX.prepare(named, place).source == str(tmp_path / "mine")
    assert own.IdxConfig.model_validate(named.model_dump()) == named
    assert own.IdxConfig(folder="~/mine").folder == "~/mine"


def test_idx_says_what_is_missing(place, tmp_path, write_four):
    with pytest.raises(DataError, match="set `folder`, or give --data-dir or MNISTLAB_DATA"):
        prepare("idx", place)
    with pytest.raises(DataError, match="nowhere: a folder with four IDX files was expected"):
        prepare("idx", place, folder=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"none of train-images-idx3-ubyte, .* is there"):
        prepare("idx", place, folder=str(tmp_path))
    write_four(tmp_path / "mine")
    (tmp_path / "mine" / f"{own.FILES.parts[1].name}.gz").unlink()
    with pytest.raises(DataError, match=r"missing: train-labels-idx1-ubyte\.gz"):
        prepare("idx", place, folder=str(tmp_path / "mine"))
