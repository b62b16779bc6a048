"""The one rule for names of files and folders, and everybody who keeps to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mnistlab.errors import MnistlabError, PluginError
from mnistlab.experiment.spec import read, validate
from mnistlab.plugins.discovery import selection
from mnistlab.plugins.scaffold import create
from mnistlab.util.filenames import is_plain


@pytest.mark.parametrize("name", ["0007", "my_model.py", "_x.py", "cnn-2026-11-22-1", "a..b", "x" * 128, "console"])
def test_what_is_a_name(name: str) -> None:
    assert is_plain(name)


HIDDEN_OR_ELSEWHERE = ["", ".", "..", ".x", "-x", "a/b", "a\\b", "a\0", "a\n", "a\n0", "ü", "a:b", "x" * 129]
DEVICES = ["con", "NUL.txt", "Com1", "lpt9.x"]


@pytest.mark.parametrize("name", [*HIDDEN_OR_ELSEWHERE, *DEVICES, 7, None, ["a"]])
def test_what_is_none(name: object) -> None:
    assert not is_plain(name)


@pytest.mark.parametrize("name", ["nul.x", "con", "aux.1", "../x", "a/b", "A", ".x", "-x", "a\0", "x" * 65, "a b"])
def test_an_experiment_with_another_name_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "x.toml"
    file.write_text(f"name = {json.dumps(name)}\n[model.mlp]\n")
    _, faults = validate(read(file))
    assert [str(fault).partition(" 64 ")[0] for fault in faults] == ["[name] must be 1 to"]


@pytest.mark.parametrize("name", ["aux.py", "Nul.py", "a-b.py", ".x.py", "a b.py", "ü.py"])
def test_a_plugin_file_with_another_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(PluginError, match="the file's name must be a module's"):
        selection([tmp_path / name])


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "a\0b", "x" * 65, "/etc", "A b", "-x"])
def test_a_new_plugin_package_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(MnistlabError, match="plugin name"):
        create(name, "model", inner)
    assert [path.name for path in tmp_path.rglob("*")] == ["inner"]
