"""What a frame is drawn for, and how words find their place in it: whole, or not at all, or cut with an ellipsis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from mnistlab.console.dashboard.glyphs import UNICODE, Signs

DRIVER_HINT = "Ctrl-C: stop after the running epochs; mnistlab resume goes on; twice: at once"


@dataclass(frozen=True)
class Look:
    """What a frame is drawn for: the terminal's size in cells, its signs, and what the last line says of keys.

    `hint` may hold several phrases separated by "; "; of these the first ones are shown, as many as fit.
    """

    width: int
    height: int
    signs: Signs = UNICODE
    hint: str = DRIVER_HINT

    def line(self, text: str, style: str = "") -> Text:
        """Return `text` as a line that is not wider than the terminal."""
        return self.signs.line(self.signs.cut(text, self.width), style)

    def fitted(self, words: Sequence[str], width: int | None = None) -> str:
        """Return the first of `words`, joined, for as long as they fit; the very first is cut rather than left out."""
        signs, room = self.signs, self.width if width is None else width
        shown, *rest = [word for word in words if word] or [""]
        shown = signs.cut(shown, room)
        for word in rest:
            longer = signs.text(shown + signs.separator + word)
            if cell_len(longer) > room:
                break
            shown = longer
        return shown

    def wrapped(self, words: Sequence[str], most: int) -> list[str]:
        """Return `words`, joined, on at most `most` lines; what does not fit is left out."""
        lines: list[str] = []
        left = [word for word in words if word]
        while left and len(lines) < most:
            count = max(1, next((n for n in range(len(left), 0, -1) if self._fit(left[:n])), 1))
            lines.append(self.fitted(left[:count]))
            left = left[count:]
        return lines

    def _fit(self, words: Sequence[str]) -> bool:
        return cell_len(self.signs.text(self.signs.separator.join(words))) <= self.width
