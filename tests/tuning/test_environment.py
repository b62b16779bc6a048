"""A torch and a torchvision that were not built for each other: fake torchvisions on the path, the real torch."""

from __future__ import annotations

import sys
from importlib.metadata import version

import pytest

from mnistlab.tuning.environment import BrokenInstallationError, check_environment

FAILS = 'raise RuntimeError("operator torchvision::nms\\n   does not exist")\n'


@pytest.fixture
def fake_vision(tmp_path, monkeypatch):
    """Install a torchvision of the given version that asks for the given torch and runs `code` at import."""

    def install(number: str, wants: str, code: str) -> None:
        info = tmp_path / f"torchvision-{number}.dist-info"
        info.mkdir()
        lines = ("Metadata-Version: 2.1", "Name: torchvision", f"Version: {number}", f"Requires-Dist: torch=={wants}")
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (tmp_path / "torchvision.py").write_text(code)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("torchvision", None)  # the fake; monkeypatch brings the real one back


def torch_release() -> str:
    return version("torch").partition("+")[0]


def own_build() -> str:
    _, plus, build = version("torch").partition("+")
    return plus + build


@pytest.mark.parametrize(
    ("number", "wants"), [("9.9+other", None), ("9.9", "1.0"), ("9.9", "1.0 ; python_version>'3'")]
)
def test_a_pair_that_does_not_work_is_one_sentence(fake_vision, number, wants):
    fake_vision(number, wants or torch_release(), FAILS)
    with pytest.raises(BrokenInstallationError) as caught:
        check_environment()
    assert str(caught.value) == (
        f"torch {version('torch')} and torchvision {number} do not work together (operator torchvision::nms does not "
        "exist); install both from the same place and of matching versions, for example those in constraints.txt"
    )
    assert caught.value.exit_code == 5


def test_a_suspicious_pair_that_works_is_let_through(fake_vision):
    fake_vision("9.9+other", "1.0", "LOADED = True\n")
    check_environment()
    assert sys.modules["torchvision"].LOADED


def test_a_healthy_pair_is_told_by_its_metadata_alone(fake_vision):
    fake_vision(f"9.9{own_build()}", torch_release(), FAILS)
    check_environment()
    assert "torchvision" not in sys.modules


def test_this_very_installation_works():
    check_environment()


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(BrokenInstallationError, match="torch is not installed"):
        check_environment()
