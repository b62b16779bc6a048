"""A table of real trainings, read: plans, what each training came to, which plan is the nearest to a proposal."""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from sklearn.ensemble import ExtraTreesRegressor

from mnistlab.api import Choice, Scalar
from mnistlab.experiment.space import Parameter, Plan, Space, suggest
from mnistlab.tuning.samplers import Settings
from mnistlab.util.text import settings

Floats = npt.NDArray[np.float64]
HERE = Path(__file__).parent
TREES = 300
FULL = 8.0  # epochs
FLOOR = 1e-3  # weight of a setting that does not matter, so that of equally near plans the more alike one is taken
OTHER = 100.0  # distance between plans of other models or optimizers


@dataclass(frozen=True)
class Training:
    """A training of a plan: of each epoch the validation accuracy, the validation loss (nats) and seconds."""

    epochs: tuple[tuple[float, float, float], ...]
    failed: str = ""


@dataclass(frozen=True, eq=False)
class Row:
    """A plan of the table, its settings by dotted keys, and its trainings by budget (epochs) and seed."""

    number: int
    plan: Plan
    flat: Mapping[str, Scalar]
    trainings: Mapping[tuple[float, int], Training]
    error: float = field(init=False)  # the true one: the mean of the seeds at the full budget, 1 for what fails

    def __post_init__(self) -> None:
        """Take the mean."""
        full = [one for (budget, _), one in self.trainings.items() if budget == FULL]
        errors = [1.0 if one.failed or not one.epochs else 1 - one.epochs[-1][0] for one in full]
        object.__setattr__(self, "error", float(np.mean(errors)))


@dataclass(frozen=True, eq=False)
class Table:
    """All plans of a task that their plugins take, with budgets in epochs and the number of images to train on."""

    space: Space
    rows: tuple[Row, ...]
    budgets: tuple[float, ...]
    images: int
    parameters: tuple[Parameter, ...] = field(init=False)
    _points: Floats = field(init=False)
    _weights: Floats = field(init=False)
    _kinds: npt.NDArray[np.str_] = field(init=False)

    def __post_init__(self) -> None:
        """Weigh each setting by its importance in a forest that is fitted to the errors' logits."""
        object.__setattr__(self, "parameters", tuple(self.space.parameters()))
        points = np.array([self._point(row.flat) for row in self.rows])
        errors = np.clip([row.error for row in self.rows], 1e-4, 0.999)
        forest = ExtraTreesRegressor(TREES, random_state=0, n_jobs=1)
        forest.fit(np.nan_to_num(points, nan=-1.0), np.log(errors / (1 - errors)))
        object.__setattr__(self, "_points", points)
        object.__setattr__(self, "_weights", np.asarray(forest.feature_importances_) + FLOOR)
        object.__setattr__(self, "_kinds", np.array([_kind(row.flat) for row in self.rows]))

    @property
    def best(self) -> float:
        """Return the least true error."""
        return min(row.error for row in self.rows)

    def nearest(self, plan: Plan, taken: Collection[int] = ()) -> Row:
        """Return the row nearest to a plan that is not `taken`; those of its model and optimizer come first."""
        flat = settings(plan)
        distances = self._apart(self._point(flat)) @ self._weights + OTHER * (self._kinds != _kind(flat))
        distances[list(taken)] = np.inf
        return self.rows[int(np.argmin(distances))]

    def _apart(self, point: Floats) -> Floats:
        """Return how far apart each setting is, from 0 to 1; options, and what is inactive in one only, are 1 apart."""
        apart = np.abs(self._points - point)
        inactive = (np.isnan(self._points) != np.isnan(point)).astype(float)
        apart = np.where(np.isnan(apart), inactive, apart)
        choices = [place for place, one in enumerate(self.parameters) if isinstance(one.domain, Choice)]
        apart[:, choices] = apart[:, choices] > 0
        return apart

    def _point(self, flat: Mapping[str, Scalar]) -> Floats:
        """Return where in its range each setting lies, from 0 to 1, NaN where it is inactive; options are numbered."""
        return np.array([_place(one, flat[one.path]) if one.path in flat else np.nan for one in self.parameters])


def _kind(flat: Mapping[str, Scalar]) -> str:
    return f"{flat['model']} {flat['optimizer']}"


def _place(parameter: Parameter, value: Any) -> float:
    domain = parameter.domain
    if isinstance(domain, Choice):
        return float(domain.options.index(value))
    low, high, here = float(domain.low), float(domain.high), float(value)
    if domain.log:
        low, high, here = math.log(low), math.log(high), math.log(here)
    return (here - low) / (high - low)


# --- reading ------------------------------------------------------------------------------------------------------


def tasks() -> list[str]:
    """Return the names of the tables that there are."""
    return sorted(path.name.removesuffix(".jsonl.xz") for path in HERE.glob("*.jsonl.xz"))


def read(path: Path, space: Space) -> Table:
    """Return the table in a file; plans that their plugins refuse are left out."""
    head, *lines = (json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().splitlines())
    found = [_row(line["plan"], line["trainings"], head["validation"]) for line in lines]
    rows = [Row(number, *one) for number, one in enumerate(one for one in found if one)]
    return Table(space, tuple(rows), tuple(map(float, head["budgets"])), head["training"])


def _row(plan: Plan, trainings: Sequence[Mapping[str, Any]], images: int) -> tuple[Any, ...] | None:
    """Return a plan, its settings and its trainings, each validated on so many images; None where it was refused."""
    if any(str(one.get("failed", "")).startswith("refused") for one in trainings):
        return None
    found = {(float(one["budget"]), int(one["seed"])): _training(one, images) for one in trainings}
    return plan, settings(plan), found


def _training(one: Mapping[str, Any], images: int) -> Training:
    epochs = tuple((right / images, loss, seconds) for right, loss, seconds in one["epochs"])
    return Training(epochs, str(one.get("failed", "")))


# --- proposals from a table ---------------------------------------------------------------------------------------


class Snapped(BaseSampler):
    """Proposes plans of a table only: the nearest to what a sampler proposes that was not proposed before."""

    def __init__(self, inner: BaseSampler, table: Table, about: Settings) -> None:
        """Ask `inner`."""
        self._inner, self._table, self._about = inner, table, about
        self._taken: set[int] = set()
        self._relative: dict[str, BaseDistribution] = {}

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole space, so that nothing is left to be sampled by itself."""
        self._relative = self._inner.infer_relative_search_space(study, trial)
        return dict(self._about.distributions)

    def sample_relative(
        self,
        study: Any,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],  # noqa: ARG002 - `inner` has one of its own
    ) -> dict[str, Any]:
        """Return the settings of the row that is the nearest."""
        fixed = trial.system_attrs.get("fixed_params", {})
        known = fixed or self._inner.sample_relative(study, trial, self._relative)

        def ask(parameter: Parameter) -> Scalar:
            path = parameter.path
            if path in known:
                return known[path]
            return self._inner.sample_independent(study, trial, path, self._about.distributions[path])

        row = self._table.nearest(suggest(self._table.space, ask), self._taken)
        self._taken.add(row.number)
        return {one.path: row.flat[one.path] for one in self._table.parameters if one.path in row.flat}

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Let `inner` draw what the row does not have."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Any, trial: FrozenTrial) -> None:
        """Tell `inner`."""
        self._inner.before_trial(study, trial)

    def after_trial(self, study: Any, trial: FrozenTrial, state: Any, values: Any) -> None:
        """Tell `inner`."""
        self._inner.after_trial(study, trial, state, values)
