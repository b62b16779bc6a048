"""`mnistlab plugins new`: the package that it writes works at once, and no name can do harm."""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from mnistlab.api import ENTRY_POINT_GROUP
from mnistlab.plugins.discovery import Found
from mnistlab.plugins.registry import load
from mnistlab.plugins.scaffold import ScaffoldError, checked, create
from tests.forked import by_pytest

KINDS = ("model", "optimizer", "transform", "dataset")


def files_of(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(  # noqa: PLW1510 - the assert says what it printed
        [str(word) for word in command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def name_of(kind: str) -> str:
    return f"tiny-{kind}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_is_complete(kind, tmp_path):
    written = create(name_of(kind), kind, tmp_path)
    root, module = tmp_path / f"mnistlab-tiny-{kind}", f"mnistlab_tiny_{kind}"
    assert {str(path.relative_to(root)) for path in written} == files_of(root)
    assert files_of(root) == {
        ".github/workflows/ci.yml",
        ".gitignore",
        "README.md",
        "experiment.toml",
        f"{module}/__init__.py",
        f"{module}/py.typed",
        "pyproject.toml",
        "tests/test_contract.py",
    }
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {"mnistlab.v1": {name_of(kind): module}}


@pytest.mark.e2e
def test_new_packages_pass_their_own_tests(tmp_path):
    for kind in KINDS:
        create(name_of(kind), kind, tmp_path)
    roots = sorted(tmp_path.iterdir())
    # Each has a file of tests of the same name, which other ways of importing them would not tell apart.
    # A fresh process that imports the package takes seconds: it is started for one of them.
    options = ("-q", "-rA", "--import-mode=importlib", "-k", "not side_effects or model")
    done = by_pytest(*options, *map(str, roots), cwd=tmp_path, on_path=roots)
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in KINDS:
        assert f"test_its_summary_is_a_sentence[{kind}-{name_of(kind)}]" in done.stdout


PYRIGHT = """
[tool.pyright]
typeCheckingMode = "strict"
pythonVersion = "3.11"
exclude = ["**/tests"]
"""


@pytest.mark.e2e
def test_new_packages_are_clean_however_long_their_names(tmp_path):
    """By the ruff settings of their own, and by strict pyright."""
    binaries = Path(sys.executable).parent
    for kind in KINDS:
        create(kind.ljust(64, "x"), kind, tmp_path)
    run(binaries / "ruff", "check", "--no-cache", "--extend-select", "I,B,UP,W,E501", ".", cwd=tmp_path)
    run(binaries / "ruff", "format", "--no-cache", "--check", ".", cwd=tmp_path)
    (tmp_path / "pyproject.toml").write_text(PYRIGHT)
    run(binaries / "pyright", "--pythonpath", sys.executable, cwd=tmp_path)


@pytest.mark.parametrize("name", ["model", "config", "int", "image-shape"])
def test_a_name_that_the_interface_uses_too_does_no_harm(name, tmp_path, monkeypatch):
    create(name, "model", tmp_path)
    monkeypatch.syspath_prepend(tmp_path / f"mnistlab-{name}")
    module = importlib.import_module(f"mnistlab_{name.replace('-', '_')}")
    (plugin,) = load(
        [Found(f"mnistlab-{name}", "0.1.0", name, module.__name__, ENTRY_POINT_GROUP, lambda: module)]
    ).plugins
    assert (plugin.status, plugin.reason) == ("ok", "")
    assert [offer.qualified for offer in plugin.offers] == [f"mnistlab-{name}:{name}"]


def test_the_prefix_may_be_given(tmp_path):
    create("mnistlab-tiny-thing", "model", tmp_path)
    assert (tmp_path / "mnistlab-tiny-thing" / "mnistlab_tiny_thing").is_dir()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("[red]net[/red]", "red-net-red"),
        ("\x1b[31mnet", "mnet"),
        ("../net", "net"),
        ("a/b", "a-b"),
        ("a\\b", "a-b"),
        ("<b>net</b>", "b-net-b"),
        ("TinyNet", "tinynet"),
        ("tiny_net", "tiny-net"),
        ("tiny--net", "tiny-net"),
        ("net-", "net"),
        ("..", "my-net"),
        ("2net", "net"),
        ("Net2", "net2"),
        ("mnistlab_Net", "mnistlab-net"),
        ("class", "my-net"),
        ("", "my-net"),
        ("n" * 65, "n" * 64),
        ("n" * 63 + "-n", "n" * 63),
    ],
)
def test_a_name_that_is_none_is_refused_and_the_nearest_is_named(name, nearest, tmp_path):
    with pytest.raises(ScaffoldError) as caught:
        create(name, "model", tmp_path)
    said = str(caught.value)
    assert said.isprintable()
    assert "must be 1 to 64 lower-case letters" in said
    assert said.endswith(f"; for example '{nearest}'")
    assert checked(nearest) == nearest.removeprefix("mnistlab-")
    assert list(tmp_path.iterdir()) == []
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("kind", "name"), [("model", "mlp"), ("transform", "shift"), ("dataset", "fashion-mnist")])
def test_the_name_of_a_built_in_is_refused(kind, name, tmp_path):
    rule = f"plugin name '{name}' must not be that of mnistlab's own {kind} '{name}'; for example 'my-{name}'"
    with pytest.raises(ScaffoldError, match=f"^{rule}$"):
        create(name, kind, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_free_where_only_another_kind_has_it(tmp_path):
    assert create("mlp", "transform", tmp_path)


def test_the_name_of_an_installed_distribution_is_refused(tmp_path, monkeypatch):
    metadata = tmp_path / "site" / "mnistlab_taken-2.5.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: mnistlab-taken\nVersion: 2.5\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    said = r"^plugin name 'taken': mnistlab-taken 2\.5 is installed; for example 'my-taken'$"
    with pytest.raises(ScaffoldError, match=said):
        create("taken", "model", tmp_path)
    assert not (tmp_path / "mnistlab-taken").exists()


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "mnistlab-net-of-mine").mkdir()
    assert all(path.is_file() for path in create("net-of-mine", "model", tmp_path))


