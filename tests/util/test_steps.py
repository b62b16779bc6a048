"""A stepped value has one representation, whatever way it takes into a plan."""

from __future__ import annotations

import json
import math
import random
import tomllib
from fractions import Fraction
from typing import Annotated, Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mnistlab.api import Choice, Config, Float, Int, Model
from mnistlab.experiment.identity import canonical, comparable
from mnistlab.experiment.points import closest, normalized, place, same, values
from mnistlab.experiment.space import Branch, Parameter, Space, compose, grid, normalized_plan, size, suggest
from mnistlab.plugins.registry import Found, Offer, Plugin, Registry
from mnistlab.testing.points import sample
from mnistlab.util.steps import Steps, exact

NOWHERE = Branch("training", {}, {"epochs": 4}, ())


@st.composite
def stepped(draw: st.DrawFn) -> Float:
    """Ranges with a step: decimal, a fraction such as 1/3, computed in floats, tiny or huge; high on a step or not."""
    scale = draw(st.sampled_from([1.0, 0.1, 1e-3, 1e-9, 1e6, 1 / 3, 1 / 7]))
    step = draw(st.integers(1, 30)) * scale
    low = draw(st.sampled_from([0.0, -0.0, step, -2 * step, -10 * scale, 0.1, -1.0, draw(st.floats(-1e3, 1e3))]))
    high = low + step * draw(st.integers(0, 60)) + draw(st.sampled_from([0.0, 0.0, 0.4])) * step
    assume(low <= high and step >= 16 * math.ulp(max(abs(low), abs(high))))
    return Float(low, high, step=step)


@settings(deadline=None)
@given(stepped())
def test_the_points_of_a_range_are_distinct_and_evenly_spaced_from_low_to_high(domain: Float) -> None:
    found = list(values(domain) or ())
    assert found == sorted(set(found))
    assert found[0] == domain.low
    assert found[-1] <= domain.high
    rest = Fraction(domain.high) - Fraction(found[-1])
    assert rest < Fraction(domain.step) * (1 - Fraction(1, 10**8)), "there is room for one more"
    ulp = Fraction(math.ulp(max(map(abs, found))))
    for number, one in enumerate(found):
        assert (
            abs(Fraction(one) - exact(domain.low) - number * exact(domain.step)) <= Fraction(domain.step) / 10**9 + ulp
        )
    assert domain.corners() == (found[0], found[-1])
    assert all(str(one) != "-0.0" for one in found)


@settings(deadline=None)
@given(stepped(), st.data())
def test_a_value_is_its_point_however_it_was_computed(domain: Float, data: st.DataObject) -> None:
    found = values(domain) or ()
    number = data.draw(st.integers(0, len(found) - 1))
    one, step = found[number], domain.step
    summed = domain.low
    for _ in range(number):
        summed = closest(domain, summed + step)  # what a search does that moves from point to point
    ways = (domain.low + number * step, summed, float(repr(one)), json.loads(json.dumps(one)))
    for value in (*ways, tomllib.loads(f"x = {one!r}")["x"], math.nextafter(one, math.inf), math.nextafter(one, 0.0)):
        assert domain.contains(value)
        assert repr(normalized(domain, value)) == repr(one)
        assert place(domain, value) == number
    between = one + step / 2
    assert not domain.contains(between)
    assert normalized(domain, between) is None
    assert sample(domain, random.Random(number)) in list(found)


@given(
    st.decimals(-1000, 1000, places=6, allow_nan=False),
    st.decimals(0, 10, places=6, allow_nan=False),
    st.integers(0, 50),
)
def test_points_of_decimal_steps_are_what_a_person_would_write(low: Any, step: Any, number: int) -> None:
    assume(step > 0)
    steps = Steps(float(low), float(low + 50 * step), float(step))
    assert len(steps) == 51
    assert steps[number] == float(low + number * step)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (Float(0.0, 0.5, step=0.1), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (Float(0, 2, step=1), [0.0, 1.0, 2.0]),
        (Float(0.0, 1.0, step=1 / 3), [0.0, 1 / 3, 2 / 3, 1.0]),
        (Float(-1.0, 0.9, step=1 / 3), [-1.0, -2 / 3, -1 / 3, 0.0, 1 / 3, 2 / 3]),
        (Float(0.0, 3 * 0.1, step=0.1), [0.0, 0.1, 0.2, 0.3]),  # 3 * 0.1 is a little more than 0.3
        (Float(0.7, 0.1 + 0.7, step=0.1), [0.7, 0.1 + 0.7]),  # 0.1 + 0.7 is a little less than 0.8
        (Float(0.0, 0.4, step=0.15), [0.0, 0.15, 0.3]),
        (Float(0.0, 0.5, step=1.0), [0.0]),
        (Float(0.1, 0.1, step=1e-30), [0.1]),
        (Float(1e6, 1e6 + 0.002, step=0.001), [1000000.0, 1000000.001, 1000000.002]),
        (Float(1e-300, 3e-300, step=1e-300), [1e-300, 2e-300, 3e-300]),
    ],
)
def test_the_points_of_a_range(domain: Float, expected: list[float]) -> None:
    found = list(values(domain) or ())
    assert list(map(repr, found)) == list(map(repr, expected))


