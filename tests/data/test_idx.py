"""IDX files: what is right is read, what is wrong is named with expected and found values."""

from __future__ import annotations

import gzip
import hashlib
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnistlab.data.idx import IMAGES, LABELS, read_idx
from mnistlab.errors import DataError

PIXELS = np.arange(4 * 3 * 5, dtype=np.uint8).reshape(4, 3, 5)
RAW = struct.pack(">4B3I", 0, 0, 8, 3, 4, 3, 5) + PIXELS.tobytes()


@pytest.fixture
def put(tmp_path):
    def put(content: bytes, name: str = "train-images-idx3-ubyte.gz") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return put


@pytest.mark.parametrize("content", [RAW, gzip.compress(RAW)], ids=["raw", "gzip"])
@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_reads_plain_and_compressed_whatever_the_name(put, content, name):
    found = read_idx(put(content, name), IMAGES)
    np.testing.assert_array_equal(found.values, PIXELS)
    assert found.values.dtype == np.uint8
    assert found.sha256 == hashlib.sha256(RAW).hexdigest()


FAULTS = {
    "zero length": (b"", ["empty", "0 bytes"]),
    "HTML page": (b"<!DOCTYPE html><html>404</html>", ["an HTML page", "gzip", "<!DOCTYPE html>"]),
    "truncated raw": (RAW[:-7], ["truncated", "76 bytes (4 x 3 x 5", "found 69"]),
    "truncated header": (RAW[:9], ["truncated", "header of 16 bytes", "found 9"]),
    "three bytes": (RAW[:3], ["not an IDX file", "0x00000803", "0x000008"]),
    "too long": (RAW + b"!", ["longer than its header says", "76 bytes", "77"]),
    "too long, gzip": (gzip.compress(RAW + b"!!"), ["longer than its header says", "76 bytes", "at least 77"]),
    "bad magic": (b"\x12\x34" + RAW[2:], ["not an IDX file", "0x00000803", "0x12340803"]),
    "labels for images": (
        struct.pack(">4BI", 0, 0, 8, 1, 2) + b"ab",
        ["wrong kind", "3 or 4 dimensions", "0x00000801"],
    ),
    "floats": (struct.pack(">4B3I", 0, 0, 13, 3, 1, 1, 1) + b"abcd", ["wrong kind", "uint8", "float32"]),
    "wrong count": (struct.pack(">4B3I", 0, 0, 8, 3, 5, 3, 5) + RAW[16:], ["truncated", "91 bytes (5 x 3 x 5", "76"]),
    "no images": (struct.pack(">4B3I", 0, 0, 8, 3, 0, 3, 5), ["holds nothing", "0 x 3 x 5"]),
    "truncated gzip": (gzip.compress(RAW)[:-12], ["truncated", "76 bytes", "gzip stream ends early"]),
    "gzip without its checksum": (gzip.compress(RAW)[:-8], ["truncated", "76 bytes", "gzip stream ends early"]),
    "gzip header alone": (gzip.compress(RAW)[:11], ["truncated", "gzip stream ends early"]),
    "wrong checksum": (gzip.compress(RAW)[:-5] + b"\xff" + gzip.compress(RAW)[-4:], ["corrupt", "CRC"]),
    "garbage in gzip": (gzip.compress(RAW)[:10] + b"\xff" * 40, ["corrupt", "gzip stream was expected"]),
}


@pytest.mark.parametrize(("content", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_faults_are_named_with_expected_and_found(put, content, words):
    path = put(content)
    with pytest.raises(DataError) as caught:
        read_idx(path, IMAGES)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_a_folder_or_nothing_at_all_is_a_data_error(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="can't be read"):
            read_idx(path, LABELS)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["raw", "gzip"])
@pytest.mark.parametrize("sizes", [(2**31, 28, 28), (2**32 - 1,) * 3, (2**31 - 100, 1, 1)])
def test_a_header_of_huge_dimensions_allocates_nothing(put, pack, sizes):
    path = put(pack(struct.pack(">4B3I", 0, 0, 8, 3, *sizes) + b"\0" * 1000))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"truncated|too large"):
        read_idx(path, IMAGES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def test_a_gzip_bomb_is_not_unpacked_beyond_what_its_header_says(put):
    path = put(gzip.compress(RAW + b"\0" * 200_000_000, compresslevel=1))
    tracemalloc.start()
    with pytest.raises(DataError, match="longer"):
        read_idx(path, IMAGES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.binary(min_size=4, max_size=4) | st.sampled_from([b"\0\0\x08\x01", b"\0\0\x08\x03", b"\0\0\x08\x04"]),
    sizes=st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 6), max_size=4),
    payload=st.binary(max_size=300),
    compress=st.booleans(),
)
def test_any_header_gives_the_array_it_describes_or_a_data_error(tmp_path, head, sizes, payload, compress):
    content = head + b"".join(struct.pack(">I", n) for n in sizes) + payload
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if compress else content)
    try:
        found = read_idx(path, (1, 3, 4))
    except DataError:
        found = None  # and no other exception
    if found is not None:
        rank = content[3]
        assert found.values.shape == struct.unpack_from(f">{rank}I", content, 4)
        assert found.values.tobytes() == content[4 + 4 * rank :]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.lists(st.integers(1, 5), min_size=3, max_size=4), cut=st.integers(0, 400), seed=st.integers(0, 9))
def test_every_prefix_of_a_gzip_file_is_refused_and_the_whole_is_read(tmp_path, shape, cut, seed):
    values = np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)
    whole = gzip.compress(struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape) + values.tobytes())
    path = tmp_path / "file.gz"
    path.write_bytes(whole[:cut])
    if cut >= len(whole):
        np.testing.assert_array_equal(read_idx(path, IMAGES).values, values)
    else:
        with pytest.raises(DataError):
            read_idx(path, IMAGES)
