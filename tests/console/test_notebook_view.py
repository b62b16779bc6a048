"""The dashboard and the ranking in a notebook: what stands in the HTML, when it is shown, and where."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from mnistlab import events as ev
from mnistlab.console.html import dashboard, ranking
from mnistlab.console.notebook import INTERVAL, HtmlView, notebook_output, open_notebook
from mnistlab.console.state import ViewState, advance
from mnistlab.leaderboard import Leaderboard

ELEMENTS = {"div", "span", "b", "table", "thead", "tbody", "tr", "th", "td"}
ATTRIBUTES = {"style", "scope", "role", "aria-valuemin", "aria-valuemax", "aria-valuenow"}
SHOWN = "[/red]\\x1b]0;x\\x07\\n\\u202eevil"  # the hostile text, as text


def folded(stream: list[ev.Stamped]) -> ViewState:
    state = ViewState()
    for stamped in stream:
        state = advance(state, stamped)
    return state


def parsed(html: str) -> ElementTree.Element:
    """The HTML's tree, which fails where an element is left open or a sign is not escaped."""
    tree = ElementTree.fromstring(html)
    assert {element.tag for element in tree.iter()} <= ELEMENTS
    assert {name for element in tree.iter() for name in element.attrib} <= ATTRIBUTES
    assert not any("url" in style or "expression" in style for style in styles(tree))
    return tree


def styles(tree: ElementTree.Element) -> Iterator[str]:
    return (element.get("style", "") for element in tree.iter())


def text_of(html: str) -> str:
    return " ".join(parsed(html).itertext())


def rows_of(html: str) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in parsed(html).iter("tr")]


# --- what it shows ------------------------------------------------------------------------------------------------


def test_before_the_run_is_known_the_step_and_the_time_are_shown() -> None:
    assert text_of(dashboard(ViewState(step="starting Ray"), 3.0)) == "mnistlab: starting Ray, 3.0s"


def test_a_search_is_shown_with_what_runs_what_has_ended_and_the_best(recording: list[ev.Stamped]) -> None:
    html = dashboard(folded(recording[:7]), 70.0)
    assert rows_of(html) == [
        ["trial", "state", "plan", "epoch", "val_accuracy", "", "images/s", "time"],
        ["0000", "▸ running", "cnn depth=3 · adamw lr=0.003", "2/8", "98.00 %", "▁█", "12,346", "1m09s"],
        ["0001", "↓ pruned", "mlp width=64 · sgd lr=0.1", "1", "90.00 %", "", "", "1m02s"],
    ]
    assert "cnn-1" in text_of(html)
    assert "searching 1/16 · 1m10s · ETA -" in text_of(html)
    later = text_of(dashboard(folded(recording[:12]), 121.0))
    assert "best 99.12 %  trial 0000" in later
    assert "nan 1; last: trial 0002: loss is nan; log runs/cnn-1/trials/0002/log.txt" in later
    assert "warning: the time budget is nearly used up" in later


def test_a_confirmation_is_a_table_of_plans_and_seeds(recording: list[ev.Stamped]) -> None:
    html = dashboard(folded(recording[:15]), 170.0)
    assert rows_of(html) == [
        ["trial", "plan", "mean [95 %]", "seed 1", "seed 2"],
        ["0000", "cnn depth=3 · adamw lr=0.003", "99.00 %", "99.00", "✗ fail"],
    ]
    assert "2 of 2 trainings on fresh seeds have ended" in text_of(html)


def test_the_bar_is_as_long_as_what_is_done(recording: list[ev.Stamped]) -> None:
    def bar(count: int) -> ElementTree.Element:
        return next(e for e in parsed(dashboard(folded(recording[:count]), 200.0)).iter() if e.get("role"))

    assert [bar(count).get("aria-valuenow") for count in (1, 7, 18)] == ["0", "6", "100"]
    assert "width:6%" in bar(7)[0].get("style", "")


