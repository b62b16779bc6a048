from __future__ import annotations

import json
import math
import random
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mnistlab.api import Choice, Config, Float, Int, Model
from mnistlab.experiment.space import Space, _settle, compose, defaults, endless, grid, size, suggest, values
from mnistlab.plugins.registry import Found, Offer, Plugin, Registry


class Narrow(Config):
    """Every kind of field that a plugin may have."""

    width: Annotated[int, Int(16, 512, log=True)] = 128
    depth: Annotated[int, Int(1, 9, step=2)] = 3
    rate: Annotated[float, Float(0.0, 0.5)] = 0.25
    lr: Annotated[float, Float(1e-4, 1.0, log=True)] = 1e-2
    share: Annotated[float, Float(0.0, 0.3, step=0.1)] = 0.1
    kind: Annotated[str, Choice("a", "b", "c")] = "b"
    on: Annotated[bool, Choice(True, False)] = False
    note: str = "n"


class Wanting(Config):
    """A config whose field has to be given."""

    folder: str


def _registry() -> Registry:
    def record(name: str, config: type[Config]) -> Offer:
        return Offer("model", Model(name=name, config=config, build=lambda *_: None, summary="."), "tests", "1")

    found = Found("tests", "1", "models", "tests", "mnistlab.v1", lambda: None)
    return Registry((Plugin(found, "ok", offers=(record("narrow", Narrow), record("wanting", Wanting))),))


OWN = _registry()


@pytest.fixture
def registry(builtins) -> Registry:
    """The built-ins, and a model with every kind of field."""
    return Registry((*builtins.plugins, *OWN.plugins))


def space_of(table: dict[str, Any], registry: Registry) -> Space:
    space, faults = compose(table, registry)
    assert not faults
    return space


def narrowed(field: str, setting: object, registry: Registry) -> Any:
    """The parameter of `field` under `setting`, or the value that it is fixed to."""
    space = space_of({"model": {"narrow": {field: setting}}}, registry)
    found = {p.path: p for p in space.parameters()}
    return found.get(f"model.narrow.{field}") or space.models[0].fixed[field]


def faults_in(table: dict[str, Any], registry: Registry) -> list[str]:
    _, faults = compose(table, registry)
    assert faults
    return [str(fault) for fault in faults]


# --- one setting --------------------------------------------------------------------------------------------------


def test_without_settings_a_plugin_s_own_domains_are_searched(registry):
    space = space_of({"model": {"narrow": {}}, "optimizer": {"sgd": {}}}, registry)
    own = [p for p in space.parameters() if p.path.startswith("model.")]
    assert [p.path.rpartition(".")[2] for p in own] == ["width", "depth", "rate", "lr", "share", "kind", "on"]
    assert own[0].domain == Int(16, 512, log=True)
    assert own[0].default == 128
    assert all(p.when is None for p in own)  # there is no choice to depend on
    assert space.models[0].fixed == {"note": "n"}


@pytest.mark.parametrize(
    ("field", "setting", "domain", "default"),
    [
        ("width", {"low": 32, "high": 64}, Int(32, 64, log=True), 64),  # log stays, the default is drawn inside
        ("width", {"low": 200}, Int(200, 512, log=True), 200),
        ("width", {"step": 16}, Int(16, 512, step=16), 128),  # a step takes the place of log
        ("width", {"log": False}, Int(16, 512), 128),
        ("depth", {"high": 7}, Int(1, 7, step=2), 3),  # step stays
        ("depth", {"low": 3, "step": 4}, Int(3, 9, step=4), 3),
        ("depth", {"low": 5}, Int(5, 9, step=2), 5),
        ("rate", {"low": 0, "high": 0.1}, Float(0.0, 0.1), 0.1),
        ("rate", {"high": 0.4, "step": 0.15}, Float(0.0, 0.4, step=0.15), 0.3),  # not beyond the last step
        ("lr", {"low": 0.1}, Float(0.1, 1.0, log=True), 0.1),
        ("share", {"low": 0.2}, Float(0.2, 0.3, step=0.1), 0.2),
        ("kind", ["c", "b"], Choice("c", "b"), "b"),
        ("kind", ["c", "a"], Choice("c", "a"), "c"),  # the default is not among them: the first is
        ("rate", [0, 0.5], Choice(0.0, 0.5), 0.0),
        ("on", [True, False], Choice(True, False), False),
    ],
)
def test_a_range_narrows_and_a_list_chooses(registry, field, setting, domain, default):
    parameter = narrowed(field, setting, registry)
    assert parameter.domain == domain
    assert parameter.default == (pytest.approx(default) if isinstance(default, float) else default)
    assert type(parameter.default) is type(default)
    assert parameter.domain.contains(parameter.default)


