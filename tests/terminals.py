"""Terminals in memory, at the other end of a pseudo-terminal: what a person would see, scrollback included."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyte
from pyte.screens import Char

PATIENCE = 240.0  # seconds; longer than anything here takes on a busy machine
Row = dict[int, Char]

TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Cropping(pyte.HistoryScreen):
    """A terminal that cuts off what a smaller window has no room for, as xterm does."""

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__(columns, lines, history=10_000)

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        lines, columns = lines or self.lines, columns or self.columns
        rows, cursor = self._refitted([dict(self.buffer[y]) for y in range(self.lines)], columns)
        hidden = self._hidden(len(rows), cursor, lines)
        self.history.top.extend(self._row(row) for row in rows[:hidden])
        self.buffer.clear()
        for y, row in enumerate(rows[hidden : hidden + lines]):
            self.buffer[y].update(row)
        self.lines, self.columns = lines, columns
        self.cursor.y, self.cursor.x = max(0, cursor - hidden), min(self.cursor.x, columns - 1)

    def _row(self, row: Row) -> Any:
        made = type(self.buffer[0])(default=self.default_char)
        made.update(row)
        return made

    def _refitted(self, rows: list[Row], columns: int) -> tuple[list[Row], int]:
        """Return the rows as they stand in that many columns, and in which of them the cursor is."""
        return [{x: char for x, char in row.items() if x < columns} for row in rows], self.cursor.y

    def _hidden(self, rows: int, cursor: int, lines: int) -> int:
        """Return how many rows move into the scrollback: xterm keeps what stands above the cursor."""
        return max(0, cursor - (lines - 1))

    def everything(self) -> list[str]:
        """Every line that a person can see or scroll to, without the blank ones at the end."""
        rows = [*self.history.top, *(self.buffer[y] for y in range(self.lines))]
        lines = ["".join(row[x].data for x in range(self.columns)).rstrip() for row in rows]
        while lines and not lines[-1]:
            lines.pop()
        return lines


class Wrapping(Cropping):
    """A terminal that wraps the lines that a narrower window has no room for, as tmux and those of today do."""

    def _refitted(self, rows: list[Row], columns: int) -> tuple[list[Row], int]:
        fitted: list[Row] = []
        cursor = 0
        for y, row in enumerate(rows):
            used = 1 + max((x for x, char in row.items() if char.data != " "), default=0)
            if y == self.cursor.y:
                cursor = len(fitted) + self.cursor.x // columns
            fitted += [
                {x - start: char for x, char in row.items() if start <= x < start + columns}
                for start in range(0, used, columns)
            ]
        return fitted, cursor

    def _hidden(self, rows: int, cursor: int, lines: int) -> int:
        return max(0, rows - lines)  # tmux counts the blank lines at the end too


class Terminal:
    """A pseudo-terminal: programs write to `slave` or `stream`, and `screen` shows it. `raw` is every byte of it."""

    def __init__(self, width: int = 100, height: int = 30, kind: type[Cropping] = Cropping) -> None:
        self.screen = kind(width, height)
        self.raw = bytearray()
        self._bytes = pyte.ByteStream(self.screen)
        self._lock = threading.Lock()
        self.master, self.slave = pty.openpty()
        self._set_size(width, height)
        self.stream = open(os.dup(self.slave), "w", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._closing = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._closing:
            if not select.select([self.master], [], [], 0.05)[0]:
                continue
            with self._lock:
                data = os.read(self.master, 65_536)
                self.raw += data
                self._bytes.feed(data)

    def _set_size(self, width: int, height: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def resize(self, width: int, height: int) -> None:
        """Be given another size, as by a person who drags the corner of the window."""
        with self._lock:
            self.screen.resize(height, width)
            self._set_size(width, height)

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def lines(self) -> list[str]:
        """What stands on the screen, line by line, without the blank lines at the end."""
        with self._lock:
            shown = [line.rstrip() for line in self.screen.display]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def everything(self) -> list[str]:
        """What stands on the screen and in the scrollback, once all that was written has arrived."""
        self.settle()
        with self._lock:
            return self.screen.everything()

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.slave)[3] & termios.ECHO)

    @property
    def cursor_hidden(self) -> bool:
        return self.screen.cursor.hidden

    def until(self, true: Callable[[], object]) -> None:
        """Wait until something is true, for the other side has a thread or a process of its own."""
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < deadline, "\n".join(["waited in vain; the screen shows", *self.lines()])
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait until all that was written has arrived."""
        mark = f"\x1b]2;mark {time.monotonic_ns()}\x07".encode()  # a title: it changes nothing on the screen
        os.write(self.slave, mark)
        self.until(lambda: mark in self.raw)

    def written(self) -> str:
        """All that has been written by others than `settle`."""
        self.settle()
        return re.sub(rb"\x1b\]2;mark \d+\x07", b"", self.raw).decode("utf-8", "replace")

    def run(self, command: Sequence[str], cwd: Path, environ: Mapping[str, str], **streams: Any) -> subprocess.Popen:
        """Start a program whose controlling terminal this is."""
        streams = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave} | streams
        return subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *command],
            cwd=cwd,
            env=environ,
            start_new_session=True,
            **streams,
        )

    def hang_up(self) -> None:
        """Close the window. Once done, doing it again changes nothing."""
        if self._closing:
            return
        self._closing = True
        self._reader.join()
        with suppress(OSError):
            self.stream.close()
        os.close(self.slave)
        os.close(self.master)
