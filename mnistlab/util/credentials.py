"""Names and passwords in URLs, which must not get into what is written down or sent: `https://name:password@host`."""

from __future__ import annotations

import re

# As in RFC 3986: the user's part ends with the last "@" before the path. `Path` makes one slash of the two.
_USER = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^\s/?#]*@")


def without_credentials(text: str) -> str:
    """Return the text with `***` in place of name and password of every URL in it."""
    return _USER.sub(r"\1***@", text)
