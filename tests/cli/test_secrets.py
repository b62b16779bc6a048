"""What a run leaves behind and what is made of it holds no secret of whoever started it."""

from __future__ import annotations

import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.starting import EXPERIMENT, end, run_of, start
from tests.conftest import RunCli

pytestmark = pytest.mark.simulated

NAMES = ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "WANDB_API_KEY", "MY_PASSWORD")


@dataclass(frozen=True)
class Left:
    """A run, the folder that it was started in, and what must be nowhere in it: name of the secret to its text."""

    run: Path
    folder: Path
    secrets: dict[str, str]


def told(left: Left, root: Path) -> list[str]:
    """Which secrets are in which files below `root`, as they are or as UTF-16."""
    return [
        f"{name} in {path.relative_to(root)}"
        for path in sorted(root.rglob("*"))
        if path.is_file()
        for name, text in left.secrets.items()
        if any(text.encode(code) in path.read_bytes() for code in ("utf-8", "utf-16-le"))
    ]


def write_broken_plugin(folder: Path) -> None:
    """Install a plugin there that can't be imported, and says so with what is in its environment."""
    about = folder / "broken-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mnistlab.v1]\nbroken = broken\n")
    (folder / "broken.py").write_text('import os\nraise OSError("can\'t fetch " + os.environ["PLUGIN_URL"])\n')


@pytest.fixture(scope="module")
def left(ended: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """A search in a git repository whose remote has a password, with secrets in its environment and a URL typed."""
    folder = tmp_path_factory.mktemp("secrets")
    hidden = {name: secrets.token_hex(12) for name in (*NAMES, "proxy", "remote", "typed", "plugin")}
    remote = f"https://ann:{hidden['remote']}@example.invalid/x.git"
    for words in (["init", "-q"], ["remote", "add", "origin", remote]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    write_broken_plugin(folder / "site")
    proxy = f"http://ann:{hidden['proxy']}@127.0.0.1:9"
    environment = {name: hidden[name] for name in NAMES} | {"HTTPS_PROXY": proxy, "PYTHONPATH": str(folder / "site")}
    environment["PLUGIN_URL"] = f"https://ann:{hidden['plugin']}@example.invalid/x"
    typed = f"https://ann:{hidden['typed']}@example.invalid/data"
    (folder / "images").symlink_to(digits)
    (folder / "tiny.toml").write_text(
        EXPERIMENT.replace("trials = 5", "trials = 4").replace("epochs = 6", "epochs = 2")
    )
    code, _, err = end(start(folder, "search", "tiny.toml", "--data-dir", typed, **environment))
    assert code == 0, err
    return Left(run_of(folder), folder, hidden)


def test_the_run_directory_holds_none(left: Left) -> None:
    assert len(list(left.run.rglob("*"))) > 20
    assert told(left, left.run) == []


def test_what_was_typed_is_there_without_it(left: Left) -> None:
    assert "--data-dir 'https://***@example.invalid/data'" in (left.run / "run.json").read_text()
    assert "can't fetch https://***@example.invalid/x" in (left.run / "run.json").read_text()


def test_a_secret_in_it_would_be_found(left: Left, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(f"key={left.secrets['MY_PASSWORD']}")
    assert told(left, tmp_path) == ["MY_PASSWORD in x"]


@pytest.mark.parametrize("format_", ["html", "md", "json", "csv"])
def test_a_report_holds_none(left: Left, tmp_path: Path, run_here: RunCli, format_: str) -> None:
    environment = {name: left.secrets[name] for name in NAMES}
    ran = run_here("report", left.run, "-o", f"report.{format_}", **environment)
    assert ran.code == 0, ran.err
    assert (tmp_path / f"report.{format_}").stat().st_size > 500
    assert told(left, tmp_path) == []
