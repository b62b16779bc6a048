"""What the documents tell their reader to type is typed: each page in order, in a project of its own.

The commands run in the process of the tests; one page, and in the long form all of them, is typed into a real shell.

Every `sh` line of every page is either typed here or stands in `NOT_TYPED` with the reason why it can't be.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import Ran, RunCli, WriteFour
from tests.forked import by_pytest
from tests.test_docs import FENCE, PAGES, ROOT

TYPED = (
    "docs/tutorial.md",
    "docs/first-plugin.md",
    "docs/howto/narrow-a-search.md",
    "docs/howto/use-your-own-images.md",
    "docs/howto/use-real-mnist-offline.md",
    "docs/howto/write-and-test-a-plugin.md",
    "docs/howto/watch-a-search.md",
)
NOT_TYPED = {  # beginnings of lines
    "make ": "it installs what is installed here; continuous integration runs both targets",
    "pip install -e ": "it may ask the network; test_scaffold builds and installs such a package, and searches with it",
    "python3 -m venv ": "it installs from the network",
    "uv venv ": "it installs from the network",
    "source .venv/bin/activate": "it means the environment in which the tests run",
    "mnistlab search experiments/quick.toml": "continuous integration runs it whole, by make search",
    "mnistlab search experiments/mlp.toml --data-dir ~/data/mnist      # or": "typed from use-real-mnist-offline.md",
    "mnistlab search experiments/mlp.toml --trials 8": "typed elsewhere; test_docs loads it with these options",
    "mnistlab search experiments/mlp.toml --set 'model.mlp.depth=[2, 3]' --like": "needs a run; tests/tuning/test_like",
    "mnistlab report ": "it takes runs that a reader has and a test has not; tests/cli/test_report.py types such lines",
    "mnistlab plugins check mnistlab-my-net ": "needs the installation before it; test_scaffold checks such a one",
    "mnistlab plugins check mnistlab-shade ": "needs the installation before it; test_scaffold checks such a one",
    "mnistlab reproduce quick": "needs a finished run; tests/trained makes one and runs such lines on it",
    "mnistlab export quick": "needs a finished run; tests/trained makes one and runs such lines on it",
    "mnistlab predict ": "needs a model and pictures; tests/trained makes them and runs such lines on them",
    "pip install 'mnistlab[export]'": "it may ask the network; the packages are part of the development group",
    "pip install 'mnistlab[trackers]'": "as the extra `export`",
    "uv pip compile ": "it asks the network",
    ".venv/bin/pip install ": "it installs from the network",
    "pip-audit ": "it asks the network",
    "mnistlab resume RUN": "it takes a run that a reader has; tests/cli/test_resume.py types such lines",
    "mnistlab retry RUN": "as resume",
    "mnistlab search mnistlab-my-net/": "needs the installation before it; test_scaffold searches with such a one",
}
# A reader has minutes and wants an answer; that each command works is seen in one epoch of two trials.
BRIEFLY = {
    "search": "--trials 2 --set training.epochs=1 --set confirm.top=0",
    "train": "--set training.epochs=1",
}


def lines_of(page: Path) -> list[str]:
    """Every line that stands in a page's `sh` blocks."""
    shown = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [line for match in shown if match[1] == "sh" for line in match[2].splitlines() if line.strip()]


def excused(line: str) -> bool:
    return any(line.startswith(beginning) for beginning in NOT_TYPED)


def as_typed(line: str) -> str:
    """The line, its search or training cut short."""
    command = re.search(r"\bmnistlab (search|train)\b", line)
    return f"{line} {BRIEFLY[command[1]]}" if command else line


def save_files(page: Path, project: Path) -> None:
    """Save what the page says to save: experiments under their names, Python under the file name named before it."""
    text, end = page.read_text(encoding="utf-8"), 0
    for match in FENCE.finditer(text):
        named = re.findall(r"`[\w./-]*?([\w-]+\.py)`", text[end : match.start()])
        end = match.end()
        if match[1] == "toml":
            (project / f"{tomllib.loads(match[2])['name']}.toml").write_text(match[2], encoding="utf-8")
        elif match[1] == "python" and (named or "mnistlab.testing" in match[2]):
            (project / (named[-1] if named else "test_shown.py")).write_text(match[2], encoding="utf-8")


