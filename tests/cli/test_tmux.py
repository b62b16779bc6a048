"""A real search in a real terminal, tmux: its captured screen says what the events say, and so does `watch`."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mnistlab.console.dashboard.frame import frame
from mnistlab.console.dashboard.viewport import DRIVER_HINT, Look
from mnistlab.console.state import ViewState, advance
from mnistlab.store import read_events
from tests.cli.starting import MNISTLAB, wait_until
from tests.cli.test_terminal import EXPERIMENT, environ

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux: the terminal in which the search runs"),
]

WATCH_HINT = "Ctrl-C: leave this view; the run goes on"
Shell = Callable[..., str]


class Tmux:
    """A tmux server of its own, with one window of 100 x 30 in which `command` runs."""

    def __init__(self, folder: Path, command: str) -> None:
        self._folder, self._name = folder, f"mnistlab-{secrets.token_hex(4)}"
        self("new-session", "-d", "-s", "s", "-x", "100", "-y", "30", command)

    def __call__(self, *words: str) -> str:
        settings = {key: value for key, value in environ(self._folder).items() if key != "TMUX"}
        tmux = ["tmux", "-u", "-L", self._name, "-f", "/dev/null"]
        done = subprocess.run(
            [*tmux, *words], cwd=self._folder, env=settings, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    def screen(self, window: str = "s:0") -> list[str]:
        """What stands on the screen, without blank lines at the end."""
        return self("capture-pane", "-p", "-t", window).rstrip("\n").splitlines()

    def everything(self, window: str = "s:0") -> list[str]:
        """What stands on the screen and in the scrollback."""
        return self("capture-pane", "-p", "-S", "-", "-t", window).rstrip("\n").splitlines()

    def until(self, true: Callable[[], object]) -> None:
        wait_until(true)

    def shows(self, text: str, window: str = "s:0") -> bool:
        return text in "\n".join(self.screen(window))

    def resize(self, width: int, height: int, window: str = "s:0") -> None:
        self("resize-window", "-t", window, "-x", str(width), "-y", str(height))

    def cursor_shows(self, window: str = "s:0") -> bool:
        return self("display-message", "-p", "-t", window, "#{cursor_flag}").strip() == "1"


@pytest.fixture
def folder(ray_home: Path) -> Path:
    """A folder with images, whose path is short enough for Ray's sockets."""
    return ray_home


@pytest.fixture
def tmux(folder: Path) -> Iterator[Callable[[str], Tmux]]:
    made: list[Tmux] = []

    def start(command: str) -> Tmux:
        made.append(Tmux(folder, f"echo before; {command}; echo code=$?; read wait"))
        return made[-1]

    yield start
    for one in made:
        one("kill-server")


# --- frames by hand -----------------------------------------------------------------------------------------------

PROGRAM = """
import sys, time
from rich.text import Text
from mnistlab.console.dashboard.screen import Painter
from mnistlab.console.terminal import size_of

painter, number = Painter(sys.stderr), 0
while number < 1_000:
    width, height = size_of(sys.stderr)
    name = f"{width}x{height}"
    painter.paint([Text(f"{name} {row} ".ljust(width, "=")) for row in range(min(20, height - 1))], width, height)
    time.sleep(0.02)
"""


@pytest.mark.parametrize(
    "size",
    [(45, 9), (160, 50), *(pytest.param(one, marks=pytest.mark.chaos) for one in ((60, 30), (140, 30), (100, 12)))],
)
def test_after_a_resize_nothing_of_the_old_frame_is_on_the_screen(
    folder: Path, tmux: Callable[[str], Tmux], size: tuple[int, int]
) -> None:
    (folder / "program.py").write_text(PROGRAM)
    path = shlex.quote(os.pathsep.join(sys.path))
    shown = tmux(f"PYTHONPATH={path} {sys.executable} program.py")
    shown.until(lambda: shown.shows("100x30 19"))
    width, height = size
    shown.resize(width, height)
    last = min(20, height - 1) - 1
    shown.until(lambda: shown.shows(f"{width}x{height} {last} "))
    lines = [line for line in shown.screen() if line != "before"]
    assert lines == [f"{width}x{height} {row} ".ljust(width, "=") for row in range(last + 1)]
    if width >= 100 and height >= 30:
        assert shown.everything()[0] == "before"


