from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from mnistlab.errors import SpecError
from mnistlab.experiment import loader, spec
from mnistlab.experiment.loader import Experiment
from mnistlab.experiment.space import compose
from tests.tables import JARGON, near_valid

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def load(builtins, tmp_path):
    def load_text(text: str, *overrides: str) -> Experiment:
        (tmp_path / "x.toml").write_text(text, encoding="utf-8")
        return loader.load(tmp_path / "x.toml", overrides, builtins)

    return load_text


def report(load, text: str, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        load(text, *overrides)
    assert caught.value.exit_code == 2
    places = [(f.place, f.rule) for f in caught.value.faults]
    assert len(set(places)) == len(places), "a fault is told twice"
    return str(caught.value)


WRONG_EVERYWHERE = """
name = "Bad Name"
sed = 1
[data]
dataset = "minst"
split = "writter"
[data.idx]
folder = "x"
[model.ccn]
[model.cnn]
depth = 99
chanels = 3
channels = { low = 64, high = 16 }
kernel = [3, 4]
[optimizer.sgd]
momentum = "x"
[transform.shift]
pixels = []
[training]
epochs = 0
[search]
trials = 1.5
algorithm = "tpee"
metric = ["val_loss", "val_acuracy"]
time_budget = "soon"
[confirm]
top = "3"
"""


def test_faults_of_the_fixed_part_and_of_the_plugins_come_in_one_report(load, tmp_path):
    said = report(load, WRONG_EVERYWHERE)
    assert said.splitlines()[0] == f"{tmp_path / 'x.toml'}: 19 faults"
    assert re.findall(r"^  \[([^]]*)]", said, re.MULTILINE) == [
        "name", "data.split", "search.trials", "search.algorithm", "search.metric", "search.time_budget", "confirm.top",
        "sed", "search.scheduler", "model.ccn", "model.cnn.chanels", "model.cnn.depth", "model.cnn.channels",
        "model.cnn.kernel", "optimizer.sgd.momentum", "transform.shift.pixels", "training.epochs", "data.idx",
        "data.dataset",
    ]  # fmt: skip
    assert "[model.ccn] no installed plugin offers model 'ccn'; did you mean 'cnn'?" in said
    assert "[data.idx] is the table of a dataset that this experiment does not use; it uses minst" in said
    assert "[data.dataset] no installed plugin offers dataset 'minst'; did you mean 'mnist'?" in said
    assert not any(word in said for word in JARGON)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name='x'\nmodel=3", "[model] must be a table (got 3)"),
        ("name='x'\nmodel.cnn=3", "[model.cnn] must be a table (got 3)"),
        ("name='x'\nmodel.cnn={}\ntraining='x'", "[training] must be a table (got 'x')"),
        ("name='x'\nmodel.cnn={}\noptimizer={}", "[optimizer] must hold at least one table"),
        ("name='x'\nmodel.cnn={}\ndata=3", "[data] must be a table (got 3)"),
        ("name='x'\nmodel.cnn={}\ndata.dataset={}", "[data.dataset] must be a string (got {})"),
        ("name='x'\nmodel.cnn={}\ndata.digits.a=1\ndata.dataset='digits'", "[data.digits.a] is not a setting (got 1)"),
        ("name='x'\nmodel.cnn={}\ndata.offline_fallback='digit'", "[data.offline_fallback] no installed plugin offers"),
        ("name='x'\nmodel.cnn={}\ntraining.epochs=[1, 2]", "[training.epochs] can be fixed but not searched"),
        ("name='x'\nmodel.cnn={}\ntraining.epochs='x'", "[training.epochs] must be a whole number (got 'x')"),
        ("name='x'\nmodel.cnn={}\ntraining.epochs=1979-05-27", "[training.epochs] must be a value, a list of values"),
    ],
)
def test_what_both_parts_could_see_is_told_once(load, text, said):
    lines = report(load, text).splitlines()
    assert lines[0].endswith(": 1 fault")
    assert lines[1].strip().startswith(said)


def test_overrides_that_are_malformed_come_in_the_same_report(load):
    text = 'name = "x"\nseed = 1\n[model.cnn]\n[training]\nepochs = 0\n'
    said = report(load, text, "seed.x.y=3", "oops", "seed=2")
    assert "3 faults" in said
    assert "[--set seed.x.y=3] 'seed' is a value, not a table" in said
    assert "[--set oops] must be written as section.key=value" in said
    assert "[training.epochs] must" in said


