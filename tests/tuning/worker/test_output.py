"""What a process prints, captured. Each case runs in a process of its own, because descriptors are redirected."""

from __future__ import annotations

import json

import pytest

from mnistlab.tuning.worker.output import MAX_CHUNK
from tests.forked import python

pytestmark = pytest.mark.simulated

PREPARE = """
import ctypes, json, os, subprocess, sys, traceback
answer = os.fdopen(os.dup(1), "w")
from pathlib import Path
from tempfile import mkdtemp
from mnistlab.tuning.worker.output import MAX_CHUNK, Capture
capture = Capture(Path(mkdtemp()) / "logs" / "first.log")
sys.stdout.reconfigure(line_buffering=True)  # as in Ray's workers
print("before")
sys.stdout.flush()
capture.start()
taken = []
"""
FINISH = """
json.dump(taken, answer)
answer.flush()
"""


def taken(body: str) -> list[str]:
    """Run `body`, which appends to `taken`, and return that; what went to the real standard output stands first."""
    done = python(PREPARE + body + FINISH)
    assert (done.returncode, done.stderr) == (0, "")
    before, _, answer = done.stdout.partition("\n")
    assert before == "before"
    return json.loads(answer)


def test_python_c_and_child_processes_are_captured_in_their_order():
    (text,) = taken(
        """
print("out")
sys.stdout.flush()
print("err", file=sys.stderr)
ctypes.CDLL(None).write(1, b"from C\\n", 7)
subprocess.run([sys.executable, "-c", "print('a child')"], check=True)
taken.append(capture.take())
"""
    )
    assert text == "out\nerr\nfrom C\na child\n"


def test_what_was_taken_is_forgotten():
    assert taken(
        """
for word in ("first", "second"):
    print(word)
    taken.append(capture.take())
taken.append(capture.take())
"""
    ) == ["first\n", "second\n", ""]


@pytest.mark.parametrize("more", [0, 1, 1_000])
def test_only_what_is_above_the_limit_is_dropped(more: int):
    (text,) = taken(f"os.write(1, b'x' * (MAX_CHUNK + {more}))\ntaken.append(capture.take())")
    assert text.count("x") == MAX_CHUNK
    assert (f"\n[{more} bytes that were printed here were dropped]\n" in text) == (more > 0)


def test_a_traceback_after_much_chatter_survives():
    first, second = taken(
        """
print("the beginning")
for step in range(60_000):
    print(f"step {step}: loss is fine")
try:
    raise RuntimeError("this is why")
except RuntimeError as error:
    traceback.print_exception(error)
taken.append(capture.take())
print("the next trial")
taken.append(capture.take())
"""
    )
    assert first.startswith("the beginning\nstep 0: loss is fine\n")
    assert "Traceback (most recent call last)" in first
    assert first.endswith("RuntimeError: this is why\n")
    assert len(first) < MAX_CHUNK + 100
    assert second == "the next trial\n"


def test_bytes_that_are_no_text_and_characters_cut_in_two_stay_visible():
    (text,) = taken("os.write(1, b'\\xff\\xfe ')\nos.write(1, 'é'.encode() * MAX_CHUNK)\ntaken.append(capture.take())")
    assert text.startswith("\\xff\\xfe éé")
    assert "\\xc3\n[" in text
    assert text.endswith("éé")
