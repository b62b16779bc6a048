"""A frame as a picture: SVG that needs nothing from elsewhere, in the colours of a dark or a light terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, DIMMED_MONOKAI, TerminalTheme
from rich.text import Text

Theme = Literal["dark", "light"]

THEMES: dict[Theme, TerminalTheme] = {"dark": DIMMED_MONOKAI, "light": DEFAULT_TERMINAL_THEME}
_ELSEWHERE = re.compile(r"@font-face\s*\{.*?\}\s*|<!--.*?-->\s*", re.DOTALL)


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