@pytest.mark.parametrize(
    ("field", "setting", "value"),
    [
        ("width", 32, 32),
        ("width", [32], 32),
        ("rate", 0, 0.0),
        ("kind", "c", "c"),
        ("on", True, True),
        ("note", "x", "x"),
    ],
)
def test_a_scalar_and_a_list_of_one_fix(registry, field, setting, value):
    fixed = narrowed(field, setting, registry)
    assert fixed == value
    assert type(fixed) is type(value)


@pytest.mark.parametrize(
    ("field", "setting", "said"),
    [
        ("width", 3, "must lie inside what is allowed: integer 16..512 (log) (got 3)"),
        ("width", True, "must be a whole number (got True); allowed is integer 16..512 (log)"),
        ("width", 32.0, "must be a whole number (got 32.0); write 32"),
        ("depth", 4, "must lie inside what is allowed: integer 1..9 (step 2) (got 4)"),
        ("rate", float("nan"), "must be a finite number (got nan); allowed is number 0..0.5"),
        ("rate", 10**400, "must lie inside what is allowed"),
        ("kind", "aa", "must lie inside what is allowed: one of a, b, c (got 'aa'); did you mean 'a'?"),
        ("kind", ["a", "x"], "entry 'x' must lie inside what is allowed: one of a, b, c (got ['a', 'x'])"),
        ("kind", [], "must hold at least one value, and each once (got [])"),
        ("kind", ["a", "a"], "must hold at least one value, and each once"),
        ("width", [[32]], "entry [32] must be a value, a list of values or { low = ..., high = ... } (got [[32]])"),
        ("kind", {"low": 1}, "takes a value or a list of values, not a range (got {'low': 1})"),
        ("note", {"low": 1}, "takes a value, not a range"),
        ("note", ["x", "y"], "can be fixed but not searched: its plugin gives it no domain"),
        ("note", 3, "must be a string (got 3)"),
        ("width", {"low": 64, "high": 32}, "low <= high must hold, but low=64 and high=32"),
        ("width", {"low": 1}, "low must lie inside what is allowed: integer 16..512 (log) (got {'low': 1})"),
        ("width", {"low": "x"}, "low must be a whole number"),
        ("width", {"hgh": 64}, "'hgh' is not part of a range (got {'hgh': 64}); did you mean 'high'?"),
        ("width", {"log": 1}, "log must be true or false"),
        ("width", {"log": True, "step": 2}, "`log` goes with step 1 only, but step=2"),
        ("rate", {"log": True}, "`log` needs low > 0, but low=0.0"),
        ("depth", {"low": 2}, "low must lie inside what is allowed: integer 1..9 (step 2)"),  # no 2, 4, 6
        ("depth", {"step": 3}, "step must be a multiple of the plugin's own: integer 1..9 (step 2)"),
        ("share", {"step": 0.15}, "step must be a multiple of the plugin's own"),
        ("widht", 3, "is not a setting (got 3); did you mean 'width'?"),
    ],
)  # fmt: skip
def test_a_setting_that_breaks_a_rule(registry, field, setting, said):
    (text,) = faults_in({"model": {"narrow": {field: setting}}}, registry)
    assert text.startswith(f"[model.narrow.{field}] {said}")


@pytest.mark.parametrize(
    ("field", "said"),
    [("depth", "must be a whole number above 0 and at most 8"), ("rate", "must be a number above 0 and at most 0.5")],
)
@pytest.mark.parametrize("step", [0, -2, True, 9.0, "x", [2], {}, math.nan, math.inf, 10**400])
def test_a_step_that_is_none(registry, field, said, step):
    (text,) = faults_in({"model": {"narrow": {field: {"step": step}}}}, registry)
    assert text.startswith(f"[model.narrow.{field}] step {said}")


def test_a_field_without_default_has_to_be_given(registry):
    assert faults_in({"model": {"wanting": {}}}, registry) == ["[model.wanting.folder] is required"]
    assert narrowed("note", "x", registry) == "x"


def test_all_faults_of_all_tables_come_at_once(registry):
    table = {
        "model": {"narrow": {"width": 1, "rate": 3, "no": 1}, "ccn": {}},
        "optimizer": {"sdg": {}},
        "transform": {"shift": {"pixels": "far"}},
        "training": {"epochs": 0, "batch_size": 0},
    }
    places = [text.partition("]")[0][1:] for text in faults_in(table, registry)]
    assert sorted(places) == sorted([
        "model.narrow.width", "model.narrow.rate", "model.narrow.no", "model.ccn", "optimizer.sdg",
        "transform.shift.pixels", "training.epochs", "training.batch_size",
    ])  # fmt: skip


# --- the whole space ----------------------------------------------------------------------------------------------

