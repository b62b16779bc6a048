from __future__ import annotations

import math
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mnistlab.api import Choice, Config, Float, ImageShape, Int, domains


class Example(Config):
    width: Annotated[int, Int(16, 512, log=True)] = 128
    rate: Annotated[float, Float(0.0, 0.5)] = 0.1
    note: str = ""
    kind: Annotated[str, Choice("a", "b")] = "a"


def test_domains_are_those_of_the_fields_in_their_order():
    assert list(domains(Example).items()) == [
        ("width", Int(16, 512, log=True)),
        ("rate", Float(0.0, 0.5)),
        ("kind", Choice("a", "b")),
    ]


@pytest.mark.parametrize("bad", [{"widht": 3}, {"rate": math.nan}, {"rate": math.inf}])
def test_a_config_refuses_unknown_fields_and_numbers_that_are_none(bad):
    with pytest.raises(ValidationError):
        Example(**bad)


def test_a_config_does_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        Example().width = 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Int(3, 2), "low <= high must hold, but low=3 and high=2"),
        (lambda: Int(1, 9, step=0), "step > 0 must hold, but step=0"),
        (lambda: Int(0, 9, log=True), "`log` needs low > 0, but low=0"),
        (lambda: Int(1, 9, step=2, log=True), "`log` goes with step 1 only, but step=2"),
        (lambda: Float(1.0, 0.0), "low <= high must hold"),
        (lambda: Float(math.nan, 1.0), "must be finite"),
        (lambda: Float(0.0, math.inf), "must be finite"),
        (lambda: Float(0.0, 1.0, step=-0.1), "step > 0 must hold"),
        (lambda: Float(0.0, 1.0, log=True), "`log` needs low > 0"),
        (lambda: Float(0.1, 1.0, log=True, step=0.1), "`log` and step=0.1 exclude each other"),
        (Choice, "at least one option"),
        (lambda: Choice("a", "b", "a"), "names every option once"),
    ],
)
def test_a_domain_that_makes_no_sense_is_refused(make, said):
    with pytest.raises(ValueError) as caught:
        make()
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (Int(2, 11, step=4), (2, 6, 10), (1, 3, 11, 14, True, 6.0, "6", None)),
        (Float(0.0, 0.3, step=0.1), (0, 0.1, 0.2, 0.3), (0.05, 0.31, -0.1, True, "0.1")),
        (Float(0.0, 1.0), (0, 1, 0.5), (math.nan, math.inf, -math.inf, 10**400, 1.0001, None)),
        (Choice(1, "a", False), (1, "a", False), (True, 0, "b", 1.0, None, [1])),
    ],
)
def test_what_a_domain_contains(domain, inside, outside):
    assert all(domain.contains(value) for value in inside)
    assert not any(domain.contains(value) for value in outside)


@given(st.integers(-100, 100), st.integers(0, 100), st.integers(1, 30))
def test_the_corners_of_a_domain_lie_inside_it(low, width, step):
    for domain in (Int(low, low + width, step=step), Float(low, low + width), Choice(low, "x")):
        assert all(domain.contains(corner) for corner in domain.corners())


@pytest.mark.parametrize(
    ("domain", "text"),
    [
        (Int(16, 512, log=True), "integer 16..512 (log)"),
        (Int(0, 8, step=2), "integer 0..8 (step 2)"),
        (Float(1e-4, 0.1, log=True), "number 0.0001..0.1 (log)"),
        (Float(0.0, 1.0, step=0.25), "number 0..1 (step 0.25)"),
        (Choice("relu", True, 3), "one of relu, true, 3"),
    ],
)
def test_a_domain_says_what_it_is(domain, text):
    assert str(domain) == text


def test_pixels_of_a_shape():
    assert ImageShape(3, 28, 30, 10).pixels == 2520
