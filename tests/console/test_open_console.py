from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import termios
import threading
from contextlib import suppress

import pytest

from mnistlab.console.ui import choose_ui, open_console
from mnistlab.errors import ExitCode, SpecError


class Terminal:
    """A pseudo-terminal of a given size, and what has been written to it."""

    def __init__(self, width: int, height: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # the other side is closed
            while data := os.read(self._master, 65_536):
                self._written += data

    def close(self) -> str:
        if not self.stream.closed:
            self.stream.close()
            self._reader.join(timeout=5)
            os.close(self._master)
        return self._written.decode("utf-8", "replace")


@pytest.fixture
def terminal():
    made = []

    def make(width: int = 100, height: int = 30) -> Terminal:
        made.append(Terminal(width, height))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("MNISTLAB_UI", "CI", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_a_pipe_gets_lines(recording):
    stream = io.StringIO()
    with open_console("auto", stream) as handle:
        for stamped in recording:
            handle(stamped)
    text = stream.getvalue()
    assert text.splitlines()[0].startswith("[  0.0s] run cnn-1: up to 16 trials")
    assert text.splitlines()[-1] == "[ 2m53s] run over: done (1 complete, 1 pruned, 1 failed) in 2m53s"
    assert "\x1b" not in text


def test_quiet_is_quiet(recording):
    stream = io.StringIO()
    with open_console("quiet", stream) as handle:
        for stamped in recording:
            handle(stamped)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("size", "environ", "kind"),
    [
        ((100, 30), {}, "live"),
        ((60, 10), {}, "live"),
        ((59, 30), {}, "plain"),
        ((100, 9), {}, "plain"),
        ((100, 30), {"CI": "true"}, "plain"),
        ((100, 30), {"CI": "false"}, "live"),
        ((100, 30), {"TERM": "dumb"}, "plain"),
        ((100, 30), {"MNISTLAB_UI": "quiet"}, "quiet"),
        ((100, 30), {"MNISTLAB_UI": ""}, "live"),
    ],
)
def test_auto_looks_at_the_terminal_and_the_environment(terminal, size, environ, kind):
    assert choose_ui("auto", terminal(*size).stream, environ) == kind


def test_what_is_asked_for_beats_the_environment():
    assert choose_ui("plain", io.StringIO(), {"MNISTLAB_UI": "quiet"}) == "plain"


@pytest.mark.parametrize(
    ("ui", "environ", "place"), [("lively", {}, "--ui"), ("auto", {"MNISTLAB_UI": "x"}, "MNISTLAB_UI")]
)
def test_an_unknown_view_is_refused_with_the_known_ones(ui, environ, place):
    with pytest.raises(SpecError, match="must be one of auto, live, plain, quiet") as caught:
        choose_ui(ui, io.StringIO(), environ)
    assert caught.value.exit_code == ExitCode.USAGE
    assert f"[{place}]" in str(caught.value)


def test_a_terminal_gets_the_live_view_and_its_cursor_back(terminal, recording):
    screen = terminal()
    with open_console("auto", screen.stream) as handle:
        for stamped in recording:
            handle(stamped)
    text = screen.close()
    assert "run over" not in text  # no plain lines between the frames
    assert "best so far  99.12 %  trial 0000" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is hidden, and shown again


def test_the_cursor_comes_back_after_an_error(terminal):
    screen = terminal()
    with pytest.raises(RuntimeError, match="driver"), open_console("live", screen.stream):
        raise RuntimeError("driver")
    assert screen.close().rstrip().endswith("\x1b[?25h")


def test_no_color_means_no_colour(terminal, recording, monkeypatch):
    coloured, plain = terminal(), terminal()
    for screen, no_color in ((coloured, ""), (plain, "1")):
        monkeypatch.setenv("NO_COLOR", no_color)
        with open_console("live", screen.stream) as handle:
            for stamped in recording[:12]:
                handle(stamped)
    assert "\x1b[32m" in coloured.close()
    assert "\x1b[32m" not in plain.close()


def test_a_broken_pipe_silences_the_view_and_not_the_search(recording):
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    with open_console("plain", Gone()) as handle:
        for stamped in recording:
            handle(stamped)


def test_a_stream_that_knows_only_ascii_gets_ascii(recording):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    with open_console("plain", stream) as handle:
        for stamped in recording:
            handle(stamped)
    assert b"cnn depth=3 | adamw lr=0.003" in raw.getvalue()


def test_frames_fit_the_stream_even_after_a_resize(terminal, crowd):
    screen = terminal(100, 30)
    with open_console("live", screen.stream) as handle:
        for stamped in crowd:
            handle(stamped)
        fcntl.ioctl(screen.stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", 12, 70, 0, 0))
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.close().rpartition("cnn-1  ")[2]).splitlines()
    assert len(last) <= 12
    assert max(map(len, last)) <= 70


def test_the_view_keeps_up_with_a_storm_of_events(terminal, recording):
    screen = terminal()
    with open_console("live", screen.stream) as handle:
        for _ in range(2_000):
            for stamped in recording[:6]:
                handle(stamped)
    frames = screen.close().count("searching")
    assert 1 <= frames <= 20  # 12,000 events in about a quarter of a second, two frames a second