TWO = {"model": {"cnn": {}, "mlp": {}}, "optimizer": {"sgd": {}, "adamw": {}}, "transform": {"shift": {}, "cutout": {}}}


def ask_for(space: Space, **chosen: str) -> list[str]:
    """The parameters that a plan with these choices asks for."""
    asked: list[str] = []

    def ask(parameter):
        asked.append(parameter.path)
        return chosen.get(parameter.path, parameter.default)

    suggest(space, ask)
    return asked


def test_only_what_is_chosen_is_asked_for(registry):
    space = space_of(TWO, registry)
    asked = ask_for(space, model="mlp", optimizer="adamw")
    assert asked[:2] == ["model", "optimizer"]
    assert any(path.startswith("model.mlp.") for path in asked)
    assert not any(path.startswith(("model.cnn.", "optimizer.sgd.")) for path in asked)
    assert any(path.startswith("transform.shift.") for path in asked)
    assert len(asked) == len(set(asked))


def test_conditions_say_what_activates_a_parameter(registry):
    when = {p.path: p.when for p in space_of(TWO, registry).parameters()}
    assert when["model"] is None
    assert when["model.cnn.depth"] == ("model", "cnn")
    assert when["optimizer.sgd.lr"] == ("optimizer", "sgd")
    assert all(w is None for path, w in when.items() if path.startswith(("transform", "training")))


def test_the_plan_of_all_defaults_is_that_of_the_first_tables(registry):
    space = space_of(TWO, registry)
    point = defaults(space)
    plan = suggest(space, lambda p: point[p.path])
    assert plan["model"]["name"] == "cnn"
    assert plan["optimizer"]["name"] == "sgd"
    assert [t["name"] for t in plan["transforms"]] == ["shift", "cutout"]  # in the order of the file
    for part, kind in ((plan["model"], "model"), (plan["optimizer"], "optimizer")):
        record = registry.find(kind, part["name"]).record
        assert record.config(**part["config"]) == record.config()


def test_a_plan_names_plugin_and_version(registry):
    plan = suggest(space_of({"model": {"mnistlab:cnn": {}}}, registry), lambda p: p.default)
    found = registry.find("model", "cnn")
    assert {k: plan["model"][k] for k in ("name", "plugin", "distribution", "version")} == {
        "name": "mnistlab:cnn", "plugin": "mnistlab:cnn", "distribution": "mnistlab", "version": found.version,
    }  # fmt: skip


def test_training_is_searched_only_where_a_list_or_a_range_says_so(registry):
    space = space_of({"model": {"mlp": {}}, "training": {"batch_size": [64, 128], "epochs": 3}}, registry)
    assert [p.path for p in space.training.parameters] == ["training.batch_size"]
    assert space.epochs == 3
    assert space.training.fixed["precision"] == "auto"


def random_value(domain, draw: random.Random):
    finite = values(domain)
    if finite is not None:
        return draw.choice(finite)
    return draw.randint(domain.low, domain.high) if isinstance(domain, Int) else draw.uniform(domain.low, domain.high)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_any_plan_is_json_and_fits_the_configs_of_its_records(registry, data, seed):
    table: dict[str, Any] = {}
    for kind, least in (("model", 1), ("optimizer", 1), ("transform", 0)):
        known = st.sampled_from(sorted({o.name for o in registry.offers(kind)} - {"wanting"}))
        table[kind] = {name: {} for name in data.draw(st.lists(known, unique=True, min_size=least))}
    space = space_of(table, registry)
    draw = random.Random(seed)
    plan = suggest(space, lambda p: random_value(p.domain, draw))
    assert json.loads(json.dumps(plan, allow_nan=False)) == plan
    parts = [
        ("model", plan["model"]),
        ("optimizer", plan["optimizer"]),
        *(("transform", t) for t in plan["transforms"]),
    ]
    for kind, part in parts:
        config = registry.find(kind, part["plugin"]).record.config.model_validate(part["config"], strict=True)
        assert set(part["config"]) == set(type(config).model_fields)


# --- grids --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (Choice("b", "a"), ("b", "a")),
        (Int(1, 8, step=3), [1, 4, 7]),
        (Int(1, 8, log=True), None),
        (Float(0.0, 1.0), None),
        (Float(0.0, 0.3, step=0.1), [0.0, 0.1, 0.2, 0.3]),  # 3 x 0.1 > 0.3 must not cost the last
        (Float(0.0, 0.35, step=0.1), [0.0, 0.1, 0.2, 0.3]),
        (Float(0.5, 0.5, step=0.1), [0.5]),
    ],
)
def test_the_values_of_a_domain(domain, expected):
    found = values(domain)
    if expected is None or isinstance(domain, Choice):
        assert found == expected
    else:
        assert list(found or ()) == pytest.approx(expected)
    assert all(domain.contains(value) for value in found or ())


