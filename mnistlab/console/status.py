"""Where a run stands, once: as text and as a picture for people, and as a record for programs."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, DIMMED_MONOKAI, TerminalTheme
from rich.text import Text

from mnistlab.console.dashboard.eta import estimate
from mnistlab.console.dashboard.frame import frame
from mnistlab.console.dashboard.glyphs import signs_for
from mnistlab.console.dashboard.viewport import Look
from mnistlab.console.next_steps import left_undone
from mnistlab.console.ranking import ended_text
from mnistlab.console.state import ViewState
from mnistlab.console.terminal import size_of
from mnistlab.errors import Fault, SpecError, must_be_one_of
from mnistlab.util.text import visible

SCHEMA = "mnistlab.status/1"
WIDTH, HEIGHT = 120, 200
Theme = Literal["dark", "light"]
THEMES: dict[Theme, TerminalTheme] = {"dark": DIMMED_MONOKAI, "light": DEFAULT_TERMINAL_THEME}
_ELSEWHERE = re.compile(r"@font-face\s*\{.*?\}\s*|<!--.*?-->\s*", re.DOTALL)


def as_text(state: ViewState, now: float, stream: TextIO) -> list[str]:
    """Return the dashboard's lines without colour for `stream`; where that is no terminal, in full width."""
    width = size_of(stream)[0] if stream.isatty() else WIDTH
    look = Look(width, HEIGHT, signs_for(stream.encoding), hint="")
    return [line.plain.rstrip() for line in frame(state, now, look, estimate(state, now))]


def how_it_ended(state: ViewState, path: Path) -> list[str]:
    """Return in words how a run has ended otherwise than well, and what may be typed to go on with it."""
    if state.end is None:
        return []
    told = [ended_text(state.end)] * bool(state.end.exit_code)
    return [visible(text) for text in (*told, *(f"Next: {command}" for command in left_undone(state, path)))]


def picture_of(state: ViewState, now: float, size: str, theme: str) -> str:
    """Return the dashboard as an SVG document of `size`, for example `110x30`, in a `dark` or `light` theme.

    Raises:
        SpecError: if size or theme are wrong.
    """
    found = re.fullmatch(r"(\d+)x(\d+)", size)
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    faults: list[Fault] = []
    if not (20 <= width <= 400 and 4 <= height <= 200):
        faults.append(Fault("--size", "must be columns x lines, from 20x4 to 400x200, for example 110x30", size))
    if theme not in THEMES:
        faults.append(must_be_one_of("--theme", theme, THEMES))
    if faults:
        raise SpecError("status", faults)
    lines = frame(state, now, Look(width, height + 1), estimate(state, now))
    title = f"mnistlab search: {state.start.run}" if state.start else "mnistlab search"
    return svg(lines, width, title, "light" if theme == "light" else "dark")


def svg(lines: Sequence[Text], width: int, title: str, theme: Theme = "dark") -> str:
    """Return `lines`, none of them wider than `width` cells, as an SVG document; the same lines give the same bytes.

    rich names fonts on a web server, and its own site; a picture that is looked at without a network must not ask for
    them, so the reader's own monospace font is used.
    """
    console = Console(record=True, width=width, file=io.StringIO(), color_system="standard", force_terminal=True)
    for line in lines:
        console.print(line, no_wrap=True, overflow="crop", highlight=False)
    drawn = console.export_svg(title=title, theme=THEMES[theme], unique_id="mnistlab")
    return _ELSEWHERE.sub("", drawn).replace("Fira Code", "monospace")


def as_record(state: ViewState, now: float, *, running: bool) -> dict[str, Any]:
    """Return what the dashboard knows, as a JSON object; what is not known is null."""
    eta = estimate(state, now)
    return {
        "schema": SCHEMA,
        "run": state.start.run if state.start else None,
        "driven": running,
        "phase": state.phase,
        "seconds": round(state.t if state.end else now, 3),
        "exit_code": state.end.exit_code if state.end else None,
        "outcome": state.end.outcome if state.end else None,
        "config": state.start.config if state.start else None,
        "amended": [time.isoformat(timespec="seconds") for time in state.amended],
        "trials": {
            "total": state.total,
            "complete": state.complete,
            "pruned": state.pruned,
            "paused": state.paused,
            "interrupted": state.interrupted,
            "failed": state.failed,
            "running": [asdict(trial) for trial in state.running.values()],
        },
        "metric": state.metric,
        "best": asdict(state.best) if state.best else None,
        "eta_seconds": {"median": round(eta.median - now, 1), "p90": round(eta.late - now, 1)} if eta else None,
        "confirmation": {
            "plans": list(state.confirming),
            "seeds": state.seeds,
            "baseline": state.baseline or None,
            "ended": state.replicated,
            "dropped": list(state.dropped),
            "refit": state.refit or None,
            "outdated": state.outdated,
        },
        "failures": dict(state.failures),
        "warnings": state.warned,
        "test_openings": state.openings,
    }
