"""Tables of experiment files for tests: a full one, and what Hypothesis makes of it."""

from __future__ import annotations

import json
import string

from hypothesis import strategies as st

FULL: dict = {
    "name": "full",
    "seed": 3,
    "data": {"dataset": "idx", "offline_fallback": "digits", "validation": 0.1, "split": "writer", "idx": {"a": 1}},
    "model": {"cnn": {"depth": 2, "channels": {"low": 8, "high": 16}}, "mlp": {}},
    "optimizer": {"sgd": {"lr": [0.1, 0.2]}},
    "transform": {"shift": {}, "cutout": {"size": 3}},
    "training": {"epochs": 2},
    "search": {"trials": 4, "metric": ["val_accuracy", "seconds"], "scheduler": "none", "time_budget": "1h30m"},
    "resources": {"gpus_per_trial": 0.5, "max_parallel": 2},
    "confirm": {"top": 0},
}


# Words of pydantic that no user should ever see.
JARGON = ("Input should", "Value error", "Assertion failed", "function-", "pydantic", "type=", "Extra inputs")

toml_values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates() | st.sampled_from(["auto", "15m"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_lowercase, max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def near_valid(draw) -> dict:
    """A valid file in which some keys are replaced or added, at the top or in a section."""
    table = json.loads(json.dumps(FULL))
    for _ in range(draw(st.integers(1, 4))):
        section = draw(st.sampled_from(["", *table]))
        target = table.get(section) if section else table
        if isinstance(target, dict):
            key = draw(st.sampled_from([*target, "other"]) if target else st.just("other"))
            target[key] = draw(toml_values)
    return table
