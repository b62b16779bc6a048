"""What may be added to the experiment of a run, and what is refused, in words and all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnistlab.errors import SpecError
from mnistlab.experiment import loader
from mnistlab.experiment.amend import additions, grown, read_amended
from mnistlab.experiment.loader import Experiment
from mnistlab.experiment.spec import read
from mnistlab.plugins.discovery import EVERYTHING, Selection
from mnistlab.plugins.registry import Registry, select
from tests.conftest import DISTS

RUN = """
name = "tiny"
[data]
dataset = "digits"
validation = 300
[model.mlp]
depth = 1
width = [32, 64]
batch_norm = true
dropout = { low = 0.0, high = 0.4 }
[optimizer.adamw]
lr = { low = 1e-3, high = 1e-2 }
[transform.shift]
[transform.noise]
[training]
epochs = 6
batch_size = 64
[search]
trials = 5
[confirm]
top = 1
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return select(EVERYTHING.only(()))


def of(text: str, registry: Registry, tmp_path: Path) -> Experiment:
    file = tmp_path / "x.toml"
    file.write_text(text)
    return loader.load(file, (), registry)


@pytest.mark.parametrize(
    ("old", "new", "added"),
    [
        ("width = [32, 64]", "width = [64, 128, 32]", {"model.mlp.width": [128]}),
        ("batch_norm = true", "batch_norm = [true, false]", {"model.mlp.batch_norm": [False]}),
        ("batch_norm = true", "", {"model.mlp.batch_norm": [False]}),
        ("depth = 1", "depth = [1, 2]", {"model.mlp.depth": [2]}),
        ("batch_size = 64", "batch_size = [64, 128]", {"training.batch_size": [128]}),
        ("epochs = 6", 'epochs = 6\nprecision = ["auto", "fp32"]', {"training.precision": ["fp32"]}),
        ("[model.mlp]", "[model.lenet]\nwidth = 2\n[model.mlp]", {"model.lenet": {"width": 2}}),
        ("[optimizer.adamw]", "[optimizer.sgd]\n[optimizer.adamw]", {"optimizer.sgd": {}}),
        ("[transform.noise]", "[transform.cutout]\n[transform.noise]", {"transform.cutout": {}}),
        ("batch_size = 64", "batch_size = [64]\nlabel_smoothing = 0.0", {}),  # the same in other words
        ("trials = 5", "trials = 9", {}),
        ("trials = 5", 'trials = 5\ntime_budget = "1h"\n[resources]\nmax_parallel = 2', {}),
    ],
)
def test_an_addition_is_told_by_its_key(
    registry: Registry, tmp_path: Path, old: str, new: str, added: dict[str, object]
) -> None:
    assert old in RUN
    assert additions(of(RUN, registry, tmp_path), of(RUN.replace(old, new), registry, tmp_path)) == (added, [])


def test_an_optimizer_that_the_file_left_to_the_default_stays_one(registry: Registry, tmp_path: Path) -> None:
    bare = 'name = "x"\n[model.lenet]\n'
    before = of(bare, registry, tmp_path)
    assert additions(before, of(f"{bare}[optimizer.adamw]\n[optimizer.sgd]", registry, tmp_path)) == (
        {"optimizer.sgd": {}},
        [],
    )
    _, faults = additions(before, of(f"{bare}[optimizer.sgd]", registry, tmp_path))
    assert [one.place for one in faults] == ["optimizer.adamw"]


REFUSALS = [
    (
        'name = "tiny"',
        'name = "other"',
        "[name] can't be changed once a run has begun (got 'other'); the run has 'tiny'",
    ),
    ('name = "tiny"', 'name = "tiny"\nseed = 3', "[seed] can't be changed once a run has begun (got 3); the run has 0"),
    (
        "validation = 300",
        "validation = 200",
        "[data.validation] can't be changed once a run has begun (got 200); the run has 300",
    ),
    (
        "epochs = 6",
        "epochs = 7",
        "[training.epochs] can't be changed once a run has begun (got 7); the run has 6",
    ),
    (
        "width = [32, 64]",
        "width = [64, 128]",
        "[model.mlp.width] must keep what it had: trials were made of it (got 'one of 64, 128'); "
        "the run has one of 32, 64: add 32",
    ),
    (
        "width = [32, 64]",
        "width = { low = 32, high = 64 }",
        "[model.mlp.width] can't be changed once a run has begun (got 'integer 32..64 (log)'); "
        "the run has one of 32, 64; only options of a list can be added",
    ),
    (
        "high = 0.4",
        "high = 0.5",
        "[model.mlp.dropout] can't be changed once a run has begun (got 'number 0..0.5'); "
        "the run has number 0..0.4; only options of a list can be added",
    ),
    (
        "[transform.shift]\n[transform.noise]",
        "[transform.noise]\n[transform.shift]",
        "[transform] must stay in their order, in which they are applied (got 'noise, shift'); "
        "the run has shift, noise",
    ),
    (
        "[transform.shift]",
        "[transform.cutout]",
        "[transform.shift] is missing: trials were made of it; write [transform.shift] with the settings that it had",
    ),
    (
        "trials = 5",
        'trials = 5\nmetric = "val_loss"',
        "[search.metric] can't be changed once a run has begun (got ['val_loss']); the run has ['val_accuracy']",
    ),
    (
        "trials = 5",
        'trials = 5\nscheduler = "none"',
        "[search.scheduler] can't be changed once a run has begun (got 'none'); the run has 'halving'",
    ),
    (
        "depth = 1",
        "depth = [2, 3]",
        "[model.mlp.depth] must keep what it had: trials were made of it (got 'one of 2, 3'); the run has 1: add 1",
    ),
    (
        "width = [32, 64]",
        "",
        "[model.mlp.width] can't be changed once a run has begun (got 'integer 32..2048 (log)'); "
        "the run has one of 32, 64; only options of a list can be added",
    ),
    (
        "[model.mlp]",
        '[model.lenet]\n[model."mnistlab:mlp"]',
        "[model.mlp] is missing: trials were made of it; write [model.mlp] with the settings that it had",
    ),
    (
        'name = "tiny"',
        'name = "tiny"\nplugins.allow = "mnistlab"',
        "[plugins.allow] can't be changed once a run has begun (got ['mnistlab']); the run allows every one",
    ),
    ("top = 1", "top = 2", "[confirm.top] can't be changed once a run has begun (got 2); the run has 1"),
]