def test_a_grid_needs_a_finite_space(load):
    text = "name='x'\ndata.dataset='digits'\nsearch.algorithm='grid'\nmodel.lenet={}\n"
    said = report(load, text)
    assert "can't be enumerated, and algorithm = 'grid' needs a finite space (got '" in said
    assert "give a list of values, or a range with step and without log" in said


GRID = """
name = "x"
[data]
dataset = "digits"
[model.mlp]
depth = [1, 2, 3]
width = [32, 64]
dropout = 0.0
activation = ["relu", "gelu"]
batch_norm = true
[optimizer.sgd]
lr = [0.01, 0.02, 0.03, 0.04]
momentum = 0.9
schedule = "constant"
warmup = 0.1
weight_decay = 1e-4
[search]
algorithm = "grid"
"""


def test_a_grid_is_tried_whole_where_the_file_does_not_say_how_many_trials(load):
    one = load(GRID)
    assert (one.spec.search.trials, one.warnings) == (48, ())
    assert load(GRID, "search.algorithm=random").spec.search.trials == 32
    again, faults = spec.validate(spec.Draft("run.json", dict(spec.spec_json(one.spec))))
    assert (again, faults) == (one.spec, [])


def test_a_smallest_budget_that_leaves_no_rung_is_accepted_with_a_warning(load):
    for budget in ("8", "5", "4.9"):
        said = load(GRID, f"search.min_budget={budget}", "training.epochs=8", "search.trials=48").warnings
        assert said == (
            f"search.min_budget = {budget} and training.epochs = 8: every trial is trained in full, because a first "
            "training of more than 60 % of the epochs saves too little; set a smaller budget, or leave it out",
        )
    for others in (
        ["search.min_budget=4.8"],
        ["search.min_budget=0.5"],
        ["search.min_budget=8", "search.scheduler=asha"],
        [],
    ):
        assert load(GRID, *others, "training.epochs=8", "search.trials=48").warnings == ()


def test_a_grid_of_more_points_than_trials_is_accepted_with_a_warning(load):
    one = load(GRID, "search.trials=40")
    assert one.spec.search.trials == 40
    assert one.warnings == ("search.trials = 40, but the grid has 48 points: 8 will not be tried",)
    assert load(GRID, "search.trials=48").warnings == load(GRID, "search.trials=50").warnings == ()


def test_a_grid_is_never_sized_beyond_what_a_file_may_ask_for(load):
    wide = "{ low = 32, high = 1031, step = 1, log = false }"
    one = load(GRID, f"model.mlp.width={wide}", f"training.batch_size={wide}")
    assert one.spec.search.trials == 1_000_000
    assert len(one.warnings) == 1


def test_a_valid_file_gives_spec_space_and_datasets(load):
    text = "name='x'\n[data]\ndataset='idx'\noffline_fallback='digits'\n[data.idx]\nfolder='/f'\n[model.cnn]\n"
    one = load(text, "model.cnn.depth=2", "training.epochs=3")
    assert one.dataset.config.model_dump() == {"folder": "/f"}
    assert (one.dataset.record.name, one.fallback and one.fallback.record.name) == ("idx", "digits")
    assert one.space.epochs == 3
    assert one.space.models[0].fixed["depth"] == 2


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.toml")), ids=lambda p: p.stem)
def test_the_experiments_of_the_project_are_valid_and_come_back_from_their_record(path, builtins):
    one = loader.load(path, (), builtins)
    assert one.spec.name == path.stem
    again, faults = spec.validate(spec.Draft("run.json", dict(spec.spec_json(one.spec))))
    assert (again, faults) == (one.spec, [])
    assert compose(dict(spec.spec_json(one.spec)), builtins)[0] == one.space


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=near_valid())
def test_whatever_stands_in_a_file_the_worst_is_a_report(table, builtins, monkeypatch, tmp_path):
    monkeypatch.setattr(tomllib, "loads", lambda _: table)
    (tmp_path / "x.toml").touch()
    try:
        loader.load(tmp_path / "x.toml", (), builtins)
    except SpecError as error:
        said = str(error)
    else:
        said = ""
    assert not any(word in said for word in JARGON)


def test_a_relative_folder_is_written_down_as_it_is_seen_from_here(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = load('name = "x"\n[data]\ndataset = "idx"\n[data.idx]\nfolder = "mine"\n[model.mlp]\n[optimizer.sgd]\n')
    assert spec.spec_json(found.spec)["data"]["idx"] == {"folder": str(tmp_path / "mine")}
    assert found.dataset.config.model_dump() == {"folder": str(tmp_path / "mine")}
