"""The public interface for plugin authors: everything a plugin needs, and nothing else, comes from here.

A plugin is a module that answers one or more hooks (see `mnistlab.plugins.hookspecs`) with frozen records::

    class TinyMlp(Config):
        width: Annotated[int, Int(16, 512, log=True)] = 128

    def build(config: TinyMlp, shape: ImageShape) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(shape.pixels, config.width), nn.GELU(),
                             nn.Linear(config.width, shape.classes))

    @hookimpl
    def mnistlab_models():
        return [Model(name="tiny-mlp", config=TinyMlp, build=build, summary="One hidden layer.")]

One line of a config class is at once its documentation, its validation and its search space: the annotation's
domain says what may be searched, the default is the first value tried. A field without a domain can be set in an
experiment but is not searched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import pluggy
from pydantic import BaseModel, ConfigDict

from mnistlab.util.steps import Steps, alike, check_range, check_step, whole

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import nn

API_VERSION = 1
ENTRY_POINT_GROUP = f"mnistlab.v{API_VERSION}"

hookimpl = pluggy.HookimplMarker("mnistlab")

Scalar = bool | int | float | str
Split = Literal["train", "test"]


class Config(BaseModel):
    """Base of every config class: immutable, no unknown fields, no NaN.

    A string below a field is its meaning, which `mnistlab plugins info` shows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


C = TypeVar("C", bound=Config)


def domains(config: type[Config]) -> dict[str, Domain]:
    """Return the domain of each field of `config` that has one, in the order of the fields."""
    found: dict[str, Domain] = {}
    for name, info in config.model_fields.items():
        for mark in info.metadata:
            if isinstance(mark, (Int, Float, Choice)):
                found[name] = mark
    return found


