"""Readers of files that others may have written: only errors that are told in words, and memory that stays bounded."""

from __future__ import annotations

import gzip
import json
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mnistlab import events
from mnistlab.data.idx import read_idx
from mnistlab.errors import DataError, SpecError
from mnistlab.experiment.spec import read, validate
from mnistlab.store import RESULT_SCHEMA, read_events
from mnistlab.store.fsck import check
from mnistlab.store.jsonl import decode_line, encode_file, encode_line, is_as_written
from mnistlab.store.results import ReplicateResult, to_json
from tests.faults.conftest import FAULTS
from tests.faults.sample import result

pytestmark = pytest.mark.usefixtures("form")

FUZZ = settings.get_profile(FAULTS)
DEEP = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


@FUZZ
@given(st.binary(max_size=300))
@example(DEEP[:-1] + f',"crc":"{zlib.crc32(DEEP):08x}"}}'.encode())
def test_no_line_is_a_traceback(line: bytes) -> None:
    assert decode_line(line) is None or encode_line(decode_line(line) or {})


@FUZZ
@given(
    kind=st.sampled_from(sorted(events.EVENT_TYPES)),
    keys=st.dictionaries(
        st.sampled_from(["seq", "t", "time", "trial", "epoch", "epochs", "metrics", "message", "gpus"]), JSON
    ),
)
def test_an_event_of_any_values_is_an_event_or_none(kind: str, keys: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(encode_line({"schema": events.SCHEMA, "type": kind, **keys}))
    assert len(list(read_events(tmp_path))) <= 1


@pytest.mark.parametrize(
    "content",
    [b"x" * (4 << 20), b"\0" * (4 << 20), b"{}\n" * (1 << 20), DEEP * 8, b'{"a":"' + b"\\u0000" * (1 << 19) + b'"}\n'],
    ids=["one line", "zeros", "many lines", "deep", "long text"],
)
def test_reading_events_takes_no_more_than_the_longest_line_does(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(content)
    tracemalloc.start()
    try:
        assert list(read_events(tmp_path)) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * max(map(len, content.split(b"\n"))) + (1 << 20)


@FUZZ
@given(body=JSON, name=st.sampled_from(["", "/replicates/1", "/refit"]), known=st.booleans())
@example(body={"history": [3], "number": "x", "trial": "0000"}, name="", known=True)
def test_no_result_is_a_traceback_of_fsck(body: object, name: str, known: bool, tmp_path: Path) -> None:
    """Also one without a checksum, that someone has written by hand."""
    folder = tmp_path / f"trials/0000{name}"
    folder.mkdir(parents=True, exist_ok=True)
    if known and isinstance(body, dict):
        whole = to_json(result(0, "complete") if not name else ReplicateResult(trial="0000", replicate=1, seed=1))
        body = {"schema": RESULT_SCHEMA, **whole, **body}
    (folder / "result.json").write_text(json.dumps(body))
    assert check(tmp_path).findings
    (folder / "result.json").unlink()


@FUZZ
@given(st.dictionaries(st.text(min_size=1, max_size=6), JSON, min_size=1, max_size=5).filter(lambda d: "crc" not in d))
def test_a_file_comes_back_with_its_checksum_and_each_change_is_seen(body: dict[str, object]) -> None:
    content = encode_file(body)
    assert is_as_written(content) is True
    assert is_as_written(content.replace(b"\n ", b"\n  ", 1)) in {False, None}


@FUZZ
@given(content=st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
@example(content=b"a = " + b"[" * 5000)
@example(content=b"seed = 1e999")
@example(content=b"x" * 100_000)
def test_no_experiment_file_is_a_traceback(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    try:
        draft = read(path)
    except SpecError:
        return
    spec, found = validate(draft)
    assert (spec is None) == bool(found)


@FUZZ
@given(
    magic=st.sampled_from([0x801, 0x803, 0, 0xFFFFFFFF]) | st.integers(0, 2**32 - 1),
    sizes=st.lists(st.sampled_from([0, 1, 28, 2**16, 2**31, 2**32 - 1]), min_size=0, max_size=4),
    rest=st.binary(max_size=100),
    packed=st.booleans(),
)
def test_no_header_of_an_idx_file_takes_memory_that_the_file_has_not(
    magic: int, sizes: list[int], rest: bytes, packed: bool, tmp_path: Path
) -> None:
    content = struct.pack(">I", magic) + b"".join(struct.pack(">I", size) for size in sizes) + rest
    path = tmp_path / ("x.gz" if packed else "x")
    path.write_bytes(gzip.compress(content) if packed else content)
    tracemalloc.start()
    try:
        read_idx(path, (1, 3))
    except DataError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20
