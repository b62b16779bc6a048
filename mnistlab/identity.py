"""What makes two trainings the same: a plan is one configuration, a training of it is (plan, seed, budget).

The budget is in the plan itself (`training.epochs`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical(plan: Mapping[str, Any]) -> str:
    """Return the plan as JSON with sorted keys and no spaces: the same text for equal plans, and only for those."""
    return json.dumps(plan, sort_keys=True, separators=(",", ":"))


def plan_sha256(plan: Mapping[str, Any]) -> str:
    """Return the sha256 (hexadecimal) of a plan's canonical JSON."""
    return hashlib.sha256(canonical(plan).encode()).hexdigest()
