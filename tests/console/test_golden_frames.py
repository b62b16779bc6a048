"""Frames of recorded runs, as text and as pictures, at every size: a change of what people see has to be meant.

`tests/recordings` holds the event streams of real searches on two cores. To take the frames down anew, and then look
at what has changed: python tests/console/test_golden_frames.py
"""

from __future__ import annotations

import hashlib
from functools import cache, reduce
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.text import Text

from mnistlab.console.eta import estimate
from mnistlab.console.frame import frame
from mnistlab.console.look import Look
from mnistlab.console.picture import THEMES, svg
from mnistlab.console.signs import ASCII, UNICODE, Signs
from mnistlab.console.state import ViewState, advance
from mnistlab.console.status import picture_of
from mnistlab.events import Stamped, from_json
from mnistlab.store import read_lines

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


@cache
def stream(name: str) -> tuple[Stamped, ...]:
    return tuple(filter(None, map(from_json, read_lines(RECORDINGS / f"{name}.jsonl"))))


def drawn(moment: str, width: int, height: int, signs: Signs) -> list[Text]:
    name, at = MOMENTS[moment]
    state = reduce(advance, (one for one in stream(name) if one.t <= at), ViewState())
    now = min(at, stream(name)[-1].t)
    return frame(state, now, Look(width, height, signs), estimate(state, now))


def as_text(moment: str) -> str:
    parts: list[str] = []
    for kind, signs in SIGNS.items():
        for width in WIDTHS:
            for height in HEIGHTS:
                parts.append(f"=== {width} x {height}, {kind}")
                parts += [line.plain.rstrip() for line in drawn(moment, width, height, signs)]
    return "\n".join(parts) + "\n"


def as_digests(moment: str) -> str:
    """A line for each picture: a difference says which to look at, and a folder of pictures would be megabytes."""
    return "".join(
        f"{moment} {width}x{height} {kind} {theme} "
        f"{hashlib.sha256(picture(moment, width, height, kind, theme).encode()).hexdigest()[:16]}\n"
        for kind in SIGNS
        for width in WIDTHS
        for height in HEIGHTS
        for theme in THEMES
    )


def picture(moment: str, width: int, height: int, kind: str, theme) -> str:
    return svg(drawn(moment, width, height, SIGNS[kind]), width, f"{moment} {width}x{height}", theme)


README_PICTURE = Path(__file__).parents[2] / "docs" / "images" / "dashboard.svg"
WHOLE = [(moment, theme) for moment in ("failure", "confirming") for theme in THEMES]


@pytest.mark.parametrize("moment", MOMENTS)
def test_frames_are_those_that_were_looked_at(moment: str) -> None:
    assert as_text(moment) == (GOLDEN / f"{moment}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("moment", MOMENTS)
def test_pictures_are_those_that_were_looked_at(moment: str) -> None:
    assert as_digests(moment) == (GOLDEN / f"{moment}.sha256").read_text(encoding="utf-8")


@pytest.mark.parametrize(("moment", "theme"), WHOLE)
def test_some_pictures_are_kept_whole(moment: str, theme) -> None:
    kept = (GOLDEN / f"{moment}-{theme}.svg").read_text(encoding="utf-8")
    assert picture(moment, 120, 24, "unicode", theme) == kept
    assert "url(" not in kept.replace("url(#", "")  # it asks nobody for anything


def readme_picture() -> str:
    """The picture that `mnistlab status RUN --at 200s --svg FILE` makes of a recorded run."""
    name, at = MOMENTS["searching"]
    state = reduce(advance, (one for one in stream(name) if one.t <= at), ViewState())
    return picture_of(state, at, "110x30", "dark")


def test_the_picture_in_the_readme_is_what_people_see() -> None:
    assert readme_picture() == README_PICTURE.read_text(encoding="utf-8")


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
    for moment in MOMENTS:
        (GOLDEN / f"{moment}.txt").write_text(as_text(moment), encoding="utf-8")
        (GOLDEN / f"{moment}.sha256").write_text(as_digests(moment), encoding="utf-8")
    for moment, theme in WHOLE:
        (GOLDEN / f"{moment}-{theme}.svg").write_text(picture(moment, 120, 24, "unicode", theme), encoding="utf-8")

    README_PICTURE.parent.mkdir(exist_ok=True)
    README_PICTURE.write_text(readme_picture(), encoding="utf-8")


if __name__ == "__main__":
    write_down()
