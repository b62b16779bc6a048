"""How a terminal is left by signals that end or stop the process that draws on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from mnistlab.console.redirect import Streams
from mnistlab.console.views import Ui, open_view

pytestmark = pytest.mark.e2e

PROGRAM = """
import sys, time
from datetime import UTC, datetime
from mnistlab import events as ev
from mnistlab.console.views import Ui, open_view
from tests.console.conftest import run_started

with open_view(Ui(sys.argv[1], color=True, fps=4.0)) as handle:
    handle(ev.Stamped(seq=1, time=datetime.now(UTC), t=0.0, event=run_started()))
    for _ in range(10_000):
        time.sleep(0.01)
"""


WAYS = [(signal.SIGTERM, 143, "full"), (signal.SIGINT, -2, "live"), (signal.SIGHUP, 143, "live")]
OTHERS = [(signal.SIGTERM, 143, "live"), (signal.SIGINT, -2, "full"), (signal.SIGHUP, 143, "full")]


@pytest.mark.parametrize(
    ("number", "code", "kind"), [*WAYS, *(pytest.param(*one, marks=pytest.mark.chaos) for one in OTHERS)]
)
def test_a_signal_that_ends_the_process_leaves_the_terminal_in_order(terminal, tmp_path, kind, number, code):
    shown = terminal()
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = shown.run([sys.executable, "-c", PROGRAM, kind], tmp_path, environ, stdout=subprocess.DEVNULL)
    shown.until(lambda: any("searching" in line for line in shown.lines()))
    assert shown.cursor_hidden
    assert not shown.echoes
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    shown.settle()
    assert not shown.cursor_hidden
    assert shown.echoes
    assert not any("searching" in line for line in shown.lines())
    assert shown.written().count("\x1b[?1049h") == shown.written().count("\x1b[?1049l") == (kind == "full")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash, a shell with job control")
def test_ctrl_z_gives_the_terminal_to_the_shell_and_fg_takes_it_back(terminal, tmp_path):
    shown = terminal()
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PS1": "PROMPT> ", "TERM": "xterm"}
    shell = shown.run(["bash", "--norc", "--noediting", "-i"], tmp_path, environ)
    try:
        (tmp_path / "program.py").write_text(PROGRAM)
        shown.type(f"{sys.executable} program.py live\n")
        shown.until(lambda: any("searching" in line for line in shown.lines()))
        assert shown.cursor_hidden
        shown.type("\x1a")
        shown.until(lambda: shown.lines()[-1] == "PROMPT>")
        assert not shown.cursor_hidden
        assert shown.echoes
        assert not any("searching" in line for line in shown.lines())
        shown.type("bg\n")  # it runs on, and leaves the terminal to the shell
        shown.type("echo $((6 * 7))\n")
        shown.until(lambda: shown.lines()[-2].endswith("42"))
        shown.type("fg\n")
        shown.until(lambda: any("searching" in line for line in shown.lines()))
        assert shown.cursor_hidden
        shown.type("\x03")
        shown.until(lambda: shown.lines()[-1] == "PROMPT>")
        assert not shown.cursor_hidden
        assert not any("searching" in line for line in shown.lines())
    finally:
        shown.type("exit\n")
        shell.kill()
        shell.wait()


def test_outside_the_main_thread_the_view_works_without_signals(terminal, recording):
    shown = terminal()

    def show() -> None:
        with open_view(Ui("live", color=True, fps=4.0), Streams(shown.stream, shown.stream)) as handle:
            handle(recording[0])
            shown.until(lambda: any("searching" in line for line in shown.lines()))

    thread = threading.Thread(target=show)
    thread.start()
    thread.join()
    assert shown.everything() == []
