"""How values and tables are written: a wrong type is told from a wrong value, and a table from a value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnistlab.api import Choice, Float, Int
from mnistlab.errors import SpecError
from mnistlab.experiment import loader
from mnistlab.experiment.forms import instead, typed
from mnistlab.experiment.spec import Draft

WIDTH, RATE, KIND, ON, SIDES, SHARES = (
    Int(16, 512, log=True), Float(0.0, 0.5), Choice("a", "3"), Choice(True, False), Choice(3, 5), Choice(0.0, 1.0),
)  # fmt: skip


def refusal(value: Any, domain: Any) -> str:
    with pytest.raises(ValueError, match="must be") as caught:
        typed(value, domain)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "domain", "expected"),
    [(32, WIDTH, 32), (0, RATE, 0.0), (1, SHARES, 1.0), ("a", KIND, "a"), (True, ON, True), (3, SIDES, 3)],
)
def test_a_value_of_the_right_type_is_taken_and_a_whole_number_is_a_number(value, domain, expected):
    assert typed(value, domain) == expected
    assert type(typed(value, domain)) is type(expected)


@pytest.mark.parametrize(
    ("value", "domain", "said"),
    [
        ("64", WIDTH, "must be a whole number; it is text: write 64 without quotes"),
        ("64.0", WIDTH, "must be a whole number; allowed is integer 16..512 (log)"),
        (64.0, WIDTH, "must be a whole number; write 64"),
        (64.5, WIDTH, "must be a whole number; allowed is integer 16..512 (log)"),
        (True, WIDTH, "must be a whole number; allowed is"),
        ("3", WIDTH, "must be a whole number; allowed is"),  # without quotes it would lie outside
        ("1e-3", RATE, "must be a number; it is text: write 0.001 without quotes"),
        (" .5 ", RATE, "must be a number; it is text: write 0.5 without quotes"),
        ("0,5", RATE, "must be a number; allowed is number 0..0.5"),
        ("fast", RATE, "must be a number; allowed is number 0..0.5"),
        (False, RATE, "must be a number; allowed is"),
        (float("nan"), RATE, "must be a finite number; allowed is"),
        (float("-inf"), WIDTH, "must be a finite number; allowed is"),
        (3, KIND, 'must be a string; write "3", with quotes'),
        (4, KIND, "must be a string; allowed is one of a, 3"),
        ("True", ON, "must be true or false; it is text: write true without quotes"),
        (1, ON, "must be true or false; allowed is one of true, false"),
        ("5", SIDES, "must be a whole number; it is text: write 5 without quotes"),
        (5.0, SIDES, "must be a whole number; write 5"),
        ("1", SHARES, "must be a number; it is text: write 1.0 without quotes"),
        (2.0, Choice("auto", 2), "must be a whole number or a string; write 2"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_so_with_what_to_write_instead(value, domain, said):
    assert refusal(value, domain).startswith(said)


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_a_text_that_would_be_right_without_its_quotes_says_so(value):
    text = str(value).lower()
    assert instead(text, lambda one: one == value and type(one) is type(value)).endswith("without quotes")
    assert not instead(text, lambda _: False)


# --- through the whole check --------------------------------------------------------------------------------------


@pytest.fixture
def faults_of(builtins):
    def judged(table: dict[str, Any]) -> list[str]:
        with pytest.raises(SpecError) as caught:
            loader.judge(Draft("x.toml", {"name": "x", "data": {"dataset": "digits"}} | table), builtins)
        return [str(fault) for fault in caught.value.faults]

    return judged


CNN: dict[str, Any] = {"model": {"cnn": {}}}
UNDER = "must be under the table of a model"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"name": "cnn"}}, f"[model.name] {UNDER} (got 'cnn'); write [model.cnn]"),
        (
            {"model": {"name": "cnn", "depth": 3, "kernel": 3}},
            "[model] must hold a table for each model (got {'name': 'cnn', 'depth': 3, 'kernel': 3}); "
            "write [model.cnn] and depth, kernel under it",
        ),
        ({"model": {"depth": 3}}, f"[model.depth] {UNDER} (got 3); write for example [model.cnn] and depth under it"),
        ({"model": {"depth": 3, "vit": {}}}, f"[model.depth] {UNDER} (got 3); write [model.vit] and depth under it"),
        ({"model": {"cnn": 3}}, "[model.cnn] must be a table (got 3); write [model.cnn] and its settings under it"),
        (
            {"model": {"cnn": [{"depth": 3}]}},
            "[model.cnn] must be a table (got [{'depth': 3}]); write [model.cnn], with single brackets",
        ),
        ({"model": "cnn"}, "[model] must be a table (got 'cnn'); write [model.cnn]"),
        ({"model": ["cnn", "mlp"]}, "[model] must be a table (got ['cnn', 'mlp']); write [model.cnn] and [model.mlp]"),
        (
            {"model": [{"name": "cnn"}]},
            "[model] must be a table (got [{'name': 'cnn'}]); write [model.cnn], with single",
        ),
        ({"model": "CNN"}, "[model] must be a table (got 'CNN'); write [model.cnn]"),
        ({"model": ["Cnn", "mpl"]}, "[model] must be a table (got ['Cnn', 'mpl']); write [model.cnn] and [model.mlp]"),
        ({"model": "zzzz"}, "[model] must be a table (got 'zzzz'); write a table, for example [model.cnn]"),
        ({"model": [{"name": "CNN"}]}, "[model] must be a table (got [{'name': 'CNN'}]); write [model.cnn], with sing"),
        ({"model": {"type": "CNN"}}, f"[model.type] {UNDER} (got 'CNN'); write [model.cnn]"),
        ({"model": {"CNN": 3}}, "[model.CNN] must be a table (got 3); write [model.cnn] and its settings under it"),
        ({"optimizer": {"lr": 0.1}}, "[optimizer.lr] must be under the table of an optimizer (got 0.1); write for ex"),
        ({"model": {}}, "[model] must hold at least one table; write for example [model.cnn]"),
        ({"model": 3}, "[model] must be a table (got 3); write a table, for example [model.cnn]"),
        ({"optimizer": "adam"}, "[optimizer] must be a table (got 'adam'); write [optimizer.adam]"),
        ({"optimizer": {}}, "[optimizer] must hold at least one table; write for example [optimizer.adamw]"),
        (
            {"optimizer": {"name": "adam", "lr": 1e-3}},
            "[optimizer] must hold a table for each optimizer (got {'name': 'adam', 'lr': 0.001}); "
            "write [optimizer.adam] and lr under it",
        ),
        ({"transform": ["shift"]}, "[transform] must be a table (got ['shift']); write [transform.shift]"),
        ({"data": "mnist"}, "[data] must be a table (got 'mnist'); write [data] and under it, for example, dataset = "),
        ({"training": 5}, "[training] must be a table (got 5); write [training] and under it, for example, epochs = 5"),
        ({"search": 9}, "[search] must be a table (got 9); write [search] and under it, for example, trials = 9"),
        ({"search": [{"trials": 3}]}, "[search] must be a table (got [{'trials': 3}]); write [search], with single"),
        # What stands in the wrong place.
        ({"cnn": {}}, "[cnn] is not a setting (got {}); write [model.cnn]"),
        ({"trials": 3}, "[trials] is not a setting (got 3); it belongs under [search]"),
        ({"search": {"epochs": 3}}, "[search.epochs] is not a setting (got 3); it belongs under [training]"),
        ({"model": {"cnn": {"seed": 3}}}, "[model.cnn.seed] is not a setting (got 3); it belongs above all tables"),
        (
            {"model": {"adamw": {}}},
            "[model.adamw] no installed plugin offers model 'adamw'; it is an optimizer: write ",
        ),
        # Wrong types of the fixed part of a file.
        ({"search": {"trials": "10"}}, "[search.trials] must be a whole number (got '10'); it is text: write 10 wit"),
        ({"search": {"trials": "0"}}, "[search.trials] must be a whole number (got '0')"),
        ({"search": {"trials": 10.0}}, "[search.trials] must be a whole number (got 10.0); write 10"),
        ({"search": {"time_budget": "600"}}, '[search.time_budget] must be a duration such as "90s", "15m" or'),
        (
            {"confirm": {"racing": "false"}},
            "[confirm.racing] must be true or false (got 'false'); it is text: write fa",
        ),
        ({"resources": {"gpus_per_trial": "0.5"}}, "[resources.gpus_per_trial] must be a number (got '0.5'); it is te"),
        ({"resources": {"gpus_per_trial": "AUTO"}}, '[resources.gpus_per_trial] must be "auto" or a number (got \'AU'),
        (
            {"search": {"time_budget": "1 H"}},
            '[search.time_budget] must be a duration such as "90s", "15m" or "1h30m" (',
        ),
        ({"search": {"metric": ["val_loss", "val_loss"]}}, "[search.metric] must name metrics, each once"),
        ({"search": {"metric": ["val_loss", 3]}}, "[search.metric.1] must be a string (got 3)"),
        ({"name": 3}, '[name] must be a string (got 3); write "3", with quotes'),
    ],
)
def test_a_mistake_of_form_is_one_fault_that_says_what_to_write(faults_of, change, said):
    (text,) = faults_of(CNN | change)
    assert text.startswith(said)


def test_a_duration_that_is_text_without_a_unit_says_what_it_would_be_without_quotes(faults_of):
    (text,) = faults_of(CNN | {"search": {"time_budget": "600"}})
    assert text.endswith("it is text: write 600 without quotes")


def test_what_to_write_instead_is_right(faults_of):
    (text,) = faults_of(CNN | {"search": {"metric": 3}})
    assert text.endswith("(got 3)")  # "3" is no metric either
    (text,) = faults_of(CNN | {"search": {"stall_timeout": "1 M"}})
    assert text.endswith("(got '1 M'); write \"1m\"")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"optimizer": {"adamw": {"lr": ["1e-3", 0.01]}}}, "entry '1e-3' must be a number (got ['1e-3', 0.01]); it is"),
        ({"optimizer": {"adamw": {"lr": {"low": "1e-3"}}}}, "low must be a number (got {'low': '1e-3'}); it is text: "),
        ({"optimizer": {"adamw": {"warmup": {"step": "0.1"}}}}, "step must be a number above 0 and at most 0.5 (got {"),
        ({"optimizer": {"adamw": {"warmup": {"step": "0.1"}}}}, "; it is text: write 0.1 without quotes"),
        ({"optimizer": {"adamw": {"lr": {"log": "true"}}}}, "log must be true or false (got {'log': 'true'}); it is "),
        (
            {"optimizer": {"adamw": {"lr": {"low": "1e-3", "high": "1e-2", "max": 1}}}},
            "'max' is not part of a range, and low must be a number, and high must be a number (got ",
        ),
        (
            {"optimizer": {"adamw": {"lr": ["1e-3", 0.01, "x"]}}},
            "entry '1e-3' must be a number, and entry 'x' must be a number (got ['1e-3', 0.01, 'x']); it is text: wri",
        ),
        ({"optimizer": {"adamw": {"lr": 9.0}}}, "must lie inside what is allowed: number 0.0001..0.03 (log) (g"),
        ({"training": {"epochs": "8"}}, "must be a whole number (got '8'); it is text: write 8 without quotes"),
        ({"training": {"epochs": 0}}, "must be greater than or equal to 1 (got 0)"),
    ],
)
def test_a_list_a_range_and_a_field_without_domain_tell_types_from_values_too(faults_of, table, said):
    (text,) = faults_of(CNN | table)
    assert said in text
