"""`mnistlab plugins new`: the package that it writes works at once, and no name can do harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from mnistlab.scaffold import ScaffoldError, create

KINDS = ("model", "optimizer", "transform", "dataset")


def files_of(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(  # noqa: PLW1510 - the assert says what it printed
        [str(word) for word in command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_is_complete_clean_and_passes_its_own_test(kind, tmp_path):
    written = create("tiny-thing", kind, tmp_path)
    root = tmp_path / "mnistlab-tiny-thing"
    assert {str(path.relative_to(root)) for path in written} == files_of(root)
    assert files_of(root) == {
        ".github/workflows/ci.yml",
        ".gitignore",
        "README.md",
        "experiment.toml",
        "mnistlab_tiny_thing/__init__.py",
        "mnistlab_tiny_thing/py.typed",
        "pyproject.toml",
        "tests/test_contract.py",
    }
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {"mnistlab.v1": {"tiny-thing": "mnistlab_tiny_thing"}}
    ruff = Path(sys.executable).parent / "ruff"
    run(
        ruff,
        "check",
        "--isolated",
        "--select",
        "E,F,W,I,B,UP,D1",
        "--ignore",
        "D101,D104",
        "--line-length",
        120,
        ".",
        cwd=root,
    )
    run(ruff, "format", "--isolated", "--check", "--line-length", 120, ".", cwd=root)
    shown = run(sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", cwd=root, PYTHONPATH=str(root))
    assert f"test_its_summary_is_a_sentence[{kind}-tiny-thing]" in shown


def test_the_prefix_may_be_given(tmp_path):
    create("mnistlab-tiny-thing", "model", tmp_path)
    assert (tmp_path / "mnistlab-tiny-thing" / "mnistlab_tiny_thing").is_dir()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("[red]net[/red]", "red-net-red"),
        ("\x1b[31mnet", "31mnet"),
        ("../net", "net"),
        ("a/b", "a-b"),
        ("a\\b", "a-b"),
        ("<b>net</b>", "b-net-b"),
        ("TinyNet", "tinynet"),
        ("tiny_net", "tiny-net"),
        ("tiny--net", "tiny-net"),
        ("net-", "net"),
        ("2net", "net"),
        ("class", "my-net"),
        ("", "my-net"),
        ("n" * 65, "n" * 64),
    ],
)
def test_a_name_that_is_none_is_refused_and_the_nearest_is_named(name, nearest, tmp_path):
    with pytest.raises(ScaffoldError) as caught:
        create(name, "model", tmp_path)
    said = str(caught.value)
    assert said.isprintable()
    assert "must be 1 to 64 lower-case letters" in said
    if "31m" not in name:
        assert said.endswith(f"; for example '{nearest}'")
    assert list(tmp_path.iterdir()) == []
    assert caught.value.exit_code == 2


def test_a_place_that_is_taken_is_left_alone(tmp_path):
    create("net-of-mine", "model", tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(ScaffoldError, match="is there already; choose another name"):
        create("net-of-mine", "dataset", tmp_path)
    assert files_of(tmp_path) == before


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ScaffoldError, match="can't be written: No such file or directory"):
        create("net-of-mine", "model", tmp_path / "nowhere")


@pytest.mark.e2e
def test_a_new_package_is_built_installed_tested_and_searched(run_cli, tmp_path):
    """The whole way of a plugin author, in an environment that knows nothing but mnistlab and what it needs."""
    ran = run_cli("plugins", "new", "tiny-thing", "--kind", "model")
    assert ran.code == 0, ran.err
    root = tmp_path / "mnistlab-tiny-thing"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(
        *pip,
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        tmp_path / "dist",
        root,
        cwd=tmp_path,
    )
    fresh = tmp_path / "fresh"
    venv.create(fresh, with_pip=False)
    ours = next((fresh / "lib").glob("python*")) / "site-packages"
    # What mnistlab needs is 6 GB: it is lent, not installed again.
    (ours / "lent.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    (wheel,) = (tmp_path / "dist").iterdir()
    run(*pip, "--python", fresh, "install", "-q", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    python = fresh / "bin" / "python"
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=root)
    checked = run(python, "-m", "mnistlab", "plugins", "check", "mnistlab-tiny-thing", "--strict", cwd=root)
    assert "One hidden layer." in checked
    shown = run(python, "-m", "mnistlab", "search", "experiment.toml", "--trials", 2, cwd=root, OMP_NUM_THREADS="1")
    assert "Plugins: mnistlab-tiny-thing:tiny-thing 0.1.0, mnistlab:adamw " in shown
    (record,) = root.glob("runs/*/run.json")
    assert json.loads(record.read_text())["plugins"]["mnistlab-tiny-thing"] == "0.1.0"
    (result, *_) = record.parent.glob("trials/*/result.json")
    model = json.loads(result.read_text())["plan"]["model"]
    assert (model["plugin"], model["version"]) == ("mnistlab-tiny-thing:tiny-thing", "0.1.0")
