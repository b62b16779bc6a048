from __future__ import annotations

import pytest

from mnistlab import errors
from mnistlab.errors import ExitCode, Fault, MnistlabError, SpecError, misspelt, must_be_one_of, near_miss, short


def test_a_fault_names_place_rule_value_and_hint_in_this_order():
    fault = Fault("search.trials", "must be a whole number", 1.5, "did you mean 2?")
    assert str(fault) == "[search.trials] must be a whole number (got 1.5); did you mean 2?"
    assert str(Fault("name", "is required")) == "[name] is required"


@pytest.mark.parametrize("value", [0, False, "", [], {}])
def test_a_value_that_counts_as_false_is_shown(value):
    assert f"(got {value!r})" in str(Fault("a", "is wrong", value))


def test_a_report_counts_its_faults_and_lists_each_on_a_line():
    one, two = Fault("a", "is wrong"), Fault("b", "is wrong")
    assert str(SpecError("x.toml", [one])).splitlines() == ["x.toml: 1 fault", "  [a] is wrong"]
    report = SpecError("x.toml", [one, two])
    assert str(report).splitlines()[0] == "x.toml: 2 faults"
    assert report.faults == (one, two)
    assert report.source == "x.toml"


def test_a_long_or_deep_value_is_cut_short():
    assert len(short("x" * 1000)) == 80
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert short(deep) == "a deeply nested value"


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("ccn", ["cnn", "mlp"], "did you mean 'cnn'?"),
        ("zzz", ["mlp", "cnn", "cnn"], "known: cnn, mlp"),
        ("zzz", [], ""),
        ("CNN", ["cnn", "mlp"], "did you mean 'cnn'?"),
        ("one_cycle", ["one-cycle", "cosine"], "did you mean 'one-cycle'?"),
        ("7", ["0007", "0017"], "did you mean '0007'?"),
        ("adamw", ["AdamW", "Adam"], "did you mean 'AdamW'?"),
    ],
)
def test_near_miss(name, known, said):
    assert near_miss(name, known) == said


def test_of_many_names_a_few_are_shown_and_where_the_others_are():
    said = near_miss("qqq", [f"name-{i}" for i in range(150)], "mnistlab plugins check")
    assert said.startswith("known: name-")
    assert said.endswith(" and 145 more (list them with: mnistlab plugins check)")
    assert said.count(",") == 4


def test_a_misspelt_key_is_known_by_the_key_that_is_missing():
    assert misspelt({"trails": 3, "seed": 1}, ["trials", "seed", "top"]) == {"trials": "trails"}
    assert misspelt({"seeds": 3, "seed": 1}, ["seed"]) == {}  # it is there as well


def test_known_names_are_listed_once():
    known = ("live", "plain", "quiet")
    assert str(must_be_one_of("--ui", "plian", known)) == (
        "[--ui] must be one of live, plain, quiet (got 'plian'); did you mean 'plain'?"
    )
    assert str(must_be_one_of("--ui", "xyz", known)) == "[--ui] must be one of live, plain, quiet (got 'xyz')"


def test_exit_codes_are_public_and_each_error_has_its_own():
    assert {c.name: int(c) for c in ExitCode} == {
        "DONE": 0,
        "NO_TRIAL_SUCCEEDED": 1,
        "USAGE": 2,
        "INTERNAL": 3,
        "TOO_MANY_FAILURES": 4,
        "DATA_OR_PLUGIN": 5,
        "RUN_LOCKED": 6,
        "RESOURCES_VANISHED": 75,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }
    codes = {
        kind.__name__: int(kind.exit_code)
        for kind in MnistlabError.__subclasses__()
        if kind.__module__ == errors.__name__
    }
    assert codes == {
        "SpecError": 2,
        "PluginError": 5,
        "DataError": 5,
        "RunDirectoryError": 6,
        "RunWriteError": 75,
        "MachineError": 75,
        "ResourceError": 2,
    }
    assert errors.DataUnavailableError.exit_code == 5
