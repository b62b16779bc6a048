"""What a person sees of the live view: drawn on a pseudo-terminal, read by a terminal in memory."""

from __future__ import annotations

import io
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from rich.text import Text

from mnistlab import events as ev
from mnistlab.console.dashboard import screen as screen_module
from mnistlab.console.dashboard.screen import LONGEST, Painter, Screen, pause_after
from mnistlab.console.dashboard.viewport import DRIVER_HINT
from mnistlab.console.views import Ui
from tests.console.conftest import stamp
from tests.terminals import Cropping, Terminal, Wrapping

SIZES = {"narrower": (60, 30), "wider": (140, 30), "shorter": (100, 12), "tiny": (45, 9), "larger": (160, 50)}
SHELL = ["$ ls", "a file that was here before", "$ mnistlab search x.toml"]
MakeTerminal = Callable[..., Terminal]


@pytest.fixture
def terminal(terminal: MakeTerminal) -> MakeTerminal:
    """Terminals on which something stands already."""

    def make(*arguments: Any) -> Terminal:
        shown = terminal(*arguments)
        shown.stream.write("".join(f"{line}\n" for line in SHELL))
        shown.stream.flush()
        return shown

    return make


def rows(name: str, count: int, width: int) -> list[Text]:
    """Lines of exactly `width` cells, each of which tells to which frame it belongs."""
    return [Text(f"{name}{number} ".ljust(width, name), style="bold green") for number in range(count)]


def plain(lines: list[Text]) -> list[str]:
    return [line.plain.rstrip() for line in lines]


# --- frames over each other ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(5, 3, 9), (1, 1), (9, 1, 9), (29, 2)])
def test_frames_leave_nothing_of_each_other(terminal, counts):
    shown = terminal()
    painter = Painter(shown.stream)
    for name, count in zip("abcde", counts, strict=False):
        painter.paint(rows(name, count, 100), 100, 30)
        assert shown.everything() == SHELL + plain(rows(name, count, 100))
    painter.give_back()
    assert shown.everything() == SHELL


def test_a_frame_is_one_synchronized_update(terminal):
    shown = terminal()
    painter = Painter(shown.stream)
    for name in "ab":
        painter.paint(rows(name, 3, 100), 100, 30)
    painter.say(rows("c", 2, 100))
    frames = shown.written().split("\x1b[?2026h")[1:]
    assert len(frames) == 3
    assert all(text.count("\x1b[?2026l") == 1 and text.endswith("\x1b[?2026l") for text in frames)


def test_a_frame_that_stands_there_already_is_not_drawn_again(terminal):
    shown = terminal()
    painter = Painter(shown.stream)
    painter.paint(rows("a", 3, 100), 100, 30)
    before = shown.written()
    painter.paint(rows("a", 3, 100), 100, 30)
    assert shown.written() == before
    painter.paint([Text("a0", style="red"), *rows("a", 3, 100)[1:]], 100, 30)
    assert shown.written() != before


def test_the_cursor_is_hidden_for_as_long_as_there_are_frames(terminal):
    shown = terminal()
    painter = Painter(shown.stream)
    assert not shown.cursor_hidden
    painter.paint(rows("a", 3, 100), 100, 30)
    shown.settle()
    assert shown.cursor_hidden
    painter.give_back()
    shown.settle()
    assert not shown.cursor_hidden


def test_what_is_typed_is_not_drawn_into_the_frame(terminal):
    shown = terminal()
    painter = Painter(shown.stream)
    painter.paint(rows("a", 3, 100), 100, 30)
    shown.type("what a person types\n")
    assert shown.everything() == SHELL + plain(rows("a", 3, 100))
    painter.give_back()
    assert shown.echoes


def test_no_colour_means_no_colour(terminal):
    coloured, uncoloured = terminal(), terminal()
    Painter(coloured.stream).paint(rows("a", 1, 100), 100, 30)
    Painter(uncoloured.stream, color=False).paint(rows("a", 1, 100), 100, 30)
    assert ";32m" in coloured.written()
    assert "32m" not in uncoloured.written()


