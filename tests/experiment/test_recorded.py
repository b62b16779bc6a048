"""A run's data, found again: where the command says, else in the folder that the run has read, else a refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mnistlab.api import DataPlace
from mnistlab.errors import DataError
from mnistlab.experiment import loader
from mnistlab.experiment.dataset import find_data
from mnistlab.experiment.recorded import open_data
from mnistlab.plugins.registry import Registry
from mnistlab.store import RunWriter
from mnistlab.store.results import RunRecord
from mnistlab.tuning import run as runner
from mnistlab.tuning.record import run_record
from mnistlab.tuning.resources import Machine, Share
from mnistlab.tuning.session import Drive
from tests.conftest import WriteFour

FILE = """
name = "tiny"
[data]
dataset = "idx"
validation = 12
[model.mlp]
[training]
epochs = 1
"""


@pytest.fixture
def nowhere(tmp_path: Path) -> DataPlace:
    """The place of whoever says nothing of data, on a machine that has fetched none."""
    return DataPlace(data_dir=None, cache=tmp_path / "cache", offline=True)


@pytest.fixture
def folder(tmp_path: Path, write_four: WriteFour) -> Path:
    write_four(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def made(tmp_path: Path, folder: Path, nowhere: DataPlace, builtins: Registry) -> RunRecord:
    """A run that was begun with `--data-dir mine`."""
    (tmp_path / "x.toml").write_text(FILE)
    wanted = loader.load(tmp_path / "x.toml", (), builtins)
    data = find_data(wanted, replace(nowhere, data_dir=folder))
    machine, portion = Machine(cpus=1, gpus=0), Share(cpus=1, gpus=0.0, parallel=1)
    return RunRecord(path="runs/tiny-1", run=run_record(wanted, data, machine, portion, builtins, "mnistlab search"))


def test_who_says_nothing_of_data_gets_those_of_the_run(
    made: RunRecord, folder: Path, nowhere: DataPlace, builtins: Registry
) -> None:
    found = open_data(made, nowhere, builtins)
    assert found.place == replace(nowhere, data_dir=folder)  # where the workers look too
    assert len(found.images.labels) == 60


def test_the_workers_look_where_the_data_were_found(
    made: RunRecord, nowhere: DataPlace, builtins: Registry, tmp_path: Path
) -> None:
    found = open_data(made, nowhere, builtins)
    options = runner.Options(runs=tmp_path, place=nowhere, address=None, command="mnistlab resume")
    wanted = loader.load(tmp_path / "x.toml", (), builtins)
    (tmp_path / "run").mkdir()
    writer = RunWriter(tmp_path / "run")
    run = Drive(wanted, options, builtins, writer, runner.Requests(), lambda _: None)
    job = runner._job(run, found, Machine(2, 0), Share(1, 0.0, 1))
    writer.close()
    assert job.shared.place == found.place


def test_the_folder_that_was_named_comes_first(
    made: RunRecord, nowhere: DataPlace, builtins: Registry, tmp_path: Path, write_four: WriteFour
) -> None:
    write_four(tmp_path / "same")
    place = replace(nowhere, data_dir=tmp_path / "same")
    assert open_data(made, place, builtins).place == place
    write_four(tmp_path / "other", seed=1)  # whoever names other data is told so
    with pytest.raises(DataError, match="was made with other data than is here"):
        open_data(made, replace(nowhere, data_dir=tmp_path / "other"), builtins)


def test_where_the_run_s_folder_is_gone_the_error_names_both_places(
    made: RunRecord, folder: Path, nowhere: DataPlace, builtins: Registry
) -> None:
    folder.rename(folder.with_name("moved"))
    (nowhere.cache / "empty").mkdir(parents=True)
    for place in (nowhere, replace(nowhere, data_dir=nowhere.cache / "empty")):
        with pytest.raises(DataError) as caught:
            open_data(made, place, builtins)
        assert str(place.data_dir or "give --data-dir or MNISTLAB_DATA") in str(caught.value)
        assert f"the run read it from: {folder}" in str(caught.value)


def test_other_files_in_the_run_s_own_folder_are_refused(
    made: RunRecord, folder: Path, nowhere: DataPlace, builtins: Registry, write_four: WriteFour
) -> None:
    write_four(folder, seed=1)
    with pytest.raises(DataError, match="the run read it from"):
        open_data(made, nowhere, builtins)
    with pytest.raises(DataError, match="was made with other data than is here"):
        open_data(made, replace(nowhere, data_dir=folder), builtins)
