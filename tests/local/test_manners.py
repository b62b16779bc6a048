"""How a search in this process gets along with what plugins do to it, and with who debugs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mnistlab.tuning.worker.output import Capture

pytestmark = pytest.mark.simulated


def test_a_plugin_that_closes_its_streams_leaves_the_drivers_alone(tmp_path: Path) -> None:
    capture, there = Capture(tmp_path / "log"), os.fstat(1).st_ino
    streams = sys.stdout, sys.stderr
    with capture.on():
        print("said")
        sys.stdout.close()
        sys.stdout = sys.stderr = None  # type: ignore[assignment]
        with capture.off():
            assert os.fstat(1).st_ino == there
    assert (sys.stdout, sys.stderr) == streams
    assert os.fstat(1).st_ino == there
    assert "said" in capture.take()
    capture.close()


FORKING = """
import os, signal, time
from mnistlab.util.signals import Requests, signals_as
with signals_as(Requests()):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, b".")
        time.sleep(20)
        os._exit(0)
    os.read(reader, 1)  # a signal that comes while Python forks is forgotten
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_that_a_plugin_has_forked_ends_by_the_first_signal() -> None:
    # Not forked from this process: a Ray that other tests have here does not outlive that.
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == -signal.SIGTERM