def test_lines_that_are_said_stay_above_the_frame(terminal):
    shown = terminal()
    painter = Painter(shown.stream)
    said: list[str] = []
    for name in "bcd":
        painter.paint(rows("a", 9, 100), 100, 30)
        painter.say(rows(name, 12, 100))
        said += plain(rows(name, 12, 100))
        assert shown.everything() == SHELL + said + plain(rows("a", 9, 100))
    painter.give_back()
    assert shown.everything() == SHELL + said


# --- another size -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Cropping, Wrapping])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("count", [1, 8, 29])
def test_after_a_resize_the_screen_holds_the_new_frame_and_nothing_of_the_old_one(terminal, kind, size, count):
    shown = terminal(100, 30, kind)
    painter = Painter(shown.stream)
    painter.paint(rows("a", count, 100), 100, 30)
    shown.settle()
    width, height = size
    shown.resize(width, height)
    new = rows("b", min(count, height - 1), width)
    painter.paint(new, width, height)
    shown.settle()
    assert shown.lines()[-len(new) :] == plain(new)
    assert not [line for line in shown.lines() if re.match(r"a\d|a*$", line)]
    painter.give_back()
    shown.settle()
    assert not [line for line in shown.lines() if re.match(r"a\d|a*$|b\d|b*$", line)]


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_where_long_lines_are_cut_a_resize_takes_nothing_from_what_was_there_before(terminal, size):
    shown = terminal(100, 30, Cropping)
    painter = Painter(shown.stream)
    painter.paint(rows("a", 20, 100), 100, 30)
    shown.settle()
    shown.resize(*size)
    new = rows("b", min(20, size[1] - 1), size[0])
    painter.paint(new, *size)
    assert shown.everything() == SHELL + plain(new)


def test_a_frame_for_a_terminal_that_has_become_narrower_is_cut_rather_than_wrapped(terminal):
    shown = terminal(60, 30)
    painter = Painter(shown.stream)
    painter.paint(rows("a", 5, 100), 100, 30)
    shown.settle()
    assert len(shown.everything()) == len(SHELL) + 5


# --- the whole screen ---------------------------------------------------------------------------------------------


def test_the_whole_screen_is_entered_and_left(terminal):
    shown = terminal()
    painter = Painter(shown.stream, whole_screen=True)
    painter.paint(rows("a", 3, 100), 100, 30)
    painter.paint(rows("b", 2, 100), 100, 30)
    assert shown.everything() == plain(rows("b", 2, 100))
    painter.give_back()
    assert shown.everything() == SHELL
    text = shown.written()
    assert text.count("\x1b[?1049h") == text.count("\x1b[?1049l") == 1
    assert text.endswith("\x1b[?25h\x1b[?1049l")


def test_lines_that_are_said_on_the_whole_screen_are_there_when_it_is_left(terminal):
    shown = terminal()
    painter = Painter(shown.stream, whole_screen=True)
    painter.paint(rows("a", 3, 100), 100, 30)
    painter.say(rows("c", 2, 100))
    painter.say(rows("d", 2, 100))
    assert shown.everything() == plain(rows("a", 3, 100))
    painter.give_back()
    assert shown.everything() == SHELL + plain(rows("c", 2, 100)) + plain(rows("d", 2, 100))


# --- the thread that draws ----------------------------------------------------------------------------------------

FAST = Ui("live", color=True, fps=100.0)


@pytest.fixture
def view(terminal) -> Callable[..., Screen]:
    """A screen that has begun; the test ends it."""

    def make(shown: Terminal, interval: float = 0.01) -> Screen:
        made = Screen(Painter(shown.stream), shown.stream, lambda: 0.0, DRIVER_HINT, interval)
        made.begin()
        return made

    return make


def test_events_become_a_frame_and_the_end_takes_it_away(terminal, view, recording):
    shown = terminal()
    screen = view(shown)
    for stamped in recording[:6]:
        screen.handle(stamped)
    shown.until(lambda: any("2 running" in line for line in shown.lines()))
    assert shown.lines()[: len(SHELL)] == SHELL
    assert any("cnn depth=3 · adamw lr=0.003" in line for line in shown.lines())
    state = screen.end()
    shown.settle()
    assert set(state.running) == {"0000", "0001"}
    assert shown.everything() == SHELL
    assert not shown.cursor_hidden
    assert shown.echoes


