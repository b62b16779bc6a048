"""Where data is looked for, in which order, and what is said of what is wrong there."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mnistlab.api import DataPlace
from mnistlab.data.files import FourFiles, four_parts
from mnistlab.data.locate import default_place, find_or_fetch, load_split
from mnistlab.errors import DataError, DataUnavailableError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = (part.name for part in four_parts())


@pytest.fixture
def four(tmp_path, write_four):
    """A published dataset: `four.files` pins what `write_four` writes."""
    contents = write_four(tmp_path / "reference")
    archives = {name: (tmp_path / "reference" / f"{name}.gz").read_bytes() for name in contents}
    pins = [
        (hashlib.sha256(contents[name]).hexdigest(), f"md5:{hashlib.md5(archives[name]).hexdigest()}")
        for name in contents
    ]
    return FourFiles(dataset="tiny", torchvision="Tiny", classes=3, parts=four_parts(pins))


@pytest.fixture
def archive_only(four):
    """The same, but as Fashion-MNIST: nothing is known but the archives' md5."""
    return replace(four, parts=tuple(replace(part, sha256="") for part in four.parts))


@pytest.fixture
def place(tmp_path):
    return DataPlace(data_dir=tmp_path / "data", cache=tmp_path / "cache", offline=True)


@pytest.mark.parametrize("compress", [True, False], ids=["gz", "raw"])
@pytest.mark.parametrize("layout", [".", "tiny", "Tiny/raw"])
def test_every_layout_of_the_users_folder(four, place, write_four, layout, compress):
    write_four(place.data_dir / layout, compress=compress)
    found = find_or_fetch(four, place)
    assert found.source == str(place.data_dir / layout)
    assert found.train.images.shape == (60, 1, 6, 5)
    assert found.test.labels.tolist() == [i % 3 for i in range(20)]
    assert found.sha256 == {part.name: part.sha256 for part in four.parts}
    images, folder = load_split(four, place, "test")
    assert folder == place.data_dir / layout
    np.testing.assert_array_equal(images.images, found.test.images)


def test_a_folder_named_after_the_dataset_goes_before_the_folder_itself(four, place, write_four):
    write_four(place.data_dir, seed=9)  # another dataset, whose files have the same names
    write_four(place.data_dir / "tiny")
    assert find_or_fetch(four, place).source == str(place.data_dir / "tiny")


def test_the_cache_serves_where_the_users_folder_holds_nothing(four, place, write_four):
    place.data_dir.mkdir()
    write_four(place.cache / "tiny")
    assert find_or_fetch(four, place).source == str(place.cache / "tiny")
    assert len(load_split(four, place, "train")[0].labels) == 60


def test_a_users_folder_that_does_not_exist_is_an_error_in_words(four, place, write_four):
    write_four(place.cache / "tiny")
    with pytest.raises(DataError, match="there is no such folder; check --data-dir or MNISTLAB_DATA") as caught:
        find_or_fetch(four, place)
    assert not isinstance(caught.value, DataUnavailableError)
    assert str(place.data_dir) in str(caught.value)


def test_some_files_but_not_all_names_the_missing(four, place, write_four):
    write_four(place.data_dir)
    for name in (TRAIN_LABELS, TEST_IMAGES):
        (place.data_dir / f"{name}.gz").unlink()
    with pytest.raises(DataError, match=rf"missing: {TRAIN_LABELS}\.gz, {TEST_IMAGES}\.gz$"):
        find_or_fetch(four, place)


def test_every_fault_of_every_file_comes_at_once(four, place, write_four):
    contents = write_four(place.data_dir)
    flipped = bytearray(contents[TRAIN_IMAGES])
    flipped[100] ^= 1
    (place.data_dir / f"{TRAIN_IMAGES}.gz").write_bytes(gzip.compress(bytes(flipped)))
    (place.data_dir / f"{TRAIN_LABELS}.gz").write_bytes(b"")
    (place.data_dir / f"{TEST_IMAGES}.gz").write_bytes(b"<html>")
    with pytest.raises(DataError) as caught:
        find_or_fetch(four, place)
    heading, *faults = str(caught.value).splitlines()
    assert heading == f"dataset 'tiny' in {place.data_dir}:"
    assert len(faults) == 3
    assert four.parts[0].sha256 in faults[0]
    assert hashlib.sha256(bytes(flipped)).hexdigest() in faults[0]
    assert "empty" in faults[1]
    assert "HTML page" in faults[2]


def test_a_label_out_of_range_and_counts_that_differ(four, place, write_four):
    unpinned = replace(four, parts=four_parts())
    contents = write_four(place.data_dir, compress=False)
    (place.data_dir / TRAIN_LABELS).write_bytes(contents[TRAIN_LABELS][:-1] + b"\x0a")
    (place.data_dir / TEST_LABELS).write_bytes(b"\0\0\x08\x01\0\0\0\x02\0\1")
    with pytest.raises(DataError) as caught:
        find_or_fetch(unpinned, place)
    assert "labels 0 to 2 were expected, but found 10 at position 59" in str(caught.value)
    assert "20 labels were expected (one an image), but found 2" in str(caught.value)


def test_train_and_test_images_of_different_shapes(four, place, write_four, tmp_path):
    write_four(place.data_dir)
    write_four(tmp_path / "other", shape=(7, 7))
    (tmp_path / "other" / f"{TEST_IMAGES}.gz").rename(place.data_dir / f"{TEST_IMAGES}.gz")
    with pytest.raises(DataError, match=r"\(1, 6, 5\) for training and \(1, 7, 7\) for testing"):
        find_or_fetch(replace(four, parts=four_parts()), place)