@pytest.mark.parametrize(("old", "new", "said"), REFUSALS)
def test_all_else_is_refused_with_what_would_do(
    registry: Registry, tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in RUN
    _, faults = additions(of(RUN, registry, tmp_path), of(RUN.replace(old, new), registry, tmp_path))
    assert [str(one) for one in faults] == [said]


@pytest.mark.parametrize("names", ['dataset = "idx"', 'dataset = "digits"\noffline_fallback = "idx"'])
def test_a_setting_of_a_dataset_stays_as_it_was(registry: Registry, tmp_path: Path, names: str) -> None:
    before, file = of(in_folder("/here", names), registry, tmp_path), tmp_path / "y.toml"
    file.write_text(in_folder("/there", names))
    with pytest.raises(SpecError) as caught:
        read_amended(read(file), before, EVERYTHING, ["mnistlab"])
    assert [str(one) for one in caught.value.faults] == [
        "[data.idx.folder] can't be changed once a run has begun (got '/there'); the run has '/here'"
    ]
    file.write_text(in_folder("/here", names))
    assert read_amended(read(file), before, EVERYTHING, ["mnistlab"])[2] == {}


def in_folder(folder: str, names: str) -> str:
    """The experiment with the dataset of somebody's own images in its place, or as its fallback."""
    return RUN.replace('dataset = "digits"', names).replace(
        "[model.mlp]", f'[data.idx]\nfolder = "{folder}"\n[model.mlp]'
    )


def test_every_fault_is_named_at_once_those_of_the_file_itself_included(registry: Registry, tmp_path: Path) -> None:
    before, file = of(RUN, registry, tmp_path), tmp_path / "y.toml"
    wrong = RUN.replace("trials = 5", 'trials = 5\nscheduler = "none"').replace("epochs = 6", "epochs = 7")
    file.write_text(wrong.replace("name =", "seed = 1\nname ="))
    with pytest.raises(SpecError) as caught:
        read_amended(read(file), before, EVERYTHING, ["mnistlab"])
    assert [one.place for one in caught.value.faults] == ["seed", "search.scheduler", "training.epochs"]
    file.write_text(wrong.replace("[model.mlp]", "[model.lenett]\n[model.mlp]"))
    with pytest.raises(SpecError) as caught:
        read_amended(read(file), before, EVERYTHING, ["mnistlab"])
    assert [one.place for one in caught.value.faults] == ["model.lenett", "search.scheduler", "training.epochs"]
    assert "did you mean 'lenet'?" in str(caught.value)
    assert "allow" not in str(caught.value)  # it is not for a list of allowed plugins that there is no such model


def test_a_wrong_setting_hides_no_other_fault(registry: Registry, tmp_path: Path) -> None:
    before, file = of(RUN, registry, tmp_path), tmp_path / "y.toml"
    wrong = RUN.replace("depth = 1", "depth = -1").replace("[model.mlp]", "[model.lenett]\n[model.mlp]")
    wrong = wrong.replace("width = [32, 64]", "width = [64]").replace("trials = 5", "trials = 0")
    file.write_text(wrong.replace("[transform.shift]\n", "").replace("lr = {", "lrr = 1\nlr = {"))
    with pytest.raises(SpecError) as caught:
        read_amended(read(file), before, EVERYTHING, ["mnistlab"])
    assert {one.place for one in caught.value.faults} == {
        "search.trials",
        "model.lenett",
        "model.mlp.depth",
        "optimizer.adamw.lrr",
        "transform.shift",
    }


@pytest.mark.parametrize("turned", [False, True])
def test_a_wrong_setting_of_a_transform_is_no_fault_of_their_order(
    registry: Registry, tmp_path: Path, turned: bool
) -> None:
    before, file = of(RUN, registry, tmp_path), tmp_path / "y.toml"
    shift, noise = "[transform.shift]\nwrong = 1\n", "[transform.noise]\n"
    both = noise + shift if turned else shift + noise
    file.write_text(RUN.replace("[transform.shift]\n[transform.noise]\n", both))
    with pytest.raises(SpecError) as caught:
        read_amended(read(file), before, EVERYTHING, ["mnistlab"])
    places = [one.place for one in caught.value.faults]
    assert places == ["transform.shift.wrong", *["transform"] * turned]


# --- distributions that were installed since ----------------------------------------------------------------------

TINY = RUN.replace("[model.mlp]", "[model.tiny-net]\n[model.mlp]")


def without_cache(*, disabled: str) -> Selection:
    """A selection of its own: a registry is loaded once per process and selection."""
    return Selection(disabled=frozenset({disabled}))


def test_a_table_may_be_of_a_distribution_that_was_installed_since(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, file = of(RUN, registry, tmp_path), tmp_path / "y.toml"
    file.write_text(TINY)
    for name in ("healthy", "clash"):  # the second offers another model 'cnn', which nothing here names
        monkeypatch.syspath_prepend(DISTS / name)
    _, here, added = read_amended(read(file), before, without_cache(disabled="none-1"), ["mnistlab"])
    assert added == {"model.tiny-net": {}}
    assert here.versions() == {"healthy-plugin": "2.1", "mnistlab": "0.1.0"}


def test_a_list_of_allowed_plugins_may_grow_and_not_shrink(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("healthy", "clash"):
        monkeypatch.syspath_prepend(DISTS / name)
    wanted, file = without_cache(disabled="none-2"), tmp_path / "y.toml"

    def allowing(text: str, *names: str) -> str:
        return f"plugins.allow = {list(names)}\n{text}"

    file.write_text(allowing(RUN, "clash"))
    before, _ = loader.open_with(file, (), wanted)
    file.write_text(allowing(TINY, "Healthy_Plugin", "clash"))
    _, here, added = read_amended(read(file), before, wanted, ["mnistlab", "clash"])
    assert added == {"plugins.allow": ["Healthy_Plugin"], "model.tiny-net": {}}
    assert set(here.versions()) == {"healthy-plugin", "clash", "mnistlab"}
    file.write_text(allowing(TINY, "healthy-plugin"))
    with pytest.raises(SpecError, match=r"\[plugins.allow\] must keep what it had.*; add clash"):
        read_amended(read(file), before, wanted, ["mnistlab", "clash"])
    file.write_text(allowing(TINY, "clash"))  # not allowed, so it is not there, and why is said
    with pytest.raises(SpecError, match=r"healthy-plugin 2.1 .* is disabled: not named in the experiment's"):
        read_amended(read(file), before, wanted, ["mnistlab", "clash"])


# --- what may grow anyway -----------------------------------------------------------------------------------------


def test_what_the_file_says_otherwise_of_trials_time_and_resources_holds(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "y.toml"
    recorded = of(RUN.replace("trials = 5", "trials = 7\n[resources]\ncpus_per_trial = 2"), registry, tmp_path).spec

    def said(*changes: tuple[str, str]) -> dict[str, object]:
        text = RUN
        for old, new in changes:
            text = text.replace(old, new)
        file.write_text(text)
        return grown(read(file), recorded, loader.load(file, (), registry))

    assert said(("trials = 5", "trials = 7")) == {}
    assert said(("trials = 5", "")) == {}
    more = 'trials = 9\ntime_budget = "1h30m"\n[resources]\ngpus_per_trial = "auto"\nmax_parallel = 1'
    assert said(("trials = 5", more)) == {
        "search.trials": 9,
        "search.time_budget": "1h30m",
        "resources.max_parallel": 1,
    }


def test_a_grid_gets_all_of_its_points_unless_the_file_counts_them(registry: Registry, tmp_path: Path) -> None:
    text = """
name = "x"
[data]
dataset = "digits"
[model.mlp]
depth = 1
width = [32, 64]
dropout = 0.1
batch_norm = true
activation = "relu"
[optimizer.sgd]
lr = 0.1
momentum = 0.9
weight_decay = 1e-6
schedule = "constant"
warmup = 0.0
[search]
algorithm = "grid"
"""
    recorded, file = of(text, registry, tmp_path).spec, tmp_path / "y.toml"
    assert recorded.search.trials == 2
    file.write_text(text.replace("[32, 64]", "[32, 64, 128]"))
    assert grown(read(file), recorded, loader.load(file, (), registry)) == {"search.trials": 3}
    file.write_text(text.replace("[32, 64]", "[32, 64, 128]") + "trials = 2")
    assert grown(read(file), recorded, loader.load(file, (), registry)) == {}
