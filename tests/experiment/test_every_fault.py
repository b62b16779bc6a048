"""All faults of a file come in one report: a good file, broken in several places at once, names each place once."""

from __future__ import annotations

import copy
import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnistlab.errors import SpecError
from mnistlab.experiment import loader
from mnistlab.experiment.spec import Draft

GOOD: dict[str, Any] = {
    "name": "good",
    "seed": 1,
    "data": {"dataset": "idx", "offline_fallback": "digits", "validation": 0.2, "idx": {"folder": "/f"}},
    "model": {"cnn": {"depth": 2, "dropout": [0.1, 0.2]}, "mlp": {"width": {"low": 64, "high": 128}}},
    "optimizer": {"sgd": {"lr": 0.1, "schedule": "cosine"}},
    "transform": {"shift": {"pixels": 1}, "noise": {"sigma": 0.1}},
    "training": {"epochs": 3, "batch_size": 64, "label_smoothing": 0.1, "precision": "auto"},
    "search": {
        "trials": 4, "algorithm": "random", "scheduler": "asha", "metric": "val_loss", "time_budget": "15m",
        "reduction_factor": 2, "grace_epochs": 1, "trial_timeout": 60, "stall_timeout": "60s",
    },
    "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0, "max_parallel": 2},
    "confirm": {"top": 2, "seeds": 3, "racing": True, "refit": False},
    "plugins": {"allow": ["mnistlab"]},
}  # fmt: skip

# What each setting refuses although it is of the right type.
OUTSIDE: dict[str, Any] = {
    "name": "No Name", "seed": -1, "data.dataset": "idxx", "data.offline_fallback": "nowhere", "data.validation": 0,
    "model.cnn.depth": 99, "model.cnn.dropout": [0.1, 9.0], "model.mlp.width": {"low": 1}, "optimizer.sgd.lr": 50.0,
    "optimizer.sgd.schedule": "COSINE", "transform.shift.pixels": [1, 77], "transform.noise.sigma": float("inf"),
    "training.epochs": 0, "training.batch_size": 7, "training.label_smoothing": 0.9, "training.precision": "fp64",
    "search.trials": 0, "search.algorithm": "TPE", "search.scheduler": "ASHA", "search.metric": ["val_los"],
    "search.time_budget": "soon", "search.reduction_factor": 1, "search.grace_epochs": 0, "search.trial_timeout": -1,
    "search.stall_timeout": 0, "resources.cpus_per_trial": 0, "resources.gpus_per_trial": 1.5,
    "resources.max_parallel": 0, "confirm.top": -1, "confirm.seeds": 0, "plugins.allow": ["mnistlab", "mnistlob"],
}  # fmt: skip
UNKNOWN = (
    "zzzz", "data.zzzz", "data.idx.zzzz", "model.zzzz", "model.cnn.zzzz", "optimizer.zzzz", "optimizer.sgd.zzzz",
    "transform.zzzz", "transform.shift.zzzz", "training.zzzz", "search.zzzz", "resources.zzzz", "confirm.zzzz",
    "plugins.zzzz",
)  # fmt: skip
TABLES = ("data", "training", "search", "resources", "confirm", "plugins", "model", "optimizer", "transform")
WRONG_TYPES = (datetime.date(1979, 5, 27), {"no": {"such": "table"}}, [[1]])


def leaves(table: dict[str, Any], prefix: str = "") -> list[str]:
    """Every setting of a file, as a dotted key; a range is one setting."""
    found: list[str] = []
    for key, value in table.items():
        inner = isinstance(value, dict) and "low" not in value
        found += leaves(value, f"{prefix}{key}.") if inner else [f"{prefix}{key}"]
    return found


def parent(table: dict[str, Any], place: str) -> tuple[dict[str, Any], str]:
    *path, key = place.split(".")
    for part in path:
        table = table[part]
    return table, key


@pytest.fixture
def places_of(builtins):
    def judged(table: dict[str, Any]) -> list[str]:
        """Where a table has faults."""
        with pytest.raises(SpecError) as caught:
            loader.judge(Draft("x.toml", table), builtins)
        return sorted(fault.place for fault in caught.value.faults)

    return judged


