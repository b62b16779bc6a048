"""A breakpoint in a plugin: the debugger speaks with the user, and the search goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked import forked

pytestmark = pytest.mark.e2e
LEFT_BY_RAY = {"PYTHONBREAKPOINT": "ray.util.rpdb._driver_set_trace"}  # to the children of a process that was in a Ray

PLUGIN = """
from torch import nn
from mnistlab.api import Config, Model, hookimpl

class Plain(Config):
    pass

def build(config, shape):
    looked_at = shape.pixels
    breakpoint()
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.pixels, shape.classes))

@hookimpl
def mnistlab_models():
    return [Model(name="looked-at", config=Plain, build=build, summary="Stops where it is built.")]
"""
FILE = """
name = "debugged"
[data]
dataset = "idx"
validation = 32
[model.looked-at]
[optimizer.sgd]
[training]
epochs = 1
batch_size = 16
[search]
trials = 2
[confirm]
top = 0
"""


def debugged(folder: Path, images: Path) -> tuple[str, ...]:
    """Return the arguments of a search with the plugin."""
    (folder / "looked.py").write_text(PLUGIN)
    (folder / "x.toml").write_text(FILE)
    return ("search", "x.toml", "--executor", "local", "--plugin", "looked.py", "--data-dir", str(images))


def test_a_breakpoint_in_a_plugin_stops_before_the_user_and_the_search_goes_on(tmp_path: Path, tiny: Path) -> None:
    command = [Path(sys.executable).parent / "mnistlab", *debugged(tmp_path, tiny)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", **LEFT_BY_RAY}
    typed = "p looked_at * 1000\nc\nc\n"
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, input=typed, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("(Pdb)") == 3
    assert "64000" in done.stderr  # what the user asked for
    assert "looked.py" in done.stderr


def test_who_quits_the_debugger_ends_the_search_and_is_told_how_to_resume_it(tmp_path: Path, tiny: Path) -> None:
    process = forked(debugged(tmp_path, tiny), tmp_path, {**os.environ, **LEFT_BY_RAY}, stdin=subprocess.PIPE)
    out, err = process.communicate("q\n", timeout=120)
    assert process.returncode == 130, err
    (run,) = (tmp_path / "runs").iterdir()
    assert f"Next: mnistlab resume runs/{run.name} --executor local\n" in out
