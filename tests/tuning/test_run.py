"""What a search leaves behind that could not begin."""

from __future__ import annotations

import fcntl
from contextlib import nullcontext
from pathlib import Path

import pytest

from mnistlab.api import DataPlace
from mnistlab.errors import DataError, MnistlabError, RunDirectoryError
from mnistlab.experiment import loader
from mnistlab.plugins.discovery import Selection
from mnistlab.plugins.registry import select
from mnistlab.tuning import run

BUILT_IN = select(Selection(only_built_in=True))
TEXT = 'name = "x"\n[data]\ndataset = "digits"\n[model.mlp]\n'


def refused(folder: Path, kind: type[MnistlabError]) -> None:
    (folder / "x.toml").write_text(TEXT)
    place = DataPlace(data_dir=None, cache=folder / "cache", offline=True)
    options = run.Options(runs=folder / "runs", place=place, address=None, command="x")
    with pytest.raises(kind):
        run.search(
            loader.load(folder / "x.toml", (), BUILT_IN), options, BUILT_IN, lambda _: nullcontext(lambda _: None)
        )


def no_locks(*_: object) -> None:
    raise OSError(37, "No locks available")


def no_data(*_: object) -> None:
    raise DataError("none")


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize(
    ("where", "what", "fault", "kind"),
    [(fcntl, "flock", no_locks, RunDirectoryError), (run, "find_data", no_data, DataError)],
)
def test_a_search_that_cannot_begin_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool, where, what, fault, kind
) -> None:
    if earlier:
        (tmp_path / "runs").mkdir()
    monkeypatch.setattr(where, what, fault)
    refused(tmp_path, kind)
    assert (tmp_path / "runs").exists() == earlier
    assert not [*tmp_path.glob("runs/*")]