def test_loading_one_split_does_not_open_the_other(four, place, write_four):
    write_four(place.data_dir)
    (place.data_dir / f"{TEST_IMAGES}.gz").write_bytes(b"")
    (place.data_dir / f"{TEST_LABELS}.gz").write_bytes(b"")
    assert len(load_split(four, place, "train")[0].labels) == 60
    with pytest.raises(DataError, match="empty"):
        load_split(four, place, "test")


def test_archives_are_verified_where_only_their_hash_is_known(archive_only, place, write_four):
    write_four(place.data_dir)
    assert len(find_or_fetch(archive_only, place).train.labels) == 60


def test_a_repacked_archive_is_refused_where_only_the_archives_hash_is_known(archive_only, place, write_four):
    contents = write_four(place.data_dir)
    repacked = gzip.compress(contents[TRAIN_IMAGES], compresslevel=1, mtime=7)
    (place.data_dir / f"{TRAIN_IMAGES}.gz").write_bytes(repacked)
    with pytest.raises(DataError) as caught:
        find_or_fetch(archive_only, place)
    assert archive_only.parts[0].archive.removeprefix("md5:") in str(caught.value)
    assert hashlib.md5(repacked).hexdigest() in str(caught.value)


def test_decompressed_files_are_refused_with_advice_where_only_the_archives_hash_is_known(
    archive_only, place, write_four
):
    write_four(place.data_dir, compress=False)
    with pytest.raises(DataError, match=r"give the \.gz file, or read this folder as dataset 'idx'"):
        find_or_fetch(archive_only, place)


def test_offline_without_data_says_where_it_looked_and_what_to_do(four, place):
    place.data_dir.mkdir()
    for refused in (partial(find_or_fetch, four, place), partial(load_split, four, place, "train")):
        with pytest.raises(DataUnavailableError) as caught:
            refused()
        for folder in (place.data_dir / "tiny", place.data_dir / "Tiny" / "raw", place.cache / "tiny"):
            assert str(folder) in str(caught.value)
        assert "--data-dir" in str(caught.value)


def test_a_damaged_cache_without_network_is_told(four, place, write_four):
    place.data_dir.mkdir()
    write_four(place.cache / "tiny")
    (place.cache / "tiny" / f"{TEST_LABELS}.gz").write_bytes(b"")
    with pytest.raises(DataUnavailableError, match="the cached copy is damaged"):
        find_or_fetch(four, place)


@pytest.fixture
def mirror(tmp_path, four):
    """A server that serves the reference files, and notes what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "reference")))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield replace(four, mirrors=(f"http://127.0.0.1:{server.server_port}/",)), asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def online(monkeypatch, place):
    monkeypatch.delenv("MNISTLAB_OFFLINE")
    return replace(place, data_dir=None, offline=False)


def test_the_network_fills_the_cache_once(mirror, online):
    files, asked = mirror
    assert find_or_fetch(files, online).source == f"{online.cache / 'tiny'} (fetched)"
    assert sorted(asked) == sorted(f"/{part.name}.gz" for part in files.parts)
    assert find_or_fetch(files, online).source == str(online.cache / "tiny")
    assert len(asked) == 4


def test_a_damaged_file_in_the_cache_is_fetched_again(mirror, online):
    files, asked = mirror
    find_or_fetch(files, online)
    (online.cache / "tiny" / f"{TEST_LABELS}.gz").write_bytes(b"damaged")
    assert len(find_or_fetch(files, online).test.labels) == 20
    assert asked[4:] == [f"/{TEST_LABELS}.gz"]


def test_the_environment_forbids_the_network(mirror, online, monkeypatch):
    files, asked = mirror
    monkeypatch.setenv("MNISTLAB_OFFLINE", "1")
    with pytest.raises(DataUnavailableError, match="offline"):
        find_or_fetch(files, online)
    assert asked == []


def test_no_mirror_left_is_unavailable_with_its_reason(four, online):
    files = replace(four, mirrors=("http://127.0.0.1:9/",))
    with pytest.raises(DataUnavailableError) as caught:
        find_or_fetch(files, online)
    assert "http://127.0.0.1:9/: no connection" in str(caught.value)


def test_default_place_follows_argument_then_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("MNISTLAB_OFFLINE")
    monkeypatch.setenv("MNISTLAB_CACHE", str(tmp_path / "cache"))
    assert default_place() == DataPlace(data_dir=None, cache=tmp_path / "cache", offline=False)
    monkeypatch.setenv("MNISTLAB_DATA", str(tmp_path / "env"))
    monkeypatch.setenv("MNISTLAB_OFFLINE", "1")
    assert default_place() == DataPlace(data_dir=tmp_path / "env", cache=tmp_path / "cache", offline=True)
    assert default_place(tmp_path / "argument").data_dir == tmp_path / "argument"
    monkeypatch.delenv("MNISTLAB_CACHE")
    assert default_place().cache.name == "mnistlab"


def test_a_place_is_absolute_because_workers_have_another_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MNISTLAB_CACHE", "cache")
    assert default_place(Path("../data")) == DataPlace(
        data_dir=tmp_path / "../data", cache=tmp_path / "cache", offline=True
    )
    monkeypatch.setenv("MNISTLAB_DATA", "env")
    assert default_place().data_dir == tmp_path / "env"
