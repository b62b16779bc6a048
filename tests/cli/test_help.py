from __future__ import annotations

import subprocess
import sys

import pytest

import mnistlab

HEAVY = ("torch", "torchvision", "ray", "optuna", "rich", "pydantic", "numpy", "scipy", "sklearn", "pluggy")
LOOK = f"""
import sys
from mnistlab.cli.main import main
try:
    main()
except SystemExit as end:
    print(end.code, sorted(set({HEAVY!r}) & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("argument", "said"),
    [("--help", "leaderboard"), ("--version", mnistlab.__version__)],
)
def test_what_has_to_be_there_at_once_imports_nothing_heavy(argument, said):
    done = subprocess.run([sys.executable, "-c", LOOK, argument], capture_output=True, text=True, check=True)
    assert said in done.stdout
    assert done.stdout.splitlines()[-1] == "0 []"
