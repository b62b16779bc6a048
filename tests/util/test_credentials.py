"""Names and passwords in URLs are left out of what is written down."""

from __future__ import annotations

import pytest

from mnistlab.util.credentials import without_credentials


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://ann:pa55@host/x.git", "https://***@host/x.git"),
        ("git+ssh://git@host/x", "git+ssh://***@host/x"),
        ("https://t0ken@host", "https://***@host"),
        ("https://ann:p@ss@host/a@b", "https://***@host/a@b"),
        ("https://ann:p'\"$(x)@host", "https://***@host"),
        ("https:/ann:pa55@host/x", "https:/***@host/x"),  # as pathlib has it
        ("a=http://u:p@h and sqlite+x://v:q@i", "a=http://***@h and sqlite+x://***@i"),
        ("https://host/path?mail=a@b.c", "https://host/path?mail=a@b.c"),
        ("https://host/a@b", "https://host/a@b"),
        ("mail ann@host: x", "mail ann@host: x"),
        ("C:\\x@y, d:/e/f@g", "C:\\x@y, d:/e/f@g"),
        ("model.mlp.width=64", "model.mlp.width=64"),
    ],
)
def test_what_is_left_of_a_text(text: str, left: str) -> None:
    assert without_credentials(text) == left
