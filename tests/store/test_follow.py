"""A run seen from outside: which one is meant, and a reader that no torn, damaged or unknown line can mislead."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistlab import events
from mnistlab.events import Stamped
from mnistlab.store import NoSuchRunError, RunWriter, read_events
from mnistlab.store.follow import find_stream, follow_events, is_running
from mnistlab.store.jsonl import encode_line
from mnistlab.store.layout import trial_name

WHEN = datetime(2026, 11, 22, 19, 0, tzinfo=UTC)

texts = st.text(max_size=12)
names = st.integers(0, 10**6).map(trial_name)  # another one would be refused: it becomes a path
floats = st.floats(allow_nan=False, allow_infinity=False, width=32)
kinds = st.one_of(
    st.builds(events.Warned, message=texts),
    st.builds(
        events.TrialEpoch,
        trial=names,
        epoch=st.integers(0, 99),
        epochs=st.integers(0, 99),
        metrics=st.dictionaries(texts, floats, max_size=3),
    ),
    st.builds(events.ConfirmationStarted, trials=st.lists(texts, max_size=3).map(tuple), seeds=st.integers(0, 9)),
)
streams = st.lists(kinds, min_size=1, max_size=8).map(
    lambda found: [
        Stamped(seq=i, time=WHEN + timedelta(seconds=i), t=float(i), event=e) for i, e in enumerate(found, 1)
    ]
)


def lines_of(stream: list[Stamped]) -> list[bytes]:
    return [encode_line(events.to_json(one)) for one in stream]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


def written(folder: Path, data: bytes) -> list[Stamped]:
    (folder / "events.jsonl").write_bytes(data)
    return list(read_events(folder))


@given(stream=streams, data=st.data())
def test_a_stream_cut_at_any_byte_gives_the_events_before_the_cut(
    folder: Path, stream: list[Stamped], data: Any
) -> None:
    whole = b"".join(lines_of(stream))
    cut = data.draw(st.integers(0, len(whole)))
    # An event is whole with its last brace; the line's end may be what is missing.
    ends = [len(b"".join(lines_of(stream)[: i + 1])) for i in range(len(stream))]
    assert written(folder, whole[:cut]) == [one for one, end in zip(stream, ends, strict=True) if cut >= end - 1]


@given(stream=streams, data=st.data())
def test_a_changed_byte_costs_no_event_but_those_of_its_line(folder: Path, stream: list[Stamped], data: Any) -> None:
    lines = lines_of(stream)
    number = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.integers(0, len(lines[number]) - 2))
    old = lines[number][place : place + 1]
    new = data.draw(st.binary(min_size=1, max_size=1).filter(lambda byte: byte not in {old, b"\n"}))
    lines[number] = lines[number][:place] + new + lines[number][place + 1 :]
    assert written(folder, b"".join(lines)) == [one for one in stream if one.seq != number + 1]


@given(stream=streams, kind=texts, where=st.integers(0, 8))
def test_unknown_kinds_are_skipped(folder: Path, stream: list[Stamped], kind: str, where: int) -> None:
    lines = lines_of(stream)
    strange = {"schema": events.SCHEMA, "seq": 9, "type": f"{kind}?", "time": WHEN.isoformat(), "t": 1.0, "more": [1]}
    lines.insert(where, encode_line(strange))
    assert written(folder, b"".join(lines)) == stream


@given(rubbish=st.binary(max_size=200))
def test_what_is_no_stream_at_all_gives_nothing(folder: Path, rubbish: bytes) -> None:
    assert written(folder, rubbish) == []


@given(stream=streams, data=st.data())
def test_following_a_writer_gives_each_event_once_however_its_writes_are_cut(
    folder: Path, stream: list[Stamped], data: Any
) -> None:
    whole = b"".join(lines_of(stream))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    path = folder / "events.jsonl"
    path.write_bytes(b"")

    def waiting() -> bool:
        if not parts:
            return False
        with path.open("ab") as file:
            file.write(parts.pop(0))
        return True

    assert list(follow_events(folder, waiting)) == stream


def test_a_run_is_running_while_its_driver_holds_the_lock(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    writer = RunWriter(tmp_path)
    assert is_running(tmp_path)
    writer.close()
    assert not is_running(tmp_path)


def test_two_who_look_at_once_whether_a_run_is_driven_take_neither_for_a_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunWriter(tmp_path).close()
    flock, second = fcntl.flock, list[bool]()

    def while_another_looks(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        monkeypatch.setattr(fcntl, "flock", flock)
        second.append(is_running(tmp_path))

    monkeypatch.setattr(fcntl, "flock", while_another_looks)
    assert not is_running(tmp_path)
    assert second == [False]


def begun(root: Path, name: str, age: float) -> Path:
    path = root / name
    path.mkdir(parents=True)
    RunWriter(path).close()
    os.utime(path / ".lock", (1e9 - age, 1e9 - age))
    return path


def test_the_newest_run_is_meant_where_none_is_named(tmp_path: Path) -> None:
    begun(tmp_path, "b-1", age=50)
    newest = begun(tmp_path, "a-1", age=10)
    begun(tmp_path, "c-1", age=20)
    assert find_stream(None, tmp_path) == newest


def test_a_run_is_found_by_name_and_by_path_before_it_has_a_record(tmp_path: Path) -> None:
    path = begun(tmp_path / "runs", "a-1", age=0)
    assert find_stream("a-1", tmp_path / "runs") == path
    assert find_stream(str(path), tmp_path) == path


def test_a_run_that_is_not_there_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(NoSuchRunError, match="start one with"):
        find_stream(None, tmp_path)
    begun(tmp_path, "quick-1", age=0)
    with pytest.raises(NoSuchRunError, match="did you mean 'quick-1'"):
        find_stream("quikc-1", tmp_path)


def test_what_a_driver_writes_just_before_it_goes_is_read_too(folder: Path) -> None:
    stream = [Stamped(seq=i, time=WHEN, t=float(i), event=events.Warned(message=str(i))) for i in range(1, 4)]
    first, *rest = lines_of(stream)
    path = folder / "events.jsonl"
    path.write_bytes(first)

    def waiting() -> bool:
        with path.open("ab") as file:  # the driver ends while the reader waits, and is gone when it looks
            file.write(b"".join(rest))
        return False

    assert [one.seq for one in follow_events(folder, waiting)] == [1, 2, 3]
