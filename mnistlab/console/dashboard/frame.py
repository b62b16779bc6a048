"""One frame of the dashboard: drawn from a state alone, never taller than the terminal and never wrapping.

A frame is made of sections (`sections`, `tables`). Each is a list of lines; what a low terminal has no room for goes
by priority, what runs takes what is left, and "+3 more" tells what is missing. In a narrow terminal columns go, by
priority too, before words are cut. A tall terminal gets what ended last, and blank lines between the groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from mnistlab.console.dashboard import sections, tables
from mnistlab.console.dashboard.eta import Estimate
from mnistlab.console.dashboard.viewport import Look
from mnistlab.console.state import ViewState
from mnistlab.util.text import seconds_text

LEAST_ROWS, LEAST_SHARE = 3, 1 / 3  # lines kept for what runs before less important sections get any
LEAST_ENDED = 3  # lines below which a list of what ended last is not worth its place


@dataclass(frozen=True)
class _Section:
    """Lines that stand or go together; the lowest `rank` goes last. `apart` asks for a blank line before them."""

    rank: int
    lines: list[Text]
    apart: bool = False


def frame(state: ViewState, now: float, look: Look, eta: Estimate | None = None) -> list[Text]:
    """Return the lines of the frame at `now` (seconds of the run), at most `look.height - 1` of them.

    `eta` is when the run will be over, if that is known (see `eta.estimate`): it is not computed here, because it
    costs more than drawing and need not change with each frame.
    """
    room = max(1, look.height - 1)
    if state.start is None:
        return [look.line(f"mnistlab: {state.step or 'starting'}, {seconds_text(now)}")]
    above = [
        _Section(5, sections.header(state, look)),
        _Section(9, sections.plugins(state, look)),
        _Section(1, sections.fallback(state, look)),
        _Section(0, [sections.progress(state, now, look, eta)], apart=True),
        _Section(2, sections.counts(state, look)),
        _Section(2, sections.best(state, look)),
    ]
    health = sections.health(state, now, look)
    below = [
        _Section(7, health, apart=True),
        _Section(8, sections.machine(state, look), apart=not health),
        _Section(3, sections.failures(state, look), apart=True),
        _Section(4, sections.warnings(state, look)),
        _Section(1, sections.stopping(state, look)),
        _Section(6, [] if sections.stopping(state, look) else sections.hint(look), apart=True),
    ]
    wanted = tables.wanted_rows(state)
    kept = _affordable([*above, *below], room - min(wanted, max(LEAST_ROWS, round(room * LEAST_SHARE))))
    used = sum(len(section.lines) for section in kept)
    main = [_Section(0, tables.at_work(state, now, room - used, look), apart=True)]
    spare = room - used - len(main[0].lines)
    if spare > LEAST_ENDED + 1:
        main.append(_Section(0, tables.ended(state, spare - 1, look), apart=True))
    return _stacked([*(s for s in above if s in kept), *main, *(s for s in below if s in kept)], room)


def _affordable(every: Sequence[_Section], room: int) -> list[_Section]:
    """Return the most important sections that fit into `room` lines; the first of all is always there."""
    kept: list[_Section] = []
    for section in sorted(every, key=lambda section: section.rank):
        if section.lines and (section.rank == 0 or len(section.lines) <= room):
            kept.append(section)
            room -= len(section.lines)
    return kept


def _stacked(shown: Sequence[_Section], room: int) -> list[Text]:
    """Return the lines of the sections, with blank ones between the groups if there is room for all of these."""
    filled = [section for section in shown if section.lines]
    gaps = sum(section.apart for section in filled[1:])
    airy = gaps <= room - sum(len(section.lines) for section in filled)
    lines: list[Text] = []
    for section in filled:
        lines += [Text()] * (airy and section.apart and bool(lines))
        lines += section.lines
    return lines[:room]
