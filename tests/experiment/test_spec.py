from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistlab.errors import SpecError
from mnistlab.experiment.spec import (
    MAX_BYTES,
    Draft,
    ExperimentSpec,
    parse_duration,
    parse_override,
    read,
    spec_json,
    validate,
)
from tests.tables import FULL, JARGON, near_valid, toml_values

MINIMAL: dict = {"name": "x", "model": {"cnn": {}}}


def faults_of(table: dict) -> dict[str, str]:
    """The faults of the fixed part of `table`, each as a user sees it, by place."""
    spec, faults = validate(Draft("x.toml", table))
    assert (spec is None) == bool(faults)
    assert len({f.place for f in faults}) == len(faults)
    return {fault.place: str(fault) for fault in faults}


def spec_of(table: dict) -> ExperimentSpec:
    spec, faults = validate(Draft("x.toml", table))
    assert spec, faults
    return spec


# --- what is accepted ---------------------------------------------------------------------------------------------


def test_a_name_and_a_model_are_enough():
    spec = spec_of(MINIMAL)
    assert (spec.seed, spec.data.dataset, spec.optimizer, spec.search.trials) == (0, "mnist", {"adamw": {}}, 32)


def test_a_full_file_is_read_as_it_is_written():
    spec = spec_of(FULL)
    assert spec.data.settings == {"idx": {"a": 1}}
    assert spec.search.metric == ("val_accuracy", "seconds")
    assert spec.search.time_budget == 5400
    assert list(spec.transform) == ["shift", "cutout"]
    assert spec_of(MINIMAL | {"resources": {"gpus_per_trial": "auto"}}).resources.gpus_per_trial is None
    assert spec_of(MINIMAL | {"search": {"metric": "val_loss"}}).search.metric == ("val_loss",)


@pytest.mark.parametrize("share", [0, 0.0001, 0.25, 1, 2, 3.0])
def test_gpus_that_ray_can_hand_out(share):
    assert spec_of(MINIMAL | {"resources": {"gpus_per_trial": share}}).resources.gpus_per_trial == share


@pytest.mark.parametrize("table", [MINIMAL, FULL])
def test_a_spec_comes_back_from_the_run_s_record(table):
    spec = spec_of(table)
    assert spec_of(json.loads(json.dumps(spec_json(spec)))) == spec


def test_a_spec_does_not_change():
    with pytest.raises(Exception, match="frozen"):
        spec_of(MINIMAL).seed = 3


# --- durations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1h30m", 5400), ("2d", 172_800), ("1.5h", 5400), (7, 7), (None, None)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "15 minutes", "m15", "1h 30m", "-5m", "1e3s", "5m!"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="must be a duration such as"):
        parse_duration(text)


@given(st.lists(st.tuples(st.integers(0, 999), st.sampled_from("dhms")), min_size=1, max_size=4))
def test_a_duration_is_the_sum_of_its_parts(parts):
    units = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
    assert parse_duration("".join(f"{n}{u}" for n, u in parts)) == sum(n * units[u] for n, u in parts)


# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sed": 0}, "[sed] is not a setting (got 0); did you mean 'seed'?"),
        ({"search": {"trails": 3}}, "[search.trails] is not a setting (got 3); did you mean 'trials'?"),
        (
            {"confirm": {"zzz": 3}},
            "[confirm.zzz] is not a setting (got 3); known: baseline, racing, refit, seeds, splits, top",
        ),
        ({"seed": -1}, "[seed] must be greater than or equal to 0 (got -1)"),
        ({"seed": True}, "[seed] must be a whole number (got True)"),
        ({"seed": 1.0}, "[seed] must be a whole number (got 1.0)"),
        ({"name": 3}, "[name] must be a string (got 3)"),
        ({"model": {}}, "[model] must hold at least one table"),
        ({"training": 3}, "[training] must be a table (got 3)"),
        ({"search": {"trials": 0}}, "[search.trials] must be greater than or equal to 1 (got 0)"),
        (
            {"search": {"time_budget": "soon"}},
            '[search.time_budget] must be a duration such as "90s", "15m" or "1h30m" (got \'soon\')',
        ),
        ({"search": {"time_budget": "0s"}}, "[search.time_budget] must be greater than 0 (got 0.0)"),
        ({"search": {"metric": []}}, "[search.metric] must name metrics, each once, out of val_accuracy,"),
        ({"search": {"metric": 3}}, "[search.metric] must be a string or a list of strings (got 3)"),
        ({"data": {"validation": float("nan")}}, "[data.validation] must be "),
        ({"data": {"validation": {}}}, "[data.validation] must be a number (got {})"),
        ({"data": {"settings": 3}}, "[data.settings] is not a setting (got 3); known: "),
        ({"data": {"settings": {"a": 1}}}, "[data.settings] is not a setting"),
        ({"resources": {"gpus_per_trial": "most"}}, "[resources.gpus_per_trial] must be a number (got 'most')"),
        (
            {"resources": {"gpus_per_trial": 1.5}},
            "[resources.gpus_per_trial] must be at most 1, or a whole number (got 1.5); 1.5 would lie across GPUs",
        ),
        ({"resources": {"gpus_per_trial": 0.00005}}, "[resources.gpus_per_trial] must be 0 or at least 0.0001 (got "),
        ({"resources": {"gpus_per_trial": -1}}, "[resources.gpus_per_trial] must be greater than or equal to 0 (got "),
    ],
)
def test_a_fault_names_place_rule_value_and_what_is_near(change, said):
    (text,) = faults_of(MINIMAL | change).values()
    assert text.startswith(said)


def test_an_unknown_word_is_told_the_nearest_one():
    (text,) = faults_of(MINIMAL | {"search": {"scheduler": "asah"}}).values()
    assert text == (
        "[search.scheduler] must be one of halving, asha, hyperband, median, pbt, none (got 'asah'); "
        "did you mean 'asha'?"
    )
    (text,) = faults_of(MINIMAL | {"search": {"metric": "val_acuracy"}}).values()
    assert text.endswith("(got 'val_acuracy'); did you mean 'val_accuracy'?")


def test_what_is_missing_is_told_with_an_example():
    assert faults_of({}) == {
        "name": "[name] is required",
        "model": "[model] is required; write for example [model.cnn]",
    }


@pytest.mark.parametrize("name", ["Bad", "a b", "", "-a", "a/b", "../a", "a" * 65, "ü", "a\n"])
def test_a_name_has_to_do_as_a_file_name(name):
    assert "must be 1 to 64 of a-z" in faults_of(MINIMAL | {"name": name})["name"]


@pytest.mark.parametrize(
    ("search", "places"),
    [
        ({"metric": ["val_loss", "seconds"]}, {"search.scheduler"}),  # halving is what stands there if nothing does
        ({"metric": ["val_loss", "seconds"], "scheduler": "none"}, set()),
        ({"metric": ["val_loss", "seconds"], "scheduler": "none", "algorithm": "cmaes"}, {"search.algorithm"}),
        ({"metric": ["val_loss", "val_loss"], "scheduler": "none"}, {"search.metric"}),
        ({"scheduler": "pbt"}, set()),  # where nothing is said of the algorithm, one is chosen that goes with it
        ({"scheduler": "pbt", "algorithm": "tpe"}, {"search.algorithm"}),
        ({"scheduler": "pbt", "algorithm": "random"}, set()),
        ({"scheduler": "pbt", "algorithm": "tpee"}, {"search.algorithm"}),  # once: the word is wrong anyway
        # Settings that exclude each other are told even where another is wrong by itself.
        ({"metric": ["val_loss", "seconds"], "trials": 0}, {"search.trials", "search.scheduler"}),
    ],
)
def test_settings_that_exclude_each_other(search, places):
    assert set(faults_of(MINIMAL | {"search": search})) == places


