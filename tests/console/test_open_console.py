"""Which view a run gets, and what each of them makes of whole runs, storms of events and streams that break."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from typing import Any

import pytest

from mnistlab import events as ev
from mnistlab.console import lines as lines_module
from mnistlab.console.redirect import Streams
from mnistlab.console.views import Ui, choose_ui, open_console, open_view
from mnistlab.errors import ExitCode, SpecError
from mnistlab.events import to_json


def shown_by(ui: Ui, stamped: list[ev.Stamped], encoding: str = "utf-8") -> tuple[str, str]:
    """What a view writes on standard output and error, both of them pipes."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in "12")
    with open_view(ui, Streams(out, err)) as handle:
        for one in stamped:
            handle(one)
    return tuple(stream.detach().getvalue().decode(encoding) for stream in (out, err))  # type: ignore[attr-defined]


# --- the choice ---------------------------------------------------------------------------------------------------


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
        ((59, 9), {"MNISTLAB_UI": "full"}, "full"),
        ((100, 30), {"MNISTLAB_UI": ""}, "live"),
    ],
)
def test_auto_looks_at_the_terminal_and_the_environment(terminal, size, environ, kind):
    assert choose_ui("auto", "auto", terminal(*size).stream, environ).kind == kind


def test_auto_is_plain_where_there_is_no_terminal():
    assert choose_ui("auto", "auto", io.StringIO(), {}).kind == "plain"


def test_what_is_asked_for_beats_the_environment():
    assert choose_ui("plain", "auto", io.StringIO(), {"MNISTLAB_UI": "quiet"}).kind == "plain"