def test_many_points_are_counted_and_not_written_out() -> None:
    steps = Steps(0.0, 1e6, 1e-9)
    assert len(steps) == 10**15 + 1
    assert (steps[-1], steps[3], steps[:2]) == (1e6, 3e-9, (0.0, 1e-9))
    assert steps.place(0.5) == 5 * 10**8
    with pytest.raises(IndexError):
        steps[10**15 + 1]


def test_a_step_that_floats_can_t_tell_apart_is_refused() -> None:
    with pytest.raises(ValueError, match=r"step=0\.1 is too small for floats of this size: it must be at least 256\.0"):
        Float(0.0, 1e17, step=0.1)


@pytest.mark.parametrize("bounds", [(1.5, 4), (1, 4.5), (1, 4, 0.5)])
def test_an_int_takes_whole_numbers(bounds: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="an Int takes whole numbers"):
        Int(*bounds)
    assert [type(one) for one in Int(1.0, 4.0).corners()] == [int, int]  # type: ignore[arg-type]


def test_a_choice_takes_a_number_once() -> None:
    with pytest.raises(ValueError, match="names every option once"):
        Choice(0.3, 0.5, 0.1 + 0.2)
    assert Choice(1, True, "1").options == (1, True, "1")


@pytest.mark.parametrize(
    ("domain", "value", "expected"),
    [
        (Choice(0.1, 0.3), 0.1 + 0.2, 0.3),
        (Choice(1.0, 2.0), 1, 1.0),
        (Choice(1, True), True, True),
        (Choice(True, 1), 1, 1),
        (Choice(1, 2), 1.0, None),
        (Choice(1.0, 2.0), True, None),
        (Choice(1.0, 2.0), 10**400, None),
        (Choice("1", 1), "1", "1"),
        (Float(0.0, 1.0), 1, 1.0),
        (Float(-1.0, 1.0), -0.0, 0.0),
        (Float(-1.0, 1.0, step=0.5), -1e-17, 0.0),
        (Float(0.0, 1.0, step=0.5), math.nan, None),
        (Float(0.0, 1.0, step=0.5), math.inf, None),
        (Float(0.0, 1.0, step=0.5), 10**400, None),
        (Float(0.0, 1.0, step=0.5), True, None),
        (Float(0.0, 1.0, step=0.5), "0.5", None),
        (Int(0, 8, step=2), 4, 4),
        (Int(0, 8, step=2), 4.0, None),
    ],
)
def test_the_one_representation_of_a_value(domain: Any, value: Any, expected: Any) -> None:
    assert repr(normalized(domain, value)) == repr(expected)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [(0.3, 0.1 + 0.2, True), (1, 1.0, True), (1, True, False), (1, 2, False), ("a", "a", True), (0.3, "0.3", False)],
)
def test_settings_that_are_the_same(one: Any, other: Any, alike: bool) -> None:
    assert same(one, other) is same(other, one) is alike


# --- a space ------------------------------------------------------------------------------------------------------


class Stepped(Config):
    """A config with every kind of number."""

    warmup: Annotated[float, Float(0.0, 1.0)] = 0  # an int, as people write it
    share: Annotated[float, Float(0.0, 0.6, step=0.1)] = 0.1 + 0.2
    width: Annotated[int, Int(8, 64, step=8)] = 16
    rate: Annotated[float, Choice(0.1, 0.3)] = 0.3
    free: float = 1


def _registry() -> Registry:
    record = Model(name="stepped", config=Stepped, build=lambda *_: None, summary=".")
    offers = tuple(Offer(kind, record, "tests", "1") for kind in ("model", "optimizer"))  # type: ignore[arg-type]
    found = Found("tests", "1", "models", "tests", "mnistlab.v1", lambda: None)
    return Registry((Plugin(found, "ok", offers=offers),))


FIXED: dict[str, Any] = {"warmup": 0.5, "share": 0.2, "width": 8, "rate": 0.1}


def composed(model: dict[str, Any]) -> Space:
    space, faults = compose({"model": {"stepped": model}, "optimizer": {"stepped": FIXED}}, _registry())
    assert space, faults
    return space


def plans(space: Space) -> list[str]:
    return [canonical(suggest(space, lambda one, at=at: at[one.path])) for at in grid(space)]  # type: ignore[misc]


def test_a_range_of_tenths_is_a_grid_of_six_points() -> None:
    space = composed({**FIXED, "warmup": {"low": 0, "high": 0.5, "step": 0.1}})
    assert [at["model.stepped.warmup"] for at in grid(space)] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert len(set(plans(space))) == size(space) == 6