def test_the_file_to_be_broken_is_good_and_each_of_its_settings_can_be_broken(builtins):
    loader.judge(Draft("x.toml", copy.deepcopy(GOOD)), builtins)
    bools_and_texts = {"confirm.racing", "confirm.refit", "data.idx.folder"}
    assert set(leaves(GOOD)) - set(OUTSIDE) == bools_and_texts


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_each_broken_place_is_reported_exactly_once_whatever_else_is_broken(data, places_of):
    table, expected = copy.deepcopy(GOOD), list[str]()
    for place in data.draw(st.lists(st.sampled_from(leaves(GOOD)), unique=True, min_size=1, max_size=8)):
        inner, key = parent(table, place)
        ways = ["type", "quotes", *(["range"] if place in OUTSIDE else []), *(["misspelt"] if len(key) > 3 else [])]
        match data.draw(st.sampled_from(ways), label=place):
            case "type":
                inner[key] = data.draw(st.sampled_from(WRONG_TYPES))
            case "quotes":
                inner[key] = {"quoted": str(inner[key])} if isinstance(inner[key], str) else str(inner[key])
            case "range":
                inner[key] = copy.deepcopy(OUTSIDE[place])
            case _:
                inner[f"{key}x"] = inner.pop(key)
                place += "x"  # noqa: PLW2901
        expected.append(place)
    for place in data.draw(st.lists(st.sampled_from(UNKNOWN), unique=True, max_size=3)):
        inner, key = parent(table, place)
        inner[key] = {} if place in ("model.zzzz", "optimizer.zzzz", "transform.zzzz") else 1
        expected.append(place)
    assert [place.removesuffix(".0") for place in places_of(table)] == sorted(expected)


@given(sections=st.lists(st.sampled_from(TABLES), unique=True, min_size=1))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_section_that_is_no_table_is_reported_once(sections, places_of):
    table = copy.deepcopy(GOOD) | dict.fromkeys(sections, 8)
    assert places_of(table) == sorted(sections)


def test_what_is_missing_is_reported_beside_other_faults(places_of):
    assert places_of({"training": {"epochs": "8", "batch_size": "x"}, "sed": 1}) == [
        "model", "name", "sed", "training.batch_size", "training.epochs",
    ]  # fmt: skip


def test_a_grid_s_endless_parameters_are_reported_beside_other_faults(places_of):
    table = {"name": "x", "model": {"lenet": {"width": "1.5", "droput": 0.1}}, "search": {"algorithm": "grid"}}
    table["optimizer"] = {"adam": {"schedule": "cosine", "warmup": 0.1, "beta1": 0.9, "beta2": 0.99}}
    table["data"] = {"dataset": "digits"}
    assert places_of(table) == ["model.lenet.droput", "model.lenet.width", "optimizer.adam.lr"]


@pytest.mark.parametrize(
    ("change", "places"),
    [
        # One mistake is one fault: what follows from it is not told as another.
        ({"data": {"datset": "idx", "idx": {"folder": "/f"}}}, ["data.datset"]),
        ({"data": {"dataset": "Idx", "idx": {"folder": "/f"}}}, ["data.dataset"]),
        ({"models": {"cnn": {}}, "model": None}, ["models"]),
        ({"search": {"metric": ["val_loss", "seconds"], "schedular": "none"}}, ["search.schedular"]),
        ({"search": {"scheduler": "pbt", "algoritm": "random"}}, ["search.algoritm"]),
        # Settings that do exclude each other are told, whatever else is wrong.
        ({"search": {"metric": ["val_loss", "seconds"], "trails": 3}}, ["search.scheduler", "search.trails"]),
    ],
)
def test_a_mistake_and_what_follows_from_it_are_one_fault(places_of, change, places):
    table = {key: value for key, value in (copy.deepcopy(GOOD) | change).items() if value is not None}
    assert places_of(table) == places