def test_a_run_that_is_over_says_how_and_names_no_keys_any_more(recording: list[ev.Stamped]) -> None:
    assert "Interrupt the kernel" in text_of(dashboard(folded(recording[:3]), 2.0))
    text = text_of(dashboard(folded(recording), 400.0))
    assert "done: 3/16 trials · 2m53s" in text
    assert "Interrupt" not in text


def test_an_interrupt_is_answered_at_once(recording: list[ev.Stamped], stamped: Callable[..., Any]) -> None:
    asked = [*recording[:3], *stamped([(2.0, ev.StopAsked(signal="SIGINT"))])]
    assert "stopping (SIGINT): what runs may end its epoch" in text_of(dashboard(folded(asked), 3.0))


def test_of_a_crowd_some_are_shown_and_the_rest_is_counted(crowd: list[ev.Stamped]) -> None:
    html = dashboard(folded(crowd), 9.0)
    assert sum(row[1] == "▸ running" for row in rows_of(html)) == 12
    assert "+22 more running" in text_of(html)
    assert len(html) < 40_000


def test_hostile_text_is_shown_as_text(crowd: list[ev.Stamped]) -> None:
    text = text_of(dashboard(folded(crowd), 9.0))
    assert text.count(SHOWN) > 20
    assert text.isprintable()


@pytest.mark.parametrize("field", ["run", "dataset", "fallback", "devices", "algorithm", "directory"])
def test_markup_in_any_field_stays_text(field: str, recording: list[ev.Stamped]) -> None:
    markup = "<script>alert(1)</script><img src=x onerror='y'>&amp;\"</div>"
    start = ev.RunStarted(**(vars(recording[0].event) | {field: markup}))
    stream = [ev.Stamped(seq=1, time=recording[0].time, t=0.0, event=start), *recording[1:9]]
    assert markup in text_of(dashboard(folded(stream), 99.0))


def test_the_ranking_shows_the_columns_of_the_terminal_and_what_stands_below(
    make_board: Callable[..., Leaderboard],
) -> None:
    board = make_board()
    html = ranking(board, ended="Run over: done.")
    titles, first, *_ = rows = rows_of(html)
    assert titles[:6] == ["rank", "trial", "state", "plan", "val_accuracy %", "test acc. %"]
    assert first[:3] == ["1", "0000", "confirmed"]
    assert len(rows) == 1 + len(board.rows)
    text = text_of(html)
    for line in ("Run cnn-1 on mnist", "the mean over fresh seeds decides", "Run over: done.", "Folder: runs/cnn-1"):
        assert line in text
    assert f"boom {SHOWN}" in text
    assert "... and 3 more trials." in text_of(ranking(board, top=2))
    assert len(rows_of(ranking(board, top=2))) == 3


def test_the_ranking_of_nothing_is_a_sentence(make_board: Callable[..., Leaderboard]) -> None:
    board = replace(make_board(), rows=(), champion=None, failures={})
    assert "No trial has ended yet" in text_of(ranking(board))
    assert rows_of(ranking(board)) == []


# --- when it is shown ---------------------------------------------------------------------------------------------


