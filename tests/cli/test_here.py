"""A command that is run in the process of the tests sees what a process of its own would, and leaves nothing behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.conftest import DISTS, RunCli
from tests.plugins.test_discovery import FILE


def test_plugins_on_the_path_are_there_for_one_command(run_here: RunCli) -> None:
    there_already = "clash_plugin" in sys.modules  # other tests import it for themselves
    before = (os.getcwd(), dict(os.environ), [*sys.path], [*sys.argv])
    there = run_here("plugins", "info", "cnn", PYTHONPATH=str(DISTS / "clash"))
    after = run_here("plugins", "info", "cnn")
    assert [("clash:cnn" in ran.out, "mnistlab:cnn" in ran.out) for ran in (there, after)] == [
        (True, True),
        (False, True),
    ]
    assert ("clash_plugin" in sys.modules) is there_already
    assert (os.getcwd(), dict(os.environ), sys.path, sys.argv) == before


def test_a_warning_that_a_user_would_see_is_on_standard_error(run_here: RunCli, tmp_path: Path) -> None:
    warns = 'import warnings\nwarnings.warn("{} is near", {})\n'
    text = warns.format("an end", "UserWarning") + warns.format("a change", "DeprecationWarning")
    (tmp_path / "warns.py").write_text(FILE.replace("from typing", f"{text}from typing", 1))
    ran = run_here("plugins", "info", "tiny-net", "--plugin", "warns.py")
    assert ran.code == 0, ran.err
    assert "UserWarning: an end is near" in ran.err
    assert "a change" not in ran.err
