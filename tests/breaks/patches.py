"""The kept breaks: which there are, what each of them changes, and how it is put into a tree. It starts no process."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE / "README.md"  # the one place that says which tests are run for a break
_FILE = re.compile(r"^--- a/(?P<path>\S+)\n\+\+\+ b/(?P=path)$", re.MULTILINE)
_ROW = re.compile(r"^\| `(?P<name>\d{3}-[a-z0-9-]+)` \|(?P<rest>.*)\|$", re.MULTILINE)


class NoSuchBreakError(Exception):
    """A break was asked for that is none, or that does not fit the tree any more."""


@dataclass(frozen=True)
class Break:
    """A row of the table: `breaks` in a sentence, the `tests` that are run, and which suites found it."""

    name: str
    breaks: str
    tests: tuple[str, ...]
    before: bool
    now: bool


@dataclass(frozen=True)
class Patch:
    """One hunk: in the file `path`, the lines `old` become `new`. `says` is the sentence above it."""

    path: str
    says: str
    old: str
    new: str

    def changed(self, text: str) -> str:
        """Return the text of the file with the break in it.

        Raises:
            NoSuchBreakError: if the lines are not there, or not just once.
        """
        changed, found = re.subn(f"^{re.escape(self.old)}", lambda _: self.new, text, flags=re.MULTILINE)
        if found != 1:
            raise NoSuchBreakError(f"the lines that it changes are {found} times in {self.path}")
        return changed


def table() -> list[Break]:
    """Return the rows of the table, in their order."""
    return [_row(found["name"], found["rest"]) for found in _ROW.finditer(TABLE.read_text(encoding="utf-8"))]


def _row(name: str, rest: str) -> Break:
    breaks, tests, before, now = (cell.strip() for cell in rest.split("|"))
    return Break(name, breaks, tuple(re.findall(r"`([^`]+)`", tests)), before == "yes", now == "yes")


def patch_file(name: str) -> Path:
    """Return where the patch of a break lies."""
    return HERE / f"{name}.patch"


def read_patch(path: Path) -> Patch:
    """Read a patch as `git diff` writes it, with a sentence above it.

    Raises:
        NoSuchBreakError: if it is not of that form.
    """
    text = path.read_text(encoding="utf-8")
    head, diff, body = text.partition("\ndiff --git ")
    files, hunks = _FILE.findall(text), re.split(r"^@@ .*\n", body, flags=re.MULTILINE)[1:]
    head = head.strip()
    if not (diff and head.startswith("Breaks: ") and head.endswith(".") and len(files) == len(hunks) == 1):
        raise NoSuchBreakError(f"{path.name} is no sentence `Breaks: ...` and one hunk of one file")
    lines = hunks[0].splitlines(keepends=True)
    old, new = ("".join(line[1:] for line in lines if line[0] in f" {sign}") for sign in "-+")
    return Patch(files[0], head.removeprefix("Breaks: "), old, new)
