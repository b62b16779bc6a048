"""The n-th operation on the disk fails, or the process dies there, for every n."""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from mnistlab.errors import RunWriteError, SpecError
from mnistlab.store import RunWriter, create_run, durable, read_events, read_run
from mnistlab.store.fsck import check, repair
from mnistlab.store.jsonl import read_lines
from tests.faults.sample import DAY, attempt, faults, write_run

AFTER = {f"after-{one}" for one in durable.OPERATIONS} - {"after-replace"}
FAILING = ("open", "make-folder", "write", "fsync", "replace", "fsync-folder")


def every(operation: str, times: int) -> range:
    """Return which passings to try: all of them, but of opening and making folders, which change nothing, a sample."""
    return range(1, times + 1, 5 if operation.endswith(("open", "make-folder")) else 1)


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """How often each point is passed while a whole run is written."""
    counted, path = Counter[str](), create_run(tmp_path_factory.mktemp("counted"), "x", DAY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "reached", lambda point: counted.update([point]))
        attempt(path, write_run)
    return counted


@pytest.mark.parametrize(
    ("for_ever", "code"),
    [
        pytest.param(False, errno.ENOSPC, id="once-ENOSPC"),
        pytest.param(True, errno.EIO, id="from-then-on-EIO"),
        pytest.param(False, errno.EIO, id="once-EIO", marks=pytest.mark.chaos),
        pytest.param(True, errno.ENOSPC, id="from-then-on-ENOSPC", marks=pytest.mark.chaos),
    ],
)
@pytest.mark.parametrize("operation", FAILING)
def test_whichever_operation_fails_the_error_names_path_and_reason_and_nothing_half_written_counts(
    operation: str, for_ever: bool, code: int, passed: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in every(operation, passed[f"before-{operation}"]):
        path = create_run(tmp_path, "x", DAY)
        seen = 0

        def refuse(point: str, number: int = number) -> None:
            nonlocal seen
            if point == f"before-{operation}":
                seen += 1
                if seen == number or (for_ever and seen > number):
                    raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(durable, "reached", refuse)
            with pytest.raises(RunWriteError) as caught:
                attempt(path, write_run)
        assert str(caught.value).startswith(f"can't write {path}"), number
        assert str(caught.value).endswith(os.strerror(code)), number
        assert caught.value.exit_code == 75
        assert faults(path) == [], number
        assert not [*path.rglob("*.tmp-*")], number  # a disk that is full is not filled with litter
        RunWriter(path).close()  # the lock is free, and the directory can be gone on with


def died(work: object, crash_at: str) -> bool:
    """Do it in a child that is to be killed there; return whether it was."""
    child = os.fork()
    if child == 0:
        os.environ[durable.CRASH_AT] = crash_at
        durable._passed.clear()
        try:
            work()  # type: ignore[operator]
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


# After one operation is before the next one: what there is to find on the disk is nearly always the same.
LONG = [pytest.param(one, marks=pytest.mark.chaos) for one in durable.POINTS if one in AFTER]


@pytest.mark.simulated
@pytest.mark.parametrize("point", [*(one for one in durable.POINTS if one not in AFTER), *LONG])
def test_whoever_is_killed_at_any_point_leaves_a_sound_directory_that_can_be_gone_on_with(
    point: str, passed: Counter[str], tmp_path: Path
) -> None:
    number_of_times = passed["before-write" if point == durable.MID_WRITE else point]
    assert number_of_times or point.endswith("truncate")
    for number in every(point, number_of_times):
        path = create_run(tmp_path, "x", DAY)
        assert died(lambda path=path: attempt(path, write_run), f"{point}:{number}"), number
        assert faults(path) == [], number
        done = [stamped.seq for stamped in read_events(path)]
        repair(path)
        again = check(path)
        assert again.sound
        assert not [one for one in again.findings if one.mend], number
        assert [stamped.seq for stamped in read_events(path)][: len(done)] == done, number
        if (path / "run.json").exists():
            read_run(path)


@pytest.mark.simulated
def test_what_was_acknowledged_before_the_kill_is_there_after_it(passed: Counter[str], tmp_path: Path) -> None:
    for number in range(1, passed["before-write"] + 1, 4):
        path, said = create_run(tmp_path, "x", DAY), tmp_path / f"said-{number}"

        def work(path: Path = path, said: Path = said) -> None:
            with said.open("ab", buffering=0) as file:
                writer = RunWriter(path)
                append, ledger = writer.append, writer.append_ledger
                writer.append = lambda event: (append(event), file.write(b"e"))[0]  # type: ignore[method-assign]
                writer.append_ledger = lambda entry: (ledger(entry), file.write(b"l"))[0]  # type: ignore[method-assign]
                write_run(writer)

        assert died(work, f"mid-write:{number}")
        acknowledged = said.read_bytes() if said.exists() else b""
        assert len([*read_events(path)]) >= acknowledged.count(b"e")
        assert len([*read_lines(path / "test_ledger.jsonl")]) >= acknowledged.count(b"l")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("before-fsink:1", "did you mean 'before-fsync'"),
        ("before-fsync:0", "must be POINT:N with N counted from 1"),
        ("before-fsync", "for example before-fsync:1"),
        ("before-fsync:x", "must be POINT:N"),
    ],
)
def test_a_point_that_is_none_is_refused_so_that_no_test_passes_by_a_slip(
    value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(durable.CRASH_AT, value)
    with pytest.raises(SpecError, match=r"\[MNISTLAB_CRASH_AT\]") as caught:
        RunWriter(create_run(tmp_path, "x", DAY))
    assert said in str(caught.value)