def type_in(project: Path, line: str) -> Ran:
    """Type a line as the reader would: in bash, with the installed commands on the path and a home of one's own."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "HOME": str(project / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-ec", line], cwd=project, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def read_as_bash_does(project: Path, line: str) -> tuple[dict[str, str], list[str]]:
    """Return what a line puts into the environment and the words of its command, with a home of one's own."""
    home = str(project / "home")
    words = [re.sub(r"(^|=)~(?=/)", rf"\g<1>{home}", word) for word in shlex.split(line, comments=True)]
    command = next(i for i, word in enumerate(words) if "=" not in word)
    assignments = (word.partition("=") for word in words[:command])
    return {"HOME": home} | {name: value for name, _, value in assignments}, words[command:]


@pytest.fixture
def project(tmp_path: Path, write_four: WriteFour) -> Path:
    """A folder with the shipped experiments and a run that is over, and a home with images of one's own."""
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    (tmp_path / "runs" / "flat-1").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "recordings" / "flat.jsonl", tmp_path / "runs" / "flat-1" / "events.jsonl")
    write_four(tmp_path / "home" / "images" / "letters", compress=False, shape=(16, 16))
    return tmp_path


def lines_to_type(page: str, project: Path, request: pytest.FixtureRequest) -> list[str]:
    """The lines of a page whose files lie in the project, in the order in which they work."""
    lines = [line for line in lines_of(ROOT / page) if not excused(line)]
    if any("~/data" in line for line in lines):
        (project / "home" / "data").mkdir()
        (project / "home" / "data" / "mnist").symlink_to(request.getfixturevalue("mnist_folder"))
    save_files(ROOT / page, project)
    ranked = [line for line in lines if line == "mnistlab leaderboard"]  # of the tutorial, after its `make search`
    return [as_typed(line) for line in (*(line for line in lines if line not in ranked), *ranked)]


@pytest.mark.simulated
@pytest.mark.parametrize("page", TYPED)
def test_what_a_page_tells_its_reader_to_type_works(
    page: str, project: Path, run_here: RunCli, request: pytest.FixtureRequest
) -> None:
    for line in lines_to_type(page, project, request):
        environment, (program, *arguments) = read_as_bash_does(project, line)
        if program == "mnistlab":
            local = ("--executor", "local") if arguments[0] == "search" else ()
            done = run_here(*arguments, *local, **environment)
            assert done.code == 0, f"{page}: {line}\n{done.out}\n{done.err}"
        else:
            assert line == "pytest test_shade.py"  # a test below types it


@pytest.mark.simulated
def test_the_tests_that_pages_show_pass(project: Path) -> None:
    for page in ("docs/first-plugin.md", "docs/howto/write-and-test-a-plugin.md"):
        save_files(ROOT / page, project)
    assert "pytest test_shade.py" in lines_of(ROOT / page)
    # `test_scaffold` shows what a fresh process imports, for seconds.
    done = by_pytest("-q", "test_shade.py", "test_shown.py", "-k", "not side_effects", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr


IN_A_SHELL = [
    pytest.param(page, marks=() if page.endswith("watch-a-search.md") else pytest.mark.chaos) for page in TYPED
]


@pytest.mark.e2e
@pytest.mark.parametrize("page", IN_A_SHELL)
def test_it_works_in_a_real_shell(page: str, project: Path, request: pytest.FixtureRequest) -> None:
    for line in lines_to_type(page, project, request):
        done = type_in(project, line)
        assert done.code == 0, f"{page}: {line}\n{done.out}\n{done.err}"


def test_every_line_shown_is_typed_or_excused() -> None:
    silent = [page for page in PAGES if str(page.relative_to(ROOT)) not in TYPED]
    assert [f"{page.name}: {line}" for page in silent for line in lines_of(page) if not excused(line)] == []


def test_every_excuse_is_needed() -> None:
    shown = [line for page in PAGES for line in lines_of(page)]
    assert [beginning for beginning in NOT_TYPED if not any(line.startswith(beginning) for line in shown)] == []
