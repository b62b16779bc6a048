"""Last words for a search whose process ends without a word of its own, said by a tiny process beside it.

Where Ray's raylet is gone, Ray's part of this process ends it by `_Exit` as soon as it needs something of that, often
within a tenth of a second: no handler, no `finally` and no thread of ours comes first. A kill leaves no more time.
The other process runs this file by itself, so it imports nothing of mnistlab. It holds the reading end of a pipe, and
speaks when that ends before it has been told that all is well (docs/decisions/0024).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TOGETHER_SECONDS = 0.1  # between two ends of which it can't be said which one came first
END_SECONDS = 5.0  # that the other process may need to end, on a busy machine
_STDERR = 2
_LOCAL_MODES = 3  # where termios keeps ECHO and ICANON
_speakers: list[subprocess.Popen[bytes]] = []  # that of the search that goes on, if there is one


def kept(what: str, again: str) -> str:
    """Return what is said of a search that was cut short by `what`; `again` is the command that goes on with it."""
    return f"{_visible(what)}: what was found so far is kept; go on with `{again}`"


@contextmanager
def last_words(again: str, restore: str = "", *, begun: bool = True) -> Generator[None]:
    """Have standard error, as it is now, told of it should this process end within this context.

    `again` is the command that goes on with the search once that has `begun` (see `note_begun`), `restore` what gives
    back the terminal that is drawn on. Where no other process can be started, nothing will be said.
    """
    speaker = _started()
    if speaker is None:
        yield
        return
    _tell(speaker, again=_visible(again), begun=begun, restore=restore, echo=bool(restore) and _echoes())
    _speakers.append(speaker)
    try:
        yield
    finally:
        _speakers.remove(speaker)
        _dismiss(speaker)


def note_begun() -> None:
    """Note that from here on there is a run that can be gone on with."""
    for speaker in _speakers:
        _tell(speaker, begun=True)


def note_ray(processes: Mapping[str, int]) -> None:
    """Note the processes of a private Ray, by name: where one of them is gone, it was that which ended this one.

    Those of before are forgotten, and so is that any of them has ended.
    """
    for speaker in _speakers:
        _tell(speaker, ray=dict(processes))


def note_loss(what: str) -> bool:
    """Note what is gone without which the search can't go on; return whether that will be said if it ends for it."""
    for speaker in _speakers:
        _tell(speaker, lost=what)
    return bool(_speakers)


def _started() -> subprocess.Popen[bytes] | None:
    command = [sys.executable, "-I", "-S", str(Path(__file__).resolve())]
    try:  # in a process group of its own: no key that is pressed at the terminal reaches it
        return subprocess.Popen(  # noqa: S603 - it is this very file
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=_STDERR, cwd="/", process_group=0
        )
    except (OSError, ValueError):
        return None


def _tell(speaker: subprocess.Popen[bytes], **about: Any) -> None:
    assert speaker.stdin is not None
    with suppress(OSError, ValueError):  # somebody has ended it
        speaker.stdin.write(json.dumps(about).encode() + b"\n")
        speaker.stdin.flush()


def _dismiss(speaker: subprocess.Popen[bytes]) -> None:
    assert speaker.stdin is not None
    _tell(speaker, over=True)
    with suppress(OSError):
        speaker.stdin.close()
    try:
        speaker.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        speaker.kill()
        speaker.wait()


def _visible(text: str) -> str:
    """Return a text without anything that a terminal would obey."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _echoes() -> bool:
    with suppress(OSError, termios.error):
        return bool(termios.tcgetattr(_STDERR)[_LOCAL_MODES] & termios.ECHO)
    return False


# --- the other process --------------------------------------------------------------------------------------------


def _listen() -> None:
    """Wait for the end of the pipe; speak where nobody has said before that all is well."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTTOU, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    about = _heard()
    if "again" in about and not about.get("over"):
        with suppress(OSError):  # nobody may be there to read it
            os.write(_STDERR, f"{_given_back(about)}mnistlab: {_words(about)}\n".encode(errors="replace"))


def _heard() -> dict[str, Any]:
    """Return all that was told, and which processes of Ray had ended before the pipe did (`gone`), or with it (`with`).

    What is killed takes its Ray along: only the order tells who went first, and so each end is waited for. Ends that
    are close together have none: of a process of several threads that is killed the pipe may be open for longer than
    its children live, and on a busy machine this process may come late.
    """
    about: dict[str, Any] = {}
    ended = dict[str, float]()  # when, by the monotonic clock
    waiting, rest, pipe = select.poll(), b"", sys.stdin.fileno()
    waiting.register(pipe, select.POLLIN)
    watched: dict[int, str] = {}
    while True:
        ready = {descriptor for descriptor, _ in waiting.poll()}
        if pipe in ready:
            read = os.read(pipe, 1 << 16)
            if not read:
                now = time.monotonic()
                ended |= {watched[descriptor]: now for descriptor in ready & watched.keys()}
                together = [name for name, then in ended.items() if now - then < TOGETHER_SECONDS]
                return about | {"gone": [name for name in ended if name not in together], "with": together}
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                about |= json.loads(line)
            if "ray" in about:
                ended = _watch_ray(about.pop("ray"), watched, waiting)
        for descriptor in ready & watched.keys():
            ended[watched.pop(descriptor)] = time.monotonic()
            waiting.unregister(descriptor)


def _watch_ray(processes: Mapping[str, int], watched: dict[int, str], waiting: select.poll) -> dict[str, float]:
    """Have the ends of these processes waited for, and of no others; return which of them have ended already."""
    ended = dict[str, float]()
    for descriptor in watched:
        waiting.unregister(descriptor)
    watched.clear()
    for name, pid in processes.items():
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:  # it has ended already
            ended[name] = float("-inf")
            continue
        watched[descriptor] = name
        waiting.register(descriptor, select.POLLIN)
    return ended


def _given_back(about: Mapping[str, Any]) -> str:
    """Have the terminal show again what is typed, and return what gives the rest of it back.

    A shell that edits lines has taken the terminal already where ICANON is off: it is not touched then.
    """
    if about["echo"]:
        with suppress(OSError, termios.error):
            modes = termios.tcgetattr(_STDERR)
            if modes[_LOCAL_MODES] & termios.ICANON:
                modes[_LOCAL_MODES] |= termios.ECHO
                termios.tcsetattr(_STDERR, termios.TCSANOW, modes)
    return str(about["restore"])


def _words(about: Mapping[str, Any]) -> str:
    if lost := about.get("lost"):
        return _left(lost, about)
    what = "this process was killed"
    if gone := about["gone"]:
        what = f"Ray's {' and '.join(gone)} ended, and this process with it"
    elif together := about["with"]:
        what += f", or Ray's {' and '.join(together)} ended and took it along"
    return _left(what, about)


def _left(what: str, about: Mapping[str, Any]) -> str:
    """Return what is said of an end by `what`: before a run has begun there is nothing that can be gone on with."""
    return kept(what, about["again"]) if about["begun"] else f"{_visible(what)}: nothing had begun yet; start it anew"


if __name__ == "__main__":
    _listen()