class Notebook:
    """A front end in memory and a clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0
        self.shown: list[tuple[float, str, bool]] = []
        self.view = HtmlView(self.show, lambda: self.now)

    def show(self, html: str, update: bool) -> None:
        self.shown.append((self.now, html, update))

    def live(self, stream: list[ev.Stamped], seconds: float, step: float = 0.0625) -> None:
        """Let time pass; each event comes when it is due, and the view looks at the clock at each step."""
        begin, waiting = self.now, list(stream)
        while self.now < begin + seconds:
            while waiting and waiting[0].t <= self.now - begin:
                self.view.handle(waiting.pop(0))
            self.view.turn()
            self.now += step


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


def test_it_is_shown_once_and_then_updated_at_most_once_a_second(
    notebook: Notebook, recording: list[ev.Stamped]
) -> None:
    notebook.live(recording, 30.0)
    times = [time for time, _, _ in notebook.shown]
    assert [update for _, _, update in notebook.shown] == [False] + [True] * (len(times) - 1)
    assert 25 < len(times) <= 31
    assert min(b - a for a, b in pairwise(times)) >= INTERVAL


def test_many_events_make_no_more_updates(notebook: Notebook, recording: list[ev.Stamped]) -> None:
    epoch = ev.TrialEpoch(trial="0000", epoch=1, epochs=8, metrics={"val_accuracy": 0.5})
    notebook.live(recording[:2], 1.1)
    for i in range(10_000):
        notebook.view.handle(ev.Stamped(seq=9, time=recording[0].time, t=1.1 + i / 10_000, event=epoch))
        notebook.view.turn()
    assert len(notebook.shown) <= 2
    notebook.live([], 1.1)
    assert "50.00 %" in notebook.shown[-1][1]


def test_what_has_not_changed_is_not_shown_again(notebook: Notebook, recording: list[ev.Stamped]) -> None:
    for stamped in recording:
        notebook.view.handle(stamped)
    notebook.live([], 60.0)  # the run is over: its times stand still
    assert len(notebook.shown) == 1
    notebook.view.update()
    assert len(notebook.shown) == 1


def test_the_last_state_is_shown_at_the_end(notebook: Notebook, recording: list[ev.Stamped]) -> None:
    with notebook.view.drawing():
        for stamped in recording:
            notebook.view.handle(stamped)
    assert "done: 3/16 trials" in text_of(notebook.shown[-1][1])
    assert notebook.shown[0][2] is False
    assert not [thread for thread in threading.enumerate() if thread.name == "mnistlab-notebook"]


def test_a_front_end_that_is_gone_does_not_stop_the_search(
    recording: list[ev.Stamped], capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[bool] = []

    def gone(_html: str, update: bool) -> None:
        calls.append(update)
        raise ConnectionError("nobody listens")

    view = HtmlView(gone, lambda: 0.0)
    with view.drawing():
        view.handle(recording[0])
    assert calls == [False]
    assert "nobody listens" in capsys.readouterr().err


# --- where it is shown --------------------------------------------------------------------------------------------


def test_what_others_write_ends_in_the_log_and_not_in_the_notebook(
    tmp_path: Path, recording: list[ev.Stamped], capfd: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    with open_notebook(lambda html, _update: shown.append(html), tmp_path / "driver.log") as handle:
        handle(recording[0])
        print("chatter")
        sys.stderr.write("more of it\n")
    assert "cnn-1" in shown[-1]
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "driver.log").read_text() == "chatter\nmore of it\n"


class Publisher:
    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def publish(self, data: dict[str, str], **how: Any) -> None:
        self.calls.append({"data": data, **how})


def fake_ipython(monkeypatch: pytest.MonkeyPatch, shell: object) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]


def test_a_kernel_gets_one_display_that_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher()
    fake_ipython(monkeypatch, SimpleNamespace(kernel=object(), display_pub=publisher))
    show, other = notebook_output(), notebook_output()
    assert show is not None
    assert other is not None
    show("<b>1</b>", False)
    show("<b>2</b>", True)
    other("<b>3</b>", False)
    assert [call["data"]["text/html"] for call in publisher.calls] == ["<b>1</b>", "<b>2</b>", "<b>3</b>"]
    assert [call["update"] for call in publisher.calls] == [False, True, False]
    names = [call["transient"]["display_id"] for call in publisher.calls]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("shell", [None, SimpleNamespace(kernel=None), SimpleNamespace()])
def test_elsewhere_there_is_no_notebook(shell: object, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ipython(monkeypatch, shell)
    assert notebook_output() is None
    monkeypatch.delitem(sys.modules, "IPython")
    assert notebook_output() is None