# --- domains ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Int:
    """The integers low, low + step, ... up to and including high.

    Raises:
        ValueError: if a bound or the step is no whole number, the bounds are reversed, the step is not positive, or
            `log` goes with low < 1 or step != 1.
    """

    low: int
    high: int
    step: int = 1
    log: bool = False

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_range(self.low, self.high, self.step, log=self.log)
        for name in ("low", "high", "step"):
            object.__setattr__(self, name, whole(getattr(self, name)))
        if self.log and self.step != 1:
            raise ValueError(f"`log` goes with step 1 only, but step={self.step}")

    def contains(self, value: object) -> bool:
        """Return whether `value` is an integer of this domain."""
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0

    def corners(self) -> tuple[int, ...]:
        """Return the extreme values, for tests that build at the edges."""
        return (self.low, self.low + (self.high - self.low) // self.step * self.step)

    def __str__(self) -> str:
        """Return for example `integer 16..512 (log)`."""
        marks = [f"step {self.step}"] * (self.step != 1) + ["log"] * self.log
        return f"integer {self.low}..{self.high}" + (f" ({', '.join(marks)})" if marks else "")


@dataclass(frozen=True)
class Float:
    """The real numbers from low to high, both included; with `step`, only low, low + step, ...

    Each stepped value has one representation: the float nearest to the decimal number, 0.3 and not 0.1 + 0.2.

    Raises:
        ValueError: if the bounds are reversed, the step is not positive or too small for floats of this size, or `log`
            goes with low <= 0 or a step.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        """Check the bounds."""
        check_range(self.low, self.high, 1 if self.step is None else self.step, log=self.log)
        if self.log and self.step is not None:
            raise ValueError(f"`log` and step={self.step} exclude each other")
        if self.step is not None:
            check_step(self.low, self.high, self.step)
        for name in ("low", "high") if self.step is None else ("low", "high", "step"):
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)  # adding 0.0 makes 0.0 of -0.0

    def contains(self, value: object) -> bool:
        """Return whether `value` is a finite number of this domain (an integer counts as a number)."""
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        if self.step is not None:
            return value in Steps(self.low, self.high, self.step)
        return self.low <= value <= self.high  # NaN neither

    def corners(self) -> tuple[float, ...]:
        """Return the extreme values, for tests that build at the edges."""
        return (self.low, self.high if self.step is None else Steps(self.low, self.high, self.step)[-1])

    def __str__(self) -> str:
        """Return for example `number 0.0001..0.1 (log)`."""
        marks = [f"step {self.step:g}"] if self.step is not None else ["log"] * self.log
        return f"number {self.low:g}..{self.high:g}" + (f" ({', '.join(marks)})" if marks else "")


@dataclass(frozen=True, init=False)
class Choice:
    """One of the options given, in the order given.

    Raises:
        ValueError: if there is no option, or one is given twice; floats such as 0.3 and 0.1 + 0.2 are the same option.
    """

    options: tuple[Scalar, ...]

    def __init__(self, *options: Scalar) -> None:
        """Take the options as arguments: `Choice("relu", "gelu")`."""
        if not options:
            raise ValueError("a Choice needs at least one option")
        if len({(type(o), o) for o in options}) != len(options) or alike(o for o in options if isinstance(o, float)):
            raise ValueError(f"a Choice names every option once, but got {options}")
        object.__setattr__(self, "options", options)

    def contains(self, value: object) -> bool:
        """Return whether `value` is one of the options (`1` and `True` are told apart)."""
        return any(type(value) is type(option) and value == option for option in self.options)

    def corners(self) -> tuple[Scalar, ...]:
        """Return every option."""
        return self.options

    def __str__(self) -> str:
        """Return for example `one of relu, gelu`; of many options the first ones and how many there are."""
        shown = self.options if len(self.options) <= _SHOWN_OPTIONS else self.options[: _SHOWN_OPTIONS // 2]
        text = "one of " + ", ".join(str(o).lower() if isinstance(o, bool) else str(o) for o in shown)
        return text if len(shown) == len(self.options) else f"{text}, ... ({len(self.options):,} options)"


Domain = Int | Float | Choice
_SHOWN_OPTIONS = 20


# --- what plugins build -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageShape:
    """What a model has to deal with: images of (channels, height, width), and the number of classes."""

    channels: int
    height: int
    width: int
    classes: int

    @property
    def pixels(self) -> int:
        """Return channels x height x width."""
        return self.channels * self.height * self.width


@runtime_checkable
class Stepper(Protocol):
    """An optimizer with its parameter groups and its learning-rate schedule.

    `state_dict` holds per-parameter state and the position in the schedule, but no hyperparameters: loading it into
    a stepper that was built with another config goes on with the new hyperparameters (population-based training
    needs that).
    """

    def step(self) -> None:
        """Update the parameters from their gradients and advance the schedule by one step."""
        ...

    def zero_grad(self) -> None:
        """Forget the gradients."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return nested dicts and lists of tensors, numbers and strings."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state that `state_dict` returned."""
        ...


@runtime_checkable
class AveragingStepper(Stepper, Protocol):
    """A stepper whose parameters are others while training than while evaluating: schedule-free, averaged weights.

    The training calls `train` before the steps of an epoch and `eval` before it evaluates, so that the parameters
    that are validated, tested and stored are those of evaluation. Both may be called twice in a row, and
    `state_dict` says which of the two holds (the idea is Defazio et al. 2024, arXiv:2405.15682).
    """

    def train(self) -> None:
        """Put the parameters of training into the module."""
        ...

    def eval(self) -> None:
        """Put the parameters of evaluation into the module."""
        ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a loss is computed from: one step's images, after transforms and normalisation, and their labels.

    `images` is float32 (N, C, H, W) and `labels` int64 (N,), on the module's device. `train_count` is the number of
    training images, by which a Bayesian loss weighs its prior. Under mixed precision the loss is computed inside
    `torch.autocast`; what needs float32 casts, or switches it off.
    """

    images: torch.Tensor
    labels: torch.Tensor
    label_smoothing: float
    train_count: int


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of images: `logits` float (N, classes), up to a constant the logarithms of probabilities.

    `measures` are further numbers per image, float (N,), for example an uncertainty in nats. The mean of measure
    `name` over the validation images stands among an epoch's metrics as `val_name`.
    """

    logits: torch.Tensor
    measures: Mapping[str, torch.Tensor] = field(default_factory=dict[str, "torch.Tensor"])


LossFn = Callable[["nn.Module", Batch], "torch.Tensor"]
"""(the module in training mode, a batch) -> the loss, a scalar to minimise, mean per image in nats."""

PredictFn = Callable[["nn.Module", "torch.Tensor"], Prediction]
"""(the module in evaluation mode, images float32 (N, C, H, W)) -> what it says of them."""

TransformFn = Callable[["torch.Tensor", "torch.Generator"], "torch.Tensor"]
"""(images float32 (N, C, H, W) in [0, 1], a generator on the same device) -> new images, same shape and dtype."""


Portfolio = tuple[Mapping[str, Scalar], ...]


@dataclass(frozen=True, kw_only=True)
class Model(Generic[C]):
    """A model family. `build` returns a module that maps float (N, C, H, W) to logits (N, classes).

    A model that is trained or asked otherwise says how: `loss` replaces the cross-entropy of the logits, `predict`
    the plain call of the module. Whatever `predict` draws at random comes from generators that are seeded alike for
    every evaluation.

    A `portfolio` holds a few plans with it that are known to be good, best first, by dotted keys:
    {"model.NAME.width": 64, "optimizer": "adamw", "optimizer.adamw.lr": 0.003}. A search looks at them early. What is
    left out is at its default; what a space does not hold does not count.
    """

    name: str
    config: type[C]
    build: Callable[[C, ImageShape], nn.Module]
    summary: str
    loss: LossFn | None = None
    predict: PredictFn | None = None
    portfolio: Portfolio = ()


@dataclass(frozen=True, kw_only=True)
class Optimizer(Generic[C]):
    """An optimizer family. `build` gets (config, module on its device, number of steps of the whole training)."""

    name: str
    config: type[C]
    build: Callable[[C, nn.Module, int], Stepper]
    summary: str
    portfolio: Portfolio = ()


@dataclass(frozen=True, kw_only=True)
class Transform(Generic[C]):
    """A data transform. What `build` returns draws only from the generator that it is given, a value per image."""

    name: str
    config: type[C]
    build: Callable[[C, ImageShape], TransformFn]
    summary: str


@dataclass(frozen=True, kw_only=True)
class DataPlace:
    """Where data may be looked for: the user's folder first, then the cache, then (unless offline) the network."""

    data_dir: Path | None
    cache: Path
    offline: bool = False


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images uint8 (N, C, H, W) and labels int64 (N,); `groups` int64 (N,) names each image's writer, if known."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """A dataset that was found whole: its shape, classes and sizes, where it came from, and the sha256 of its parts.

    `sha256` maps a part's name (a file without `.gz`) to the digest of its decompressed bytes.
    """

    shape: ImageShape
    class_names: tuple[str, ...]
    train_count: int
    test_count: int
    source: str
    sha256: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True)
class Dataset(Generic[C]):
    """A dataset.

    `prepare` finds or fetches every file and checks all of them (train and test) without handing images out; it may
    be called by several processes at once. `load` then returns one split and never uses the network.

    Both raise `mnistlab.errors.DataError` for data that is wrong, and `prepare` raises
    `mnistlab.errors.DataUnavailableError` where the data can be neither found nor fetched.
    """

    name: str
    config: type[C]
    prepare: Callable[[C, DataPlace], DatasetInfo]
    load: Callable[[C, DataPlace, Split], LabelledImages]
    summary: str


Record = Model[Any] | Optimizer[Any] | Transform[Any] | Dataset[Any]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What an observer is told of a trial that has ended. `state` is `complete`, `pruned`, `interrupted` or `failed`.

    `message` says why a trial failed or was interrupted.
    """

    trial: str
    state: str
    plan: Mapping[str, Any]
    seed: int
    metrics: Mapping[str, float]
    message: str = ""
