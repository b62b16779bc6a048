"""The site is built from the pages, with every warning an error, and its reference holds all that is public."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mnistlab
from mnistlab import api, testing
from mnistlab.plugins import hookspecs
from tests.test_api_surface import public

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("api", {name for name, value in public(api).items() if inspect.isclass(value) or inspect.isfunction(value)}),
        ("python", {*mnistlab.__all__} - {"__version__"}),
        ("hooks", {name for name in public(hookspecs) if name.startswith("mnistlab_")}),
        ("testing", {*testing.__all__, "lab"}),
    ],
)
def test_the_generated_reference_holds_every_public_name(site: Path, page: str, names: set[str]) -> None:
    shown = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
    assert {name for name in names if f">{name}</span>" not in shown} == set()


def test_every_page_is_on_the_site(site: Path) -> None:
    pages = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if not (site / page).is_file()] == []