def test_a_resize_is_answered_by_the_next_frame(terminal, view, recording):
    shown = terminal()
    screen = view(shown)
    for stamped in recording[:6]:
        screen.handle(stamped)
    shown.until(lambda: any("2 running" in line for line in shown.lines()))
    shown.resize(60, 12)
    shown.until(lambda: any("lr=0.003" in line for line in shown.lines()) and "images/s" not in "".join(shown.lines()))
    screen.end()


def test_a_status_dump_stays_above_the_frame(terminal, view, recording):
    shown = terminal()
    screen = view(shown)
    for stamped in recording[:6]:
        screen.handle(stamped)
    screen.handle(stamp([(70.0, ev.StatusAsked())])[0])
    shown.until(lambda: sum("2 running" in line for line in shown.everything()) == 2)
    screen.end()
    assert shown.everything()[: len(SHELL)] == SHELL
    assert sum("2 running" in line for line in shown.everything()) == 1


def test_however_many_events_come_frames_keep_their_distance(terminal, recording):
    shown, interval = terminal(), 0.05
    screen = Screen(Painter(shown.stream), shown.stream, time.monotonic, DRIVER_HINT, interval)
    begun = time.monotonic()
    screen.begin()
    for _ in range(2_000):
        for stamped in recording[:6]:
            screen.handle(stamped)
    shown.until(lambda: any("2 running" in line for line in shown.lines()))
    screen.end()
    elapsed = time.monotonic() - begun
    assert 1 <= shown.written().count("\x1b[?2026h") <= elapsed / interval + 1


def test_a_terminal_that_goes_away_silences_the_view(terminal, view, recording):
    shown = terminal()
    screen = view(shown)
    screen.handle(recording[0])
    shown.until(lambda: any("searching" in line for line in shown.lines()))
    shown.hang_up()
    for stamped in recording[1:]:
        screen.handle(stamped)
    screen.end()


def test_a_fault_in_a_drawing_ends_the_view_in_words_and_not_the_search(terminal, view, recording, monkeypatch):
    def broken(*_: object) -> list[Text]:
        raise KeyError("no such column\x1b[31m")

    shown, log = terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    screen = view(shown)
    screen.handle(recording[0])
    shown.until(lambda: any("searching" in line for line in shown.lines()))
    monkeypatch.setattr(screen_module, "frame", broken)
    for stamped in recording[1:]:
        screen.handle(stamped)
    shown.until(lambda: any("can't be drawn" in line for line in shown.lines()))
    screen.end()
    shown.settle()
    said = "".join(shown.everything()[len(SHELL) :])
    assert said.startswith("mnistlab: this view can't be drawn any more (KeyError")
    assert "no such column\\" in said
    assert "the run itself goes on" in said
    assert "in broken" in log.getvalue()  # the traceback, for whoever mends it
    assert not shown.cursor_hidden
    assert shown.echoes


def test_a_fault_in_reading_an_event_ends_the_view_too(terminal, view, recording):
    shown = terminal()
    screen = view(shown)
    screen.handle(recording[0])
    broken: Any = []  # no name of a trial
    screen.handle(stamp([(1.0, ev.TrialEpoch(trial=broken, epoch=1, epochs=1, metrics={}))])[0])
    shown.until(lambda: any("can't be drawn" in line for line in shown.lines()))
    screen.end()


def test_the_terminal_is_given_back_to_someone_who_insists(terminal, view, recording, monkeypatch):
    shown = terminal()
    screen = view(shown)
    screen.handle(recording[0])
    shown.until(lambda: shown.cursor_hidden)
    monkeypatch.setattr(screen, "_thread", Impatient(screen._thread))
    with pytest.raises(KeyboardInterrupt):
        screen.end()
    shown.settle()
    assert not shown.cursor_hidden
    assert shown.everything() == SHELL


class Impatient:
    """A thread that is waited for by someone who presses Ctrl-C."""

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread

    def join(self, timeout: float | None = None) -> None:
        if timeout is None:
            raise KeyboardInterrupt
        self._thread.join()


def test_a_costly_frame_is_followed_by_a_longer_pause_within_reason():
    assert pause_after(0.001, 0.5) == 0.5
    assert pause_after(0.01, 0.5) == pytest.approx(1.0)
    assert pause_after(0.3, 0.5) == LONGEST
    assert pause_after(0.3, 10.0) == 10.0