@pytest.mark.parametrize("make", [Path.touch, lambda place: place.symlink_to("elsewhere")], ids=["file", "dead link"])
def test_a_place_that_is_no_folder_is_left_alone(make, tmp_path):
    make(tmp_path / "mnistlab-net-of-mine")
    with pytest.raises(ScaffoldError, match="is there already; choose another name"):
        create("net-of-mine", "model", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mnistlab-net-of-mine"]


def test_a_full_disk_leaves_no_half_package(tmp_path, monkeypatch):
    write = Path.write_text

    def full(path, *arguments, **options):
        if path.name == "test_contract.py":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ScaffoldError, match=r"mnistlab-net-of-mine: can't be written: No space left on device$"):
        create("net-of-mine", "model", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_is_left_alone(tmp_path):
    create("net-of-mine", "model", tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(ScaffoldError, match="is there already; choose another name"):
        create("net-of-mine", "dataset", tmp_path)
    assert files_of(tmp_path) == before


def test_a_folder_that_is_none_is_told(tmp_path):
    with pytest.raises(ScaffoldError, match="can't be written: No such file or directory"):
        create("net-of-mine", "model", tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ScaffoldError, match="can't be written: Not a directory"):
        create("net-of-mine", "model", tmp_path / "file")


@pytest.mark.e2e
def test_a_new_package_is_built_installed_tested_and_searched(run_here, tmp_path):
    """The whole way of a plugin author, in an environment of its own that is lent what is installed beside mnistlab.

    So a dependency that the new package forgot to declare would not be noticed here.
    """
    ran = run_here("plugins", "new", "tiny-thing", "--kind", "model")
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
    search = ("search", "experiment.toml", "--trials", 2, "--executor", "local")
    shown = run(python, "-m", "mnistlab", *search, cwd=root, OMP_NUM_THREADS="1")
    assert "Plugins: mnistlab-tiny-thing:tiny-thing 0.1.0, mnistlab:adamw " in shown
    (record,) = root.glob("runs/*/run.json")
    assert json.loads(record.read_text())["plugins"]["mnistlab-tiny-thing"] == "0.1.0"
    (result, *_) = record.parent.glob("trials/*/result.json")
    model = json.loads(result.read_text())["plan"]["model"]
    assert (model["plugin"], model["version"]) == ("mnistlab-tiny-thing:tiny-thing", "0.1.0")