@pytest.mark.parametrize(
    ("field", "setting", "written"),
    [
        ("share", 0.1 + 0.2, 0.3),
        ("share", 0, 0.0),
        ("share", [0.1 + 0.2], 0.3),
        ("rate", 0.1 + 0.2, 0.3),
        ("warmup", 1, 1.0),
        ("warmup", -0.0, 0.0),
        ("free", 2, 2.0),
    ],
)
def test_a_fixed_value_is_written_one_way(field: str, setting: Any, written: float) -> None:
    (fixed,) = composed({**FIXED, field: setting}).models
    assert repr(fixed.fixed[field]) == repr(written)


def test_defaults_options_and_bounds_are_written_one_way() -> None:
    model = {"rate": [0.1 + 0.2, 0.1], "share": {"low": 0.1 + 0.2, "high": 0.6, "step": 3 * 0.1}}
    space = composed(model)
    found = {p.field: p for p in space.models[0].parameters}
    assert repr(found["warmup"].default) == "0.0"
    assert repr(found["rate"].domain) == "Choice(options=(0.3, 0.1))"
    assert repr(found["share"].domain) == "Float(low=0.3, high=0.6, log=False, step=0.3)"
    assert repr(found["share"].default) == "0.3"
    assert repr(space.models[0].fixed) == "{'free': 1.0}"


@pytest.mark.parametrize(
    ("field", "setting", "said"),
    [
        ("share", 0.25, "(got 0.25); the nearest steps are 0.2 and 0.3"),
        ("share", {"low": 0.05}, "(got {'low': 0.05}); the nearest steps are 0.0 and 0.1"),
        ("share", {"high": 0.55}, "(got {'high': 0.55}); the nearest steps are 0.5 and 0.6"),
        ("width", 12, "(got 12); the nearest steps are 8 and 16"),
        ("share", {"step": 0.15}, "step must be a multiple of the plugin's own"),
        ("share", [0.3, 0.1 + 0.2], "must hold at least one value, and each once"),
        ("warmup", [1, 1.0], "must hold at least one value, and each once"),
        ("warmup", {"low": 0.5, "step": 1e-17}, "step=1e-17 is too small for floats of this size"),
    ],
)
def test_a_value_beside_the_steps_is_refused_with_the_nearest_ones(field: str, setting: Any, said: str) -> None:
    _, faults = compose({"model": {"stepped": {field: setting}}, "optimizer": {"stepped": FIXED}}, _registry())
    assert len(faults) == 1
    assert said in str(faults[0])


@settings(deadline=None, max_examples=50)
@given(stepped(), st.sampled_from([Choice(1, True), Choice(0.1, 0.3), Int(1, 9, step=4)]))
def test_a_space_counts_as_many_plans_as_its_grid_holds(domain: Float, other: Any) -> None:
    parameters = (Parameter("model.x.a", domain, domain.low), Parameter("model.x.b", other, other.corners()[0]))
    space = Space((Branch("x", {}, {}, parameters),), (Branch("o", {}, {}, ()),), (), NOWHERE)
    found = plans(space)
    assert len(set(found)) == len(found) == size(space)
    for text in found[:20]:
        plan = json.loads(text)
        assert canonical(normalized_plan(space, plan)) == text
        blurred = json.loads(text)
        blurred["model"]["config"]["a"] = math.nextafter(plan["model"]["config"]["a"], math.inf)
        assert canonical(normalized_plan(space, blurred)) == text


def test_the_plan_of_an_earlier_version_is_written_as_the_space_writes_it() -> None:
    space = composed({**FIXED, "share": {"low": 0, "high": 0.6}})
    (new,) = [text for text in plans(space) if '"share":0.3,' in text]
    old = json.loads(new)
    old["model"]["config"] |= {"share": 0.1 + 0.2, "free": 1, "gone": 7}
    old["changes"] = [{"epoch": 1, "optimizer": {"name": "stepped", "config": {}}}]
    now = normalized_plan(space, old)
    assert now["model"]["config"] == {**json.loads(new)["model"]["config"], "gone": 7}
    assert repr(now["model"]["config"]["free"]) == "1.0"
    assert now["changes"] == old["changes"]
    assert old["model"]["config"]["share"] == 0.1 + 0.2  # the plan itself is left alone


def test_plans_are_compared_up_to_rounding_where_no_space_is_at_hand() -> None:
    one = {"model": {"config": {"a": 0.1 + 0.2, "b": 1, "c": True, "d": [1.0], "e": -0.0}}}
    other = {"model": {"config": {"a": 0.3, "b": 1.0, "c": True, "d": [1], "e": 0.0}}}
    assert comparable(one) == comparable(other)
    assert comparable(one) != comparable({"model": {"config": {**one["model"]["config"], "c": 1}}})
    assert comparable({"lr": 1e-3}) != comparable({"lr": 1.0001e-3})
    assert canonical(one) != canonical(other)  # the record keeps what was trained
