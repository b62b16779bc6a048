"""The signs a view is drawn with: a set for terminals that know Unicode, and one of plain ASCII."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from mnistlab.util.text import encodable, visible


@dataclass(frozen=True)
class Signs:
    """Signs that stand beside words, never in their place: a state can be read without them, and without colour."""

    ascii: bool
    done: str
    failed: str
    running: str
    pruned: str
    stopped: str
    queued: str
    warning: str
    separator: str
    full: str
    empty: str
    levels: str  # of a sparkline, low to high
    ellipsis: str

    def text(self, text: str) -> str:
        """Return `text` on one line with nothing in it that a terminal would obey or could not show."""
        shown = visible(text)
        return encodable(shown, "ascii") if self.ascii else shown

    def line(self, text: str, style: str = "") -> Text:
        """Return a line of rich text in which markup is inert."""
        return Text(self.text(text), style=style, no_wrap=True, overflow="crop")

    def cut(self, text: str, width: int) -> str:
        """Return a harmless `text` of at most `width` cells; an ellipsis tells that something is missing."""
        shown = self.text(text)
        if cell_len(shown) <= width:
            return shown
        room = width - len(self.ellipsis)
        return set_cell_size(shown, room).rstrip() + self.ellipsis if room > 0 else set_cell_size(shown, max(0, width))

    def cell(self, text: str, width: int, *, right: bool = False) -> str:
        """Return `text` in a cell of exactly `width`."""
        shown = self.cut(text, width)
        blank = " " * (width - cell_len(shown))
        return blank + shown if right else shown + blank

    def bar(self, share: float, width: int) -> str:
        """Return a bar of `width` cells, filled by `share` (0 to 1)."""
        filled = round(min(1.0, max(0.0, share)) * width)
        return self.full * filled + self.empty * (width - filled)

    def spark(self, values: Sequence[float], width: int) -> str:
        """Return the last `width` values as a sparkline between their own least and greatest."""
        shown = [value for value in values[-width:] if value == value]  # noqa: PLR0124 - NaN has no level
        if not shown:
            return ""
        low, span = min(shown), max(shown) - min(shown)
        top = len(self.levels) - 1
        return "".join(self.levels[round((value - low) / span * top) if span > 0 else top // 2] for value in shown)


UNICODE = Signs(
    ascii=False,
    done="✓",
    failed="✗",
    running="▸",
    pruned="↓",
    stopped="■",
    queued="○",
    warning="!",
    separator=" · ",
    full="━",
    empty="─",
    levels="▁▂▃▄▅▆▇█",
    ellipsis="…",
)
ASCII = Signs(
    ascii=True,
    done="+",
    failed="x",
    running=">",
    pruned="v",
    stopped="=",
    queued="o",
    warning="!",
    separator=" | ",
    full="#",
    empty=".",
    levels="_.-=+*#@",
    ellipsis="...",
)


def signs_for(encoding: str | None) -> Signs:
    """Return the signs that a stream of `encoding` can carry."""
    try:
        "".join(value for value in astuple(UNICODE) if isinstance(value, str)).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE
