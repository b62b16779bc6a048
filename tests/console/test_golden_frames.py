"""Frames of recorded runs: one of each layout as it was looked at, and at every size what must hold of any of them.

`tests/recordings` holds the event streams of real searches on two cores. To take the frames down anew, and then look
at what has changed: python tests/console/test_golden_frames.py
"""

from __future__ import annotations

import re
from functools import cache, reduce
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.cells import cell_len
from rich.text import Text

from mnistlab.console.dashboard.eta import estimate
from mnistlab.console.dashboard.frame import frame
from mnistlab.console.dashboard.glyphs import ASCII, UNICODE
from mnistlab.console.dashboard.viewport import Look
from mnistlab.console.state import ViewState, advance
from mnistlab.console.status import THEMES, picture_of, svg
from mnistlab.events import Stamped, from_json
from mnistlab.store import read_lines
from mnistlab.util.text import metric_text

RECORDINGS = Path(__file__).parents[1] / "recordings"
GOLDEN = Path(__file__).parents[1] / "snapshots" / "frames"
WIDTHS, HEIGHTS = (40, 60, 80, 120, 200), (8, 24, 60)
SIGNS = {"unicode": UNICODE, "ascii": ASCII}
# A recording, and seconds of its run: at the start, with pruned trials, with a failure, while confirming, at the end.
MOMENTS = {
    "starting": ("flat", 5.0),
    "searching": ("asha", 200.0),
    "failure": ("asha", 350.0),
    "confirming": ("hyperband", 70.0),
    "over": ("asha", 1e9),
}
# Each moment, the narrowest and a wide terminal for each kind of table, a low one, a tall one, and one without signs.
LAYOUTS = (
    *((moment, 80, 24, "unicode") for moment in MOMENTS),
    *((moment, width, 24, "unicode") for moment in ("failure", "confirming") for width in (40, 120)),
    ("confirming", 120, 8, "unicode"),
    ("searching", 120, 60, "ascii"),
)
KEPT_PICTURE = ("failure", 120, 24, "unicode")
README_PICTURE = Path(__file__).parents[2] / "docs" / "images" / "dashboard.svg"
SIZES = pytest.mark.parametrize(("width", "height"), [(width, height) for width in WIDTHS for height in HEIGHTS])
COLUMNS = ("trial", "plan", "epoch", "accuracy", "elapsed", "curve", "images/s")  # the last ones go first


@cache
def stream(name: str) -> tuple[Stamped, ...]:
    return tuple(filter(None, map(from_json, read_lines(RECORDINGS / f"{name}.jsonl"))))


@cache
def seen(moment: str) -> tuple[ViewState, float]:
    """The state at a moment, and the time."""
    name, at = MOMENTS[moment]
    state = reduce(advance, (one for one in stream(name) if one.t <= at), ViewState())
    return state, min(at, stream(name)[-1].t)


@cache
def drawn(moment: str, width: int, height: int, kind: str) -> list[Text]:
    state, now = seen(moment)
    return frame(state, now, Look(width, height, SIGNS[kind]), estimate(state, now))


def plain(moment: str, width: int, height: int, kind: str = "unicode") -> list[str]:
    return [line.plain.rstrip() for line in drawn(moment, width, height, kind)]


def picture(moment: str, width: int, height: int, kind: str, theme) -> str:
    return svg(drawn(moment, width, height, kind), width, f"{moment} {width}x{height}", theme)


def readme_picture() -> str:
    """The picture that `mnistlab status RUN --at 200s --svg FILE` makes of a recorded run."""
    state, _ = seen("searching")
    return picture_of(state, MOMENTS["searching"][1], "110x30", "dark")


def as_text() -> str:
    parts: list[str] = []
    for moment, width, height, kind in LAYOUTS:
        parts += [f"=== {moment}, {width} x {height}, {kind}", *plain(moment, width, height, kind)]
    return "\n".join(parts) + "\n"


# --- as they were looked at ---------------------------------------------------------------------------------------


def test_a_frame_of_each_layout_is_as_it_was_looked_at() -> None:
    assert as_text() == (GOLDEN / "layouts.txt").read_text(encoding="utf-8")


def test_a_picture_is_as_it_was_looked_at_and_asks_nobody_for_anything() -> None:
    kept = (GOLDEN / "failure-dark.svg").read_text(encoding="utf-8")
    assert picture(*KEPT_PICTURE, "dark") == kept
    assert "url(" not in kept.replace("url(#", "")


