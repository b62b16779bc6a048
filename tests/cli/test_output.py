"""Where a command writes a file: whole or not at all, and not where a link leads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from mnistlab.cli.output import NotWrittenError, is_device, write_output
from mnistlab.store import durable
from tests.conftest import RunCli

RECORDED = Path(__file__).parents[1] / "recordings/quick-run"


def test_a_file_is_written_and_written_over(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        write_output(tmp_path / "x.html", content)
        assert (tmp_path / "x.html").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["x.html"]


@pytest.mark.parametrize("leads", ["a file", "nowhere"])
def test_a_link_is_refused_and_named_with_what_it_leads_to(tmp_path: Path, leads: str) -> None:
    target = tmp_path / "precious"
    if leads == "a file":
        target.write_text("kept")
    (tmp_path / "x.html").symlink_to(target)
    with pytest.raises(NotWrittenError, match=rf"can't write .*x\.html: it is a symbolic link to {target}; name that"):
        write_output(tmp_path / "x.html", b"new")
    assert (tmp_path / "x.html").is_symlink()
    assert target.exists() == (leads == "a file")
    assert not target.exists() or target.read_text() == "kept"


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / f"x.html.tmp-{os.getpid()}").symlink_to("precious")
    with pytest.raises(NotWrittenError, match=r"can't write .*: it is a symbolic link"):
        write_output(tmp_path / "x.html", b"new")
    assert (tmp_path / "precious").read_text() == "kept"


def test_an_old_file_is_whole_where_the_new_one_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(28, os.strerror(28))

    (tmp_path / "x.html").write_text("old")
    monkeypatch.setattr(durable, "write", full)
    with pytest.raises(NotWrittenError, match=r"can't write .*x\.html: No space left on device"):
        write_output(tmp_path / "x.html", b"new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.html", "old")]


@pytest.mark.e2e
def test_standard_output_that_is_sent_to_a_file_holds_what_was_asked_for(tmp_path: Path) -> None:
    command = [
        Path(sys.executable).parent / "mnistlab",
        "leaderboard",
        RECORDED,
        "--format",
        "csv",
        "-o",
        "/dev/stdout",
    ]
    (tmp_path / "x").write_bytes(b"before\n")
    with (tmp_path / "x").open("ab") as file:  # as by `>>`
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x").read_bytes().startswith(b"before\ndataset,")


@pytest.mark.parametrize(
    ("command", "begins", "ends"),
    [
        (["status", RECORDED, "--svg"], b"<svg", b"</svg>"),
        (["report", RECORDED, "--format", "html", "--no-predictions", "-o"], b"<!DOCTYPE html>", b"</html>"),
    ],
    ids=["status", "report"],
)
def test_a_file_that_is_open_already_is_written_on(
    tmp_path: Path, run_here: RunCli, command: list[object], begins: bytes, ends: bytes
) -> None:
    (tmp_path / "x").write_bytes(b"before\n")
    with (tmp_path / "x").open("ab") as file:
        done = run_here(*command, f"/dev/fd/{file.fileno()}")
    assert (done.code, done.out) == (0, ""), done.err
    content = (tmp_path / "x").read_bytes()
    assert content.startswith(b"before\n" + begins)
    assert content.rstrip().endswith(ends)


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_output(tmp_path / "pipe", b"through")
    reader.join(10)
    assert got == [b"through"]


@pytest.mark.parametrize("folder", ["out/dev", "out/proc", "/proc/self/cwd/out"])
def test_a_file_in_a_folder_that_is_named_like_the_systems_own_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    here = Path(folder)
    here.mkdir(parents=True)
    for content in (b"first", b"second"):
        write_output(here / "x.html", content)
        assert (here / "x.html").read_bytes() == content
    assert not is_device(here / "x.html")
    (tmp_path / "precious").write_text("kept")
    (here / "link.html").symlink_to(tmp_path / "precious")
    with pytest.raises(NotWrittenError, match="it is a symbolic link to "):
        write_output(here / "link.html", b"new")
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs /dev/shm")
def test_a_file_in_shared_memory_is_written_over() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        for content in (b"first", b"second"):
            write_output(Path(folder) / "x.html", content)
            assert (Path(folder) / "x.html").read_bytes() == content


def test_a_link_to_a_file_is_no_descriptor_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert is_device(Path("/dev/null"))
    assert is_device(Path("/dev/fd/1"))
    assert is_device(Path("/proc/self/fd/1"))
    with (tmp_path / "x").open(
        "wb"
    ) as file:  # a relative name, and another process's descriptors, are links like others
        assert not is_device(Path(f"dev/fd/{file.fileno()}"))
        assert not is_device(Path(f"/proc/{os.getpid()}/fd/{file.fileno()}"))


@pytest.mark.parametrize("place", ["missing/x.html", "."])
def test_a_place_where_nothing_can_be_written_is_said(tmp_path: Path, place: str) -> None:
    said = rf"can't write {re.escape(str(tmp_path / place))}: (No such file|Is a directory)"
    with pytest.raises(NotWrittenError, match=said):
        write_output(tmp_path / place, b"x")


@pytest.mark.parametrize(
    "command",
    [
        ("report", RECORDED, "--no-predictions", "-o", "x.html"),
        ("report", RECORDED, "--no-predictions", "--format", "parquet", "-o", "x.html"),
        ("leaderboard", RECORDED, "--format", "csv", "-o", "x.html"),
        ("leaderboard", RECORDED, "--format", "parquet", "-o", "x.html"),
        ("status", RECORDED, "--svg", "x.html"),
    ],
    ids=lambda words: "-".join(str(word) for word in words if word != RECORDED),
)
def test_no_command_writes_through_a_link(tmp_path: Path, run_here: RunCli, command: tuple[object, ...]) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "x.html").symlink_to("precious")
    done = run_here(*command)
    assert done.code == 2, done.err
    assert "can't write x.html: it is a symbolic link to precious; name that file itself" in done.err
    assert (tmp_path / "precious").read_text() == "kept"