# --- a real search ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ("--executor local --ui live", 40),
        pytest.param("", 120, marks=[pytest.mark.ray, pytest.mark.chaos]),
    ],
    ids=["local", "ray"],
)
def test_the_screen_says_what_the_events_say(
    folder: Path, tmux: Callable[[str], Tmux], options: str, epochs: int
) -> None:
    text = EXPERIMENT.replace("epochs = 2", f"epochs = {epochs}").replace("trials = 2", "trials = 3")
    (folder / "tiny.toml").write_text(text)
    shown = tmux(f"{MNISTLAB} search tiny.toml {options}")
    shown.until(lambda: shown.shows("searching"))
    (run,) = (folder / "runs").iterdir()
    shown("new-window", "-d", "-t", "s:1", f"{MNISTLAB} watch {run.name}; echo code=$?; read wait")
    driver = Seen(run, Look(100, 30, hint=DRIVER_HINT))
    driver.compare(shown.screen())
    shown.resize(72, 18)
    shown.until(lambda: shown.shows("1 running"))
    driver, watcher = Seen(run, Look(72, 18, hint=DRIVER_HINT)), Seen(run, Look(100, 30, hint=WATCH_HINT))

    def ended() -> bool:
        driver.compare(shown.screen())
        watcher.compare(shown.screen("s:1"))
        return shown.shows("code=")

    shown.until(ended)
    assert len(driver.states) > 5
    assert len(watcher.states) > 5
    shown.until(lambda: shown.shows("code="))
    shown.until(lambda: shown.shows("code=", "s:1"))
    for window in ("s:0", "s:1"):
        everything = shown.everything(window)
        assert everything[-1] == "code=0"
        assert shown.cursor_shows(window)
    assert [line for line in shown.everything() if re.match(r" *1=? +([\d-]+ +)?000\d ", line)]
    assert not [line for line in shown.screen() if re.search("searching|running|queued", line)]


class Seen:
    """What was seen of a run's frames: each is that of a state, and the states follow on each other."""

    def __init__(self, run: Path, look: Look) -> None:
        self._run, self._look = run, look
        self._state, self._frames = ViewState(), list[list[str]]()  # after no event, the first, the second ...
        self.states: list[int] = []

    def compare(self, lines: list[str]) -> None:
        """Find the state that the captured lines show; before the search and after it there is no dashboard."""
        self._read()  # afterwards: what is seen has been written before
        if not any("searching" in line for line in lines):
            return
        before, shown = self.states[-1] if self.states else 0, without_times(lines)
        possible = [number for number in range(before, len(self._frames)) if self._frames[number] == shown]
        assert possible, "\n".join([f"no state after {before} looks like this:", *lines])
        if possible[0] != before:
            self.states.append(possible[0])

    def _read(self) -> None:
        for stamped in list(read_events(self._run))[len(self._frames) :]:
            self._state = advance(self._state, stamped)
            lines = frame(self._state, self._state.t, self._look)
            self._frames.append(without_times([line.plain for line in lines]))


def without_times(lines: Sequence[str]) -> list[str]:
    """Lines without what changes with the clock alone: elapsed times, the estimate of the end, trials an hour."""
    shown = [re.sub(r"ETA .*|(^| · ) *[\d,.]+ trials/h", "", line) for line in lines if line and line != "before"]
    shown = [re.sub(r"\b(\d+h)?(\d+m)?\d+(\.\d)?s\b", "T", line) for line in shown]
    return [" ".join(line.split()) for line in shown if line.split()]