def test_a_large_domain_is_counted_without_being_written_out():
    assert len(values(Int(0, 10**12)) or ()) == 10**12 + 1


FIXED = {"width": 16, "rate": 0.1, "lr": 0.1, "share": 0.1}


@st.composite
def finite_tables(draw) -> dict[str, Any]:
    """Tables of one or two models whose spaces are finite."""
    pick = {
        "depth": draw(st.sampled_from([3, [1, 5], {"high": 5}, {}])),
        "kind": draw(st.sampled_from(["a", ["c", "a"]])),
        "on": draw(st.sampled_from([True, [False, True]])),
        "share": draw(st.sampled_from([0.1, {"low": 0.1}])),
    }
    narrow = FIXED | {k: v for k, v in pick.items() if v != {}}
    models = {"narrow": narrow} | ({"tests:narrow": FIXED | {"kind": ["a", "b"]}} if draw(st.booleans()) else {})
    return {"model": models, "optimizer": {"narrow": {"lr": [0.1, 1]}}, "training": {"batch_size": [8, 16]}}


@settings(deadline=None)
@given(finite_tables())
def test_a_grid_holds_every_point_once_and_size_agrees(table):
    optimizer = Offer(
        "optimizer", Model(name="narrow", config=Narrow, build=lambda *_: None, summary="."), "tests", "1"
    )
    registry = Registry((*OWN.plugins, Plugin(OWN.plugins[0].found, "ok", offers=(optimizer,))))
    table["optimizer"]["narrow"] |= {"width": 16, "rate": 0.1, "share": 0.1, "kind": "a", "on": True, "depth": 1}
    space = space_of(table, registry)
    points = list(grid(space))
    assert not endless(space)
    assert len(points) == size(space)
    assert len({tuple(point.items()) for point in points}) == len(points)
    for point in points:
        asked: set[str] = set()

        def ask(parameter, point=point, asked=asked):
            asked.add(parameter.path)
            return point[parameter.path]

        suggest(space, ask)
        assert asked == set(point)  # a point holds what is active, and nothing else
    assert defaults(space) in points


def test_a_space_with_a_continuous_parameter_has_no_size(registry):
    space = space_of({"model": {"narrow": {}}}, registry)
    assert size(space) is None
    assert "model.narrow.rate" in {p.path for p in endless(space)}


# --- patterns -----------------------------------------------------------------------------------------------------


class ManyNets(Config):
    architecture: Annotated[str, Choice("resnet18", "resnet34", "vgg11", "od[d]")] = "vgg11"


def options_of(setting) -> tuple[object, ...] | object:
    faults: list = []
    fixed, parameters = _settle("model.many", ManyNets, {"architecture": setting}, None, faults, search_rest=True)
    assert faults == []
    return parameters[0].domain.options if parameters else fixed["architecture"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("resnet*", ("resnet18", "resnet34")),
        (["vgg*", "resnet*", "resnet3?"], ("vgg11", "resnet18", "resnet34")),
        (["vgg11", "resnet3*"], ("vgg11", "resnet34")),
        ("*18", "resnet18"),
        ("od[d]", "od[d]"),
    ],
)
def test_a_pattern_stands_for_every_option_that_it_matches(setting, expected):
    assert options_of(setting) == expected


def test_a_pattern_that_matches_nothing_is_a_fault():
    faults: list = []
    _settle("model.many", ManyNets, {"architecture": ["dense*"]}, None, faults, search_rest=True)
    assert [str(fault) for fault in faults] == [
        "[model.many.architecture] entry 'dense*' matches nothing of what is allowed: "
        "one of resnet18, resnet34, vgg11, od[d] (got ['dense*'])"
    ]


def test_a_domain_of_many_options_is_told_in_short():
    assert str(Choice(*range(1000))) == "one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (1,000 options)"


# --- lists and tables ---------------------------------------------------------------------------------------------


class Passing(Config):
    settings: dict[str, Any] = {}
    degrees: list[float] = [0.0]


def test_a_field_that_holds_a_list_or_a_table_is_fixed_as_it_is():
    faults: list = []
    table = {"settings": {"fill": 0.5, "low": 1}, "degrees": [-1.0, 2.0]}
    fixed, parameters = _settle("model.passing", Passing, table, None, faults, search_rest=True)
    assert (fixed, parameters, faults) == (table, (), [])


def test_what_it_holds_is_judged_by_the_config():
    faults: list = []
    _settle("model.passing", Passing, {"settings": 3, "degrees": ["far"]}, None, faults, search_rest=True)
    assert [str(fault) for fault in faults] == [
        "[model.passing.settings] must be a table (got 3)",
        "[model.passing.degrees.0] must be a number (got 'far')",
    ]
