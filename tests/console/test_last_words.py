"""What is said of a process that ends without a word, and how its terminal is left then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.terminals import Terminal

pytestmark = pytest.mark.simulated

PROGRAM = """
import os, signal, subprocess, sys, time
from datetime import UTC, datetime
from pathlib import Path
from mnistlab import events as ev
from mnistlab.console.views import Ui, open_console
from mnistlab.util.last_words import note_loss, note_ray
from tests.console.conftest import run_started

def stamped(event):
    return ev.Stamped(seq=1, time=datetime.now(UTC), t=0.0, event=event)

folder, past, begun = sys.argv[2], [stamped(run_started())] if "past" in sys.argv[3:] else (), "begun" in sys.argv[3:]
with open_console(Ui(sys.argv[1], color=True, fps=4.0), Path(folder, "driver.log"), past=past) as handle:
    handle(stamped(run_started() if begun else ev.RunPreparing(run="tiny-1", step="starting Ray")))
    {body}
"""
RAY = 'ray = subprocess.Popen(["sleep", "60"]); note_ray({"raylet": ray.pid, "gcs_server": os.getppid()})\n    '
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
KEPT = "what was found so far is kept; go on with `mnistlab resume runs/tiny-1`\n"


def command(
    folder: Path, kind: str, body: str, run: str = "runs/tiny-1", state: str = "begun"
) -> tuple[list[str], dict[str, str]]:
    (folder / run).mkdir(parents=True)
    program = PROGRAM.replace("{body}", body)
    return [sys.executable, "-c", program, kind, run, state], {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def said_of(folder: Path, body: str, **about: str) -> tuple[int, str]:
    """Return how the program ends in a child of this process, and what stands on its standard error in the end."""
    (_, _, program, *arguments), _ = command(folder, "quiet", body, **about)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 2)
        os.close(writing)
        os.chdir(folder)
        sys.argv, sys.stderr = ["program", *arguments], open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        os._exit(ended_with(program))
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def ended_with(program: str) -> int:
    try:
        exec(compile(program, "program", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def test_of_a_process_that_ends_as_it_should_nothing_is_said(tmp_path: Path) -> None:
    assert said_of(tmp_path, "pass") == (0, "")


def test_of_one_that_an_exception_ends_nothing_is_said_but_that(tmp_path: Path) -> None:
    code, said = said_of(tmp_path, "sys.exit(5)")
    assert (code, said) == (5, "")


def test_a_process_that_was_killed_is_told_and_how_its_run_goes_on(tmp_path: Path) -> None:
    code, said = said_of(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert (code, said) == (-signal.SIGKILL, f"mnistlab: this process was killed: {KEPT}")


def test_a_ray_that_goes_with_the_process_that_was_killed_was_not_the_reason(tmp_path: Path) -> None:
    together = "ctypes.CDLL(None).prctl(1, signal.SIGKILL)"  # PR_SET_PDEATHSIG, as Ray's own processes have it
    child = f"import ctypes, signal, time; {together}; print(flush=True); time.sleep(60)"
    body = (
        f'ray = subprocess.Popen([sys.executable, "-c", {child!r}], stdout=subprocess.PIPE)\n    ray.stdout.readline();'
        'note_ray({"raylet": ray.pid}); os.kill(os.getpid(), signal.SIGKILL)'
    )
    code, said = said_of(tmp_path, body)
    assert code == -signal.SIGKILL
    assert said.startswith("mnistlab: this process was killed")  # on a busy machine: "or Ray's raylet ... took it"
    assert said.endswith(f": {KEPT}")


@pytest.mark.parametrize("body", [KILL, 'note_loss("this process was killed"); os._exit(75)'])
def test_before_a_run_has_begun_nothing_is_promised(tmp_path: Path, body: str) -> None:
    _, said = said_of(tmp_path, body, state="preparing")
    assert said == "mnistlab: this process was killed: nothing had begun yet; start it anew\n"


def test_a_run_with_a_past_goes_on_even_before_this_driver_has_begun(tmp_path: Path) -> None:
    _, said = said_of(tmp_path, KILL, state="past")
    assert said == f"mnistlab: this process was killed: {KEPT}"


def test_the_command_can_be_typed_wherever_the_run_lies(tmp_path: Path) -> None:
    _, said = said_of(tmp_path, KILL, run="my runs/tiny-1")
    assert said.endswith("go on with `mnistlab resume 'my runs/tiny-1'`\n")


def test_where_ray_lives_it_was_not_ray(tmp_path: Path) -> None:
    code, said = said_of(tmp_path, RAY + "os.kill(os.getpid(), signal.SIGKILL)")
    assert (code, said) == (-signal.SIGKILL, f"mnistlab: this process was killed: {KEPT}")


def test_a_process_that_ray_took_along_is_told_with_what_of_ray_was_gone(tmp_path: Path) -> None:
    code, said = said_of(tmp_path, RAY + "ray.kill(); time.sleep(1); os._exit(1)")
    assert (code, said) == (1, f"mnistlab: Ray's raylet ended, and this process with it: {KEPT}")


def test_a_ray_that_the_search_has_ended_itself_is_not_blamed(tmp_path: Path) -> None:
    code, said = said_of(tmp_path, RAY + "note_ray({}); ray.kill(); time.sleep(1); " + KILL)
    assert (code, said) == (-signal.SIGKILL, f"mnistlab: this process was killed: {KEPT}")


def test_a_ray_that_had_ended_before_another_one_is_not_blamed(tmp_path: Path) -> None:
    code, said = said_of(tmp_path, RAY + 'ray.kill(); time.sleep(1); note_ray({"raylet": os.getppid()}); ' + KILL)
    assert (code, said) == (-signal.SIGKILL, f"mnistlab: this process was killed: {KEPT}")


@pytest.mark.e2e
@pytest.mark.parametrize("kind", [pytest.param("live", marks=pytest.mark.chaos), "full"])
def test_a_terminal_that_was_drawn_on_is_given_back(
    terminal: Callable[..., Terminal], tmp_path: Path, kind: str
) -> None:
    shown = terminal(width=120)
    arguments, environ = command(tmp_path, kind, "time.sleep(600)")
    process = shown.run(arguments, tmp_path, environ, stdout=subprocess.DEVNULL)
    shown.until(lambda: any("searching" in line for line in shown.lines()))
    assert shown.cursor_hidden
    assert not shown.echoes
    process.kill()
    process.wait()
    shown.until(lambda: any("go on with `mnistlab resume runs/tiny-1`" in line for line in shown.lines()))
    assert not shown.cursor_hidden
    assert shown.echoes
    assert not any("searching" in line for line in shown.lines())
    assert shown.written().count("\x1b[?1049h") == shown.written().count("\x1b[?1049l") == (kind == "full")


@pytest.mark.e2e
def test_ctrl_c_is_the_searchs_own_and_nothing_is_said_of_it(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    shown = terminal(width=120)
    body = "try: time.sleep(600)\n    except KeyboardInterrupt: pass"
    arguments, environ = command(tmp_path, "live", body)
    process = shown.run(arguments, tmp_path, environ, stdout=subprocess.DEVNULL)
    shown.until(lambda: any("searching" in line for line in shown.lines()))
    shown.type("\x03")
    assert process.wait(timeout=60) in {0, -signal.SIGINT}
    assert "go on with" not in shown.written()
    assert shown.echoes


def test_a_loss_that_was_seen_is_told_where_the_driver_is_deaf_to_it(tmp_path: Path) -> None:
    code, said = said_of(tmp_path, 'note_loss("the head of the Ray cluster is silent"); os._exit(75)')
    assert (code, said) == (75, f"mnistlab: the head of the Ray cluster is silent: {KEPT}")


def test_a_loss_that_the_driver_has_told_is_not_told_again(tmp_path: Path) -> None:
    assert said_of(tmp_path, 'note_loss("the head of the Ray cluster is silent")') == (0, "")