def test_the_picture_in_the_readme_is_what_people_see() -> None:
    assert readme_picture() == README_PICTURE.read_text(encoding="utf-8")


# --- at every size ------------------------------------------------------------------------------------------------


@SIZES
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_frame_fits_its_terminal_and_speaks_its_signs(moment: str, width: int, height: int) -> None:
    for kind in SIGNS:
        lines = [line.plain for line in drawn(moment, width, height, kind)]
        assert 1 <= len(lines) < height
        assert max(map(cell_len, lines)) <= width
        assert kind != "ascii" or "".join(lines).isascii()


@SIZES
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_frame_holds_the_numbers_of_the_state(moment: str, width: int, height: int) -> None:
    state, _ = seen(moment)
    counts = {"failed": state.failed, "running": len(state.running) - state.waiting, "complete": state.complete}
    counts |= {"pruned": state.pruned, "queued": state.queued * (state.phase == "search")}
    for kind in SIGNS:
        lines = plain(moment, width, height, kind)
        text = "\n".join(lines)
        assert f" {state.finished}/{state.total} " in text
        said = {what: int(number) for number, what in re.findall(rf"(\d+) ({'|'.join(counts)})\b(?! [\w:])", text)}
        assert said.items() <= {what: count for what, count in counts.items() if count}.items()
        assert len(said) >= min(2, sum(map(bool, counts.values()))) or height == 8
        best = next((line for line in lines if line.startswith("best ")), "")
        assert not best or metric_text(state.metric, state.best.value) in best  # type: ignore[union-attr]
        rows = {line[:4]: line for line in lines if re.match(r"\d{4} ", line)}
        for trial in state.running.values() if rows else ():
            row = rows.get(trial.trial, "")
            assert not row or f" {trial.epoch}/{trial.epochs} " in row
            assert not row or trial.value is None or metric_text(state.metric, trial.value) in row


@pytest.mark.parametrize("kind", SIGNS)
@pytest.mark.parametrize("height", HEIGHTS[1:])
def test_the_narrower_a_terminal_the_fewer_columns_and_always_the_same_go_first(kind: str, height: int) -> None:
    shown = list[list[str]]()
    for width in range(WIDTHS[0], WIDTHS[-1] + 1, 4):
        head = next(line for line in plain("failure", width, height, kind) if line.startswith("trial "))
        shown.append([column for column in COLUMNS if column in head])
    assert shown[0] == list(COLUMNS[:4])
    assert shown[-1] == list(COLUMNS)
    assert all(columns == list(COLUMNS[: len(columns)]) for columns in shown)
    assert sorted(map(len, shown)) == [*map(len, shown)]


@pytest.mark.parametrize("height", HEIGHTS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_picture_holds_the_words_of_its_frame_in_either_light(moment: str, height: int) -> None:
    grounds = set[str]()
    for theme in THEMES:
        tree = ElementTree.fromstring(picture(moment, 80, height, "unicode", theme))
        words = "".join("".join(one.itertext()) for one in tree.iter("{http://www.w3.org/2000/svg}text"))
        frame_words = "".join(plain(moment, 80, height))
        title = f"{moment} 80x{height}"
        assert re.sub(r"\s", "", words) == re.sub(r"\s", "", title + frame_words)
        boxes = tree.iter("{http://www.w3.org/2000/svg}rect")
        grounds.add(next(box.attrib["fill"] for box in boxes if "fill" in box.attrib))
    assert len(grounds) == len(THEMES)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDINGS.glob("*.jsonl")))
def test_no_frame_of_a_recorded_run_leaves_its_terminal(name: str) -> None:
    state = ViewState()
    for number, one in enumerate(stream(name)):
        state = advance(state, one)
        width, height = WIDTHS[number % len(WIDTHS)], HEIGHTS[number % len(HEIGHTS)]
        lines = frame(state, one.t, Look(width, height), None)
        assert 1 <= len(lines) < height
        assert max(cell_len(line.plain) for line in lines) <= width


def write_down() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    (GOLDEN / "layouts.txt").write_text(as_text(), encoding="utf-8")
    (GOLDEN / "failure-dark.svg").write_text(picture(*KEPT_PICTURE, "dark"), encoding="utf-8")
    README_PICTURE.parent.mkdir(exist_ok=True)
    README_PICTURE.write_text(readme_picture(), encoding="utf-8")


if __name__ == "__main__":
    write_down()
