"""Text from plugins, configs and errors, made harmless: it is shown, never obeyed."""

from __future__ import annotations

from rich.text import Text

from mnistlab.util.text import visible

__all__ = ["ASCII", "encodable", "plain_text", "visible"]

ASCII = str.maketrans({"±": "+/-", "·": "|", "…": "...", "×": "x", "−": "-"})


def encodable(text: str, encoding: str | None) -> str:
    """Return `text` as a stream of `encoding` can carry it: signs spelt in ASCII, other letters escaped."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        plain = text.translate(ASCII)
        return plain.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")
    return text


def plain_text(text: str, style: str = "") -> Text:
    """Return one line of rich text that never wraps and in which markup and control characters are inert."""
    return Text(visible(text), style=style, no_wrap=True, overflow="ellipsis")
