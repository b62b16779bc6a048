"""A population on several nodes is refused beforehand where they do not share the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from mnistlab.errors import ExitCode, ResourceError
from mnistlab.tuning import run
from mnistlab.tuning.sharing import look, require_shared

NODES = {"a1": "10.0.0.2", "b2": "10.0.0.3", "c3": "10.0.0.4"}


def test_a_node_sees_the_folder_or_says_what_is_wrong(tmp_path: Path) -> None:
    assert look(tmp_path / "none", "word", "a1") == "it does not have that folder"
    assert look(tmp_path, "word", "a1") == "it does not have that folder"
    assert not list(tmp_path.iterdir())  # and makes none
    (tmp_path / "driver").write_text("another")
    assert look(tmp_path, "word", "a1") == "it has another folder of that name"
    (tmp_path / "driver").write_text("word")
    assert look(tmp_path, "word", "a1") == ""
    assert (tmp_path / "a1").read_text() == "word"
    (tmp_path / "b2").mkdir()
    assert look(tmp_path, "word", "b2") == "it can't use that folder: Is a directory"


def test_nodes_that_share_the_folder_leave_nothing_in_it(tmp_path: Path) -> None:
    def ask(folder: Path, word: str, nodes: Mapping[str, str]) -> dict[str, str]:
        return {node: look(folder, word, node) for node in nodes}

    require_shared(tmp_path, "pbt", NODES, ask)
    assert not list((tmp_path / "ray").iterdir())


def test_every_node_that_does_not_share_it_is_named_with_what_to_do(tmp_path: Path) -> None:
    def ask(folder: Path, word: str, nodes: Mapping[str, str]) -> dict[str, str]:
        there = folder.parent / "on another disk"
        there.mkdir()
        (there / "driver").write_text(word)  # a copy, as of a synchronised home
        return {"a1": look(folder, word, "a1"), "b2": look(folder / "none", word, "b2"), "c3": look(there, word, "c3")}

    with pytest.raises(ResourceError) as raised:
        require_shared(tmp_path, "pbt", NODES, ask)
    assert str(raised.value).splitlines() == [
        f'scheduler = "pbt" copies trials between nodes through the run folder, which must be shared: {tmp_path}',
        "  node 10.0.0.3: it does not have that folder",
        "  node 10.0.0.4: what it writes there does not arrive here",
        "Put the runs on a disk that all nodes mount (--runs), or choose another scheduler, for example asha.",
    ]
    assert raised.value.exit_code == ExitCode.USAGE
    assert not (tmp_path / "ray" / "shared").exists()


def test_a_driver_alone_has_nobody_to_ask(tmp_path: Path) -> None:
    require_shared(tmp_path, "pbt", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scheduler", ["pbt", "asha"])
def test_only_a_population_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str) -> None:
    asked: list[tuple[Path, str]] = []
    monkeypatch.setattr(run, "require_shared", lambda *given: asked.append(given))
    spec = SimpleNamespace(search=SimpleNamespace(scheduler=scheduler))
    drive: Any = SimpleNamespace(experiment=SimpleNamespace(spec=spec), writer=SimpleNamespace(path=tmp_path))
    run._require_shared(drive)
    assert asked == [(tmp_path, "pbt")] * (scheduler == "pbt")


@pytest.mark.ray
def test_ray_asks_a_node(ray_session: None, tmp_path: Path) -> None:
    require_shared(tmp_path, "pbt")  # the driver's own is the only one
    here = ray.get_runtime_context().get_node_id()
    require_shared(tmp_path, "pbt", {here: "127.0.0.1"})
    with pytest.raises(ResourceError, match=r"node gone: it can't answer: "):
        require_shared(tmp_path, "pbt", {here: "127.0.0.1", "0" * 56: "gone"})