@given(near_valid() | st.dictionaries(st.sampled_from(list(FULL)), toml_values))
def test_whatever_stands_in_a_file_it_is_read_or_refused_in_our_words(table):
    spec, faults = validate(Draft("x.toml", table))
    assert (spec is None) == bool(faults)
    for fault in faults:
        assert fault.place
        assert not any(word in fault.rule for word in JARGON), fault


# --- files --------------------------------------------------------------------------------------------------------


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        read(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_missing_file_is_told_the_nearest_one(tmp_path):
    (tmp_path / "quick.toml").touch()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "vit.toml").touch()
    assert f"[file] does not exist; did you mean '{tmp_path}/quick.toml'?" in refusal(tmp_path / "quik.toml")
    assert refusal(tmp_path / "vit.toml").endswith(f"did you mean '{tmp_path}/experiments/vit.toml'?")
    for far in (tmp_path / "nosuch.toml", tmp_path / "pyprojects.toml", tmp_path / "nowhere" / "a.toml"):
        assert refusal(far).endswith("[file] does not exist")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name = 'x'\nseed = \n", "is not valid TOML: Invalid value (at line 2, column 8)"),
        (b"a = 1\na = 2\n", "is not valid TOML: Cannot overwrite a value (at line 2"),
        (b"name = '\xff'", "must be UTF-8"),
        (b"a = " + b"9" * 5000, "is not valid TOML"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "is nested too deeply"),
        (b"#" * (MAX_BYTES + 1), "must be at most 1048576 bytes (got 1048577)"),
    ],
    ids=["syntax", "twice", "not-utf8", "huge-number", "deep", "large"],
)
def test_a_file_that_can_not_be_read_says_why(tmp_path, content, said):
    (tmp_path / "x.toml").write_bytes(content)
    assert said in refusal(tmp_path / "x.toml")


def test_a_folder_is_no_file(tmp_path):
    assert "[file] can't be read: Is a directory" in refusal(tmp_path)


def test_tables_as_deep_as_dotted_keys_can_make_them_are_reported(tmp_path):
    (tmp_path / "x.toml").write_text("name = 'x'\nmodel.cnn = {}\n" + "a." * 3000 + "a = 1\n")
    try:
        draft = read(tmp_path / "x.toml")
    except SpecError:
        return  # this Python's tomllib refuses them itself
    assert list(faults_of(draft.table)) == ["a"]


# --- overrides ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("seed=3", ("seed",), 3),
        ("model.cnn.lr=1e-3", ("model", "cnn", "lr"), 1e-3),
        ("search.time_budget=15m", ("search", "time_budget"), "15m"),
        ('name="quoted"', ("name",), "quoted"),
        ("a.b=[16, 32]", ("a", "b"), [16, 32]),
        ("a.b={low=1, high=2}", ("a", "b"), {"low": 1, "high": 2}),
        ("a.on=true", ("a", "on"), True),
        (" a . b = text with = and spaces ", ("a", "b"), "text with = and spaces"),
        ("a=", ("a",), ""),
        ("a=1\nb=2", ("a",), "1\nb=2"),
        ("a=" + "[" * 5000, ("a",), "[" * 5000),
    ],
)
def test_an_override_is_read_as_toml_where_it_is_toml(text, path, value):
    assert parse_override(text) == (path, value)


@pytest.mark.parametrize("text", ["seed", "=3", "a..b=3", ".a=3", ""])
def test_an_override_without_key_or_value_is_refused(text):
    with pytest.raises(ValueError, match=r"must be written as section\.key=value"):
        parse_override(text)


def test_overrides_change_and_add_keys_and_make_tables(tmp_path):
    (tmp_path / "x.toml").write_text("name = 'x'\n[model.cnn]\ndepth = 1\n")
    table = read(tmp_path / "x.toml", ["model.cnn.depth=2", "model.mlp.width=64", "search.trials=3", "seed=5"]).table
    assert table == {
        "name": "x",
        "seed": 5,
        "model": {"cnn": {"depth": 2}, "mlp": {"width": 64}},
        "search": {"trials": 3},
    }
