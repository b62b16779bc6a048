"""What may be the name of a file or folder that is made: one rule for runs, trials and plugins, whoever named them.

It is stricter than Linux, because run directories are copied to other systems and their names stand in commands.
"""

from __future__ import annotations

import re

RULE = "must be 1 to 128 letters, digits, '.', '_' and '-', beginning with none of '.' and '-', and no device's name"
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_NUMBERED = [f"{kind}{number}" for kind in ("com", "lpt") for number in range(1, 10)]
_DEVICES = frozenset({"con", "prn", "aux", "nul", *_NUMBERED})


def is_plain(name: object) -> bool:
    """Return whether `name` is a text that keeps to RULE: no separator, no `..`, no NUL, nothing hidden."""
    return isinstance(name, str) and bool(_PLAIN.fullmatch(name)) and not is_device(name)


def is_device(name: str) -> bool:
    """Return whether Windows takes `name` for a device, as it does with `nul`, and with `nul.txt` too."""
    return name.partition(".")[0].lower() in _DEVICES