@pytest.mark.parametrize(
    ("color", "environ", "colored"),
    [
        ("auto", {}, True),
        ("auto", {"NO_COLOR": "1"}, False),
        ("auto", {"NO_COLOR": ""}, True),
        ("auto", {"TERM": "dumb"}, False),
        ("auto", {"TERM": "dumb", "FORCE_COLOR": "1"}, True),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ("always", {"NO_COLOR": "1"}, True),
        ("never", {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colour_can_be_asked_for_and_refused(color, environ, colored):
    assert choose_ui("live", color, io.StringIO(), environ).color is colored


@pytest.mark.parametrize(("word", "fps"), [("", 2.0), ("0.1", 0.1), ("4", 4.0), ("1.5", 1.5)])
def test_frames_a_second_can_be_set(word, fps):
    assert choose_ui("live", "auto", io.StringIO(), {"MNISTLAB_FPS": word}).fps == fps


@pytest.mark.parametrize("word", ["0", "4.1", "60", "-1", "nan", "inf", "fast", "2 a second"])
def test_other_frame_rates_are_refused(word):
    with pytest.raises(SpecError, match=r"\[MNISTLAB_FPS\] must be a number from 0.1 to 4") as caught:
        choose_ui("live", "auto", io.StringIO(), {"MNISTLAB_FPS": word})
    assert repr(word) in str(caught.value)


@pytest.mark.parametrize(
    ("ui", "environ", "place"), [("lively", {}, "--ui"), ("auto", {"MNISTLAB_UI": "x"}, "MNISTLAB_UI")]
)
def test_an_unknown_view_is_refused_with_the_known_ones(ui, environ, place):
    with pytest.raises(SpecError, match="must be one of auto, live, full, plain, json, quiet") as caught:
        choose_ui(ui, "auto", io.StringIO(), environ)
    assert caught.value.exit_code == ExitCode.USAGE
    assert f"[{place}]" in str(caught.value)


def test_no_dashboard_is_drawn_over_a_debugger_in_this_process_unless_it_is_asked_for(terminal):
    there = terminal(120, 30).stream
    assert choose_ui("auto", "auto", there, {}, "ray").kind == "live"
    assert choose_ui("auto", "auto", there, {}, "local").kind == "plain"
    assert choose_ui("live", "auto", there, {}, "local").kind == "live"
    assert choose_ui("auto", "auto", there, {"MNISTLAB_UI": "live"}, "local").kind == "live"


def test_every_fault_of_the_choice_is_told_at_once():
    with pytest.raises(SpecError) as caught:
        choose_ui("lively", "allways", io.StringIO(), {"MNISTLAB_FPS": "60"}, "lokal")
    assert [fault.place for fault in caught.value.faults] == ["--ui", "--color", "--executor", "MNISTLAB_FPS"]
    assert "did you mean 'local'?" in str(caught.value)
    assert "did you mean 'always'?" in str(caught.value)


# --- the views ----------------------------------------------------------------------------------------------------


def test_plain_is_one_line_for_each_event_that_people_need(recording):
    out, err = shown_by(Ui("plain", color=False), recording)
    assert out == ""
    assert err.splitlines()[0].startswith("[  0.0s] run cnn-1: up to 16 trials")
    assert "run over: done" in err.splitlines()[-1]
    assert "\x1b" not in err


def test_quiet_is_quiet(recording):
    assert shown_by(Ui("quiet", color=True), recording) == ("", "")


def test_json_is_the_stream_of_events_and_nothing_else(recording):
    out, err = shown_by(Ui("json", color=True), recording)
    assert err == ""
    assert [json.loads(line) for line in out.splitlines()] == [json.loads(json.dumps(to_json(s))) for s in recording]


@pytest.mark.parametrize("kind", ["live", "full"])
def test_a_drawn_view_leaves_one_line_and_its_terminal_in_order(terminal, recording, kind):
    shown = terminal()
    with open_view(Ui(kind, color=True, fps=4.0), Streams(io.StringIO(), shown.stream)) as handle:
        for stamped in recording:
            handle(stamped)
        shown.until(lambda: any("99.12 %" in line for line in shown.lines()))
        assert shown.cursor_hidden
    text = shown.written()
    assert "run over: done" in shown.lines()[-1]
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is hidden, and shown again
    assert text.rpartition("\x1b[?25h")[2].rstrip().endswith("run over: done (1 complete, 1 pruned, 1 failed) in 2m53s")
    assert len(shown.everything()) == 1


def test_the_cursor_comes_back_after_an_error(terminal):
    shown = terminal()

    def drive() -> None:
        with open_view(Ui("live", color=True), Streams(sys.stdout, shown.stream)):
            shown.until(lambda: shown.cursor_hidden)
            raise RuntimeError("driver")

    with pytest.raises(RuntimeError, match="driver"):
        drive()
    assert shown.written().endswith("\x1b[?25h")
    assert shown.everything() == []


def test_no_colour_means_no_colour(terminal, recording):
    coloured, plain = terminal(), terminal()
    for shown, color in ((coloured, True), (plain, False)):
        with open_view(Ui("live", color=color), Streams(sys.stdout, shown.stream)) as handle:
            for stamped in recording[:12]:
                handle(stamped)
            shown.until(lambda shown=shown: any("99.12 %" in line for line in shown.lines()))
    colours = ("\x1b[1;32m", "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[36m", "\x1b[35m", "\x1b[34m")
    assert any(colour in coloured.written() for colour in colours)
    assert not any(colour in plain.written() for colour in colours)


@pytest.mark.simulated
def test_frames_fit_the_stream_even_after_a_resize(terminal, crowd):
    shown = terminal(100, 30)
    with open_view(Ui("live", color=True, fps=4.0), Streams(sys.stdout, shown.stream)) as handle:
        for stamped in crowd:
            handle(stamped)
        shown.until(lambda: len(shown.lines()) > 12)
        shown.resize(70, 12)
        shown.until(lambda: shown.written().rpartition("\x1b[?2026h")[2].count("\r\n") <= 12)
        shown.settle()
        assert len(shown.lines()) <= 11
        assert any("more" in line for line in shown.lines())


@pytest.mark.simulated
def test_the_view_keeps_up_with_a_storm_of_events(terminal, recording):
    shown = terminal()
    with open_view(Ui("live", color=True), Streams(sys.stdout, shown.stream)) as handle:
        for _ in range(2_000):
            for stamped in recording[:6]:
                handle(stamped)
        shown.until(lambda: any("2 running" in line for line in shown.lines()))
    assert shown.everything() == []


# --- streams that break, events that break ------------------------------------------------------------------------


class Gone(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("kind", ["plain", "json", "live", "full"])
def test_a_broken_pipe_silences_the_view_and_not_the_search(recording, kind):
    with open_view(Ui(kind, color=True), Streams(Gone(), Gone())) as handle:
        for stamped in recording:
            handle(stamped)


def test_a_stream_that_knows_only_ascii_gets_ascii(recording):
    _, err = shown_by(Ui("plain", color=False), recording, encoding="ascii")
    assert "cnn depth=3 | adamw lr=0.003" in err


def test_an_event_that_breaks_the_view_of_lines_is_a_line_and_the_view_goes_on(recording, monkeypatch):
    real = lines_module.line

    def breaking(stamped: ev.Stamped, state: Any) -> str | None:
        if stamped.seq == 2:
            raise KeyError("x\x1b")
        return real(stamped, state)

    monkeypatch.setattr(lines_module, "line", breaking)
    _, err = shown_by(Ui("plain", color=False), recording)
    (said,) = [line for line in err.splitlines() if line.startswith("mnistlab: ")]
    assert "event 2 can't be put into words (KeyError" in said
    assert "\x1b" not in said
    assert "run over: done" in err.splitlines()[-1]


def test_the_console_of_a_run_keeps_what_others_write_in_its_log(terminal, recording, tmp_path, monkeypatch):
    shown = terminal()
    monkeypatch.setattr(sys, "stderr", shown.stream)
    with open_console(Ui("live", color=True), tmp_path / "driver.log") as handle:
        for stamped in recording:
            handle(stamped)
            print("something that a plugin prints", file=sys.stderr)
    (said,) = shown.everything()
    assert "run over" in said
    assert (tmp_path / "driver.log").read_text() == "something that a plugin prints\n" * len(recording)


# --- runs that are gone on with -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "json", "quiet", "live"])
def test_what_was_said_before_is_known_and_not_said_again(recording, terminal, kind):
    out, err = io.StringIO(), terminal().stream if kind == "live" else io.StringIO()
    metric = ev.RunStarted(**{**vars(recording[0].event), "metric": "val_loss"})
    past = [replace(recording[0], event=metric), *recording[1:]]
    confirmed = ev.ReplicateFinished(trial="0000", replicate=3, seed=3, metrics={"val_loss": 0.5}, seconds=1.0)
    later = replace(recording[-1], seq=99, t=200.0, event=confirmed)
    with open_view(Ui(kind, color=False), Streams(out, err), past=past) as handle:
        handle(later)
    if kind == "plain":
        (said,) = err.getvalue().splitlines()
        assert "trial 0000 replicate 3: val_loss 0.5" in said
    elif kind == "json":
        assert [json.loads(text)["seq"] for text in out.getvalue().splitlines()] == [99]
    else:
        assert out.getvalue() == ""
