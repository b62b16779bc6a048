"""What a plugin does while it is imported: the kit finds what would wake a GPU or spend a seed."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

import pytest
import torch
from kit_probes import contract, fails

from mnistlab.testing import PluginContract
from mnistlab.testing.base import IMPORT_CHECK
from mnistlab.testing.traces import random_states, restore_random_states


@pytest.fixture
def fragile(tmp_path, monkeypatch) -> Callable[[str], types.ModuleType]:
    """Make a module of one line that can be imported, and is not yet."""
    monkeypatch.syspath_prepend(tmp_path)
    name = "fragile_plugin_of_tests"

    def make(line: str) -> types.ModuleType:
        (tmp_path / f"{name}.py").write_text(f"{line}\n")
        return types.ModuleType(name)

    yield make
    sys.modules.pop(name, None)


@pytest.mark.e2e
def test_an_import_that_fails_in_a_fresh_process_is_found(fragile):
    check = contract(PluginContract, plugin=fragile("raise OSError('alone')")).test_importing_it_has_no_side_effects
    fails("(?s)in a fresh process: .*OSError: alone", check)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("import torch; torch.cuda.is_initialized = lambda: True", "it starts CUDA"),
        ("import torch; torch.manual_seed(1)", "it draws from or seeds a global generator"),
        ("import random; random.random()", "it draws from or seeds a global generator"),
        ("import numpy; numpy.random.rand()", "it draws from or seeds a global generator"),
    ],
)
def test_an_import_with_a_side_effect_is_found(line, message, fragile, monkeypatch):
    """By what a fresh process runs, run in this one."""
    monkeypatch.setattr(sys, "argv", ["-c", fragile(line).__name__])
    monkeypatch.setattr(torch.cuda, "is_initialized", torch.cuda.is_initialized)
    states = random_states()
    with pytest.raises(SystemExit, match=f"^{message}$"):
        exec(IMPORT_CHECK, {})
    restore_random_states(states)


def test_an_import_without_a_side_effect_is_let_through(fragile, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-c", fragile("import torch").__name__])
    exec(IMPORT_CHECK, {})
