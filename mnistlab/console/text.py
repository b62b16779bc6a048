"""Text from plugins, configs and errors, made harmless: it is shown, never obeyed."""

from __future__ import annotations

from rich.text import Text

ASCII = str.maketrans({"±": "+/-", "·": "|", "…": "...", "×": "x", "−": "-"})


def visible(text: str) -> str:
    r"""Return `text` with every control, format and bidirectional character written out, so ESC becomes `\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


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
