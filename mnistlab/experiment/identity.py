"""What makes two trainings the same: a plan is one configuration, a training of it is (plan, seed, budget).

The budget is in the plan itself (`training.epochs`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

_DIGITS = 12  # of a number that can be told from another one


def canonical(plan: Mapping[str, Any]) -> str:
    """Return the plan as JSON with sorted keys and no spaces: the same text for equal plans, and only for those."""
    return json.dumps(plan, sort_keys=True, separators=(",", ":"))


def comparable(plan: Mapping[str, Any]) -> str:
    """Return the same text for plans that are equal up to the rounding of numbers, to be compared and not stored.

    Runs of earlier versions hold one stepped value as 0.3 and as 0.30000000000000004, or one number as 1 and as 1.0.
    """
    return canonical(_rounded(plan))


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(inner) for inner in cast("list[Any]", value)]
    if not isinstance(value, float):
        return value
    number = float(f"{value:.{_DIGITS}g}")
    return int(number) if number.is_integer() else number


def plan_sha256(plan: Mapping[str, Any]) -> str:
    """Return the sha256 (hexadecimal) of a plan's canonical JSON."""
    return hashlib.sha256(canonical(plan).encode()).hexdigest()
