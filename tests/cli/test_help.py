from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import mnistlab
from mnistlab.cli.main import app

HEAVY = ("torch", "torchvision", "ray", "optuna", "rich", "pydantic", "numpy", "scipy", "sklearn", "pluggy")
LOOK = f"""
import sys
from mnistlab.cli.main import main
try:
    main()
except SystemExit as end:
    print(end.code, sorted(set({HEAVY!r}) & set(sys.modules)))
"""


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("argument", "said"),
    [("--help", "leaderboard"), ("-h", "leaderboard"), ("--version", mnistlab.__version__)],
)
def test_what_has_to_be_there_at_once_imports_nothing_heavy(argument, said):
    done = subprocess.run([sys.executable, "-c", LOOK, argument], capture_output=True, text=True, check=True)
    assert said in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("command", ["", "search", "check", "leaderboard", "watch", "plugins", "plugins info"])
def test_h_is_help_everywhere(command):
    said = [CliRunner().invoke(app, [*command.split(), option], prog_name="mnistlab") for option in ("-h", "--help")]
    assert [one.exit_code for one in said] == [0, 0]
    assert said[0].output == said[1].output
    assert said[0].output.startswith(f"Usage: mnistlab {command}".rstrip())
