"""`torchvision.transforms.v2` in mnistlab: a record for each class that keeps an image's form.

v2 draws once per call from torch's global generator. Here each image is a call of its own, and the global generator is
lent a seed from the training's generator, so values differ per image and a seed repeats them.

A config has the arguments of its class: those that `OFFERED` names are searched, all others can be set.
"""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import ConfigDict, Field, create_model, model_validator
from torch import Tensor
from torchvision.transforms import v2

from mnistlab.api import Choice, Config, Domain, Float, ImageShape, Int, Transform, TransformFn

Searched = dict[str, tuple[Domain, Any]]
Interpolation = Literal["nearest", "bilinear"]  # what v2 knows for tensors; it refuses others only when it is called
P: Searched = {"p": (Float(0.0, 1.0), 0.5)}

# Of each class, the arguments that are searched, with domain and default.
OFFERED: dict[str, Searched] = {
    "AugMix": {"severity": (Int(1, 10), 3), "mixture_width": (Int(1, 4), 3)},
    "AutoAugment": {"policy": (Choice("imagenet", "cifar10", "svhn"), "svhn")},
    "ColorJitter": {"brightness": (Float(0.0, 0.9), 0.3), "contrast": (Float(0.0, 0.9), 0.3)},
    "ElasticTransform": {"alpha": (Float(1.0, 60.0, log=True), 20.0), "sigma": (Float(1.0, 6.0), 4.0)},
    "GaussianBlur": {"kernel_size": (Choice(3, 5, 7), 3)},
    "GaussianNoise": {"sigma": (Float(0.0, 0.3), 0.1)},
    "Grayscale": {},
    "RandAugment": {"num_ops": (Int(1, 4), 2), "magnitude": (Int(0, 30), 9)},
    "RandomAdjustSharpness": {"sharpness_factor": (Float(0.0, 4.0), 2.0), **P},
    "RandomAffine": {"degrees": (Float(0.0, 45.0), 10.0)},
    "RandomAutocontrast": P,
    "RandomChannelPermutation": {},
    "RandomCrop": {"padding": (Int(1, 6), 2)},
    "RandomEqualize": P,
    "RandomErasing": P,
    "RandomGrayscale": P,
    "RandomHorizontalFlip": P,
    "RandomInvert": P,
    "RandomPerspective": {"distortion_scale": (Float(0.05, 0.6), 0.2), **P},
    "RandomPhotometricDistort": P,
    "RandomPosterize": {"bits": (Int(1, 7), 4), **P},
    "RandomResizedCrop": {},
    "RandomRotation": {"degrees": (Float(0.0, 45.0), 10.0)},
    "RandomSolarize": {"threshold": (Float(0.0, 1.0), 0.5), **P},
    "RandomVerticalFlip": P,
    "TrivialAugmentWide": {},
}

_BOXES = "works on bounding boxes or key points"
_FORM = "changes the size or the type of an image, or turns one into several"
_PARTS = "takes other transforms, functions or tensors, which an experiment file can't hold"
_LABELS = "mixes labels, and a transform sees images only"
_NOTHING = "changes nothing here: there is nothing to draw, and the training itself normalises"

EXCLUDED: dict[str, str] = {
    **dict.fromkeys(("ClampBoundingBoxes", "ClampKeyPoints", "ConvertBoundingBoxFormat"), _BOXES),
    **dict.fromkeys(("RandomIoUCrop", "SanitizeBoundingBoxes", "SanitizeKeyPoints", "SetClampingMode"), _BOXES),
    **dict.fromkeys(("CenterCrop", "FiveCrop", "Pad", "RandomResize", "RandomShortestSize"), _FORM),
    **dict.fromkeys(("RandomZoomOut", "Resize", "ScaleJitter", "TenCrop", "RGB"), _FORM),
    **dict.fromkeys(("ConvertImageDtype", "PILToTensor", "ToDtype", "ToImage", "ToPILImage", "ToTensor"), _FORM),
    **dict.fromkeys(("Compose", "Lambda", "LinearTransformation", "RandomApply"), _PARTS),
    **dict.fromkeys(("RandomChoice", "RandomOrder"), _PARTS),
    **dict.fromkeys(("CutMix", "MixUp"), _LABELS),
    **dict.fromkeys(("Identity", "Normalize", "ToPureTensor"), _NOTHING),
    "JPEG": "compresses uint8 images only",
    "UniformTemporalSubsample": "works on videos",
}

SIZED = ("RandomCrop", "RandomResizedCrop")  # these get the images' own size
COLOURED = ("Grayscale", "RandomChannelPermutation", "RandomGrayscale")  # these do nothing to a grey image
DETERMINISTIC = ("v2-grayscale",)
NOT_SETTINGS = ("size", "expand", "inplace", "num_output_channels")  # they would change the form, or the input
TRIED = ImageShape(3, 28, 28, 10)  # a shape that every class takes, to try settings with


def record_name(cls: str) -> str:
    """Return for example `v2-random-affine` for RandomAffine."""
    return "v2-" + re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls).lower()


def records() -> list[Transform[Any]]:
    """Return a record for each class that is offered."""
    return [_record(cls, searched) for cls, searched in OFFERED.items()]


def _record(cls: str, searched: Searched) -> Transform[Any]:
    def build(config: Config, shape: ImageShape) -> TransformFn:
        return _per_image(_made(cls, config, shape))

    summary = f"{cls} of torchvision.transforms.v2, image by image."
    return Transform(name=record_name(cls), config=_config(cls, searched), build=build, summary=summary)


# --- settings ---------------------------------------------------------------------------------------------------------


class _Made(Config):
    """Base of the configs that are made here: pydantic would look for the source text of each, for a long time."""

    model_config = ConfigDict(use_attribute_docstrings=False)


def _config(cls: str, searched: Searched) -> type[Config]:
    """Return a config with a field for each argument of the class, which refuses what the class refuses."""

    def accepted(config: Config) -> Config:
        _made(cls, config, TRIED)
        return config

    fields = {p.name: _field(p, searched) for p in _parameters(cls) if p.name not in NOT_SETTINGS}
    made = create_model(
        cls,
        __base__=_Made,
        __module__=__name__,
        __validators__={"accepted": cast("Any", model_validator(mode="after")(accepted))},
        **cast("Any", fields),
    )
    made.__doc__ = f"The arguments of torchvision's {cls}."
    return made


def _parameters(cls: str) -> Sequence[inspect.Parameter]:
    return list(inspect.signature(getattr(v2, cls)).parameters.values())


def _field(parameter: inspect.Parameter, searched: Searched) -> tuple[Any, Any]:
    """Return type and default of an argument. Experiment files know no None: an empty list stands for it."""
    if parameter.name in searched:
        domain, default = searched[parameter.name]
        return Annotated[type(default), domain], default
    default = parameter.default
    if parameter.name == "interpolation":
        return Interpolation, default.value if isinstance(default, Enum) else default
    if default is None:
        return list[float], Field([], description="[] leaves it to torchvision")
    if isinstance(default, (tuple, list)):
        return list[float], list(cast("Sequence[float]", default))
    if isinstance(default, int) and parameter.annotation not in {int, bool}:
        return (bool, default) if isinstance(default, bool) else (float, float(default))
    return type(default), default


def _made(cls: str, config: Config, shape: ImageShape) -> Callable[[Tensor], Tensor]:
    """Return the transform itself.

    Raises:
        ValueError: if torchvision refuses the settings; the message is its own. Also if the images have one channel,
            and the class only changes colours.
    """
    if cls in COLOURED and shape.channels == 1:
        raise ValueError(f"{cls} changes colours only, and these images have 1 channel")
    arguments = config.model_dump()
    if cls == "ElasticTransform":  # its blur may not be wider than the image: 4 sigma on each side
        arguments["sigma"] = min(arguments["sigma"], (min(shape.height, shape.width) - 1) / 4 - 0.25)
    try:
        return getattr(v2, cls)(**_understood(cls, arguments), **_given(cls, shape))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{cls} of torchvision refuses its settings: {error}") from None


def _understood(cls: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments as the class takes them: an enum's member for its value, and no empty lists."""
    enums = {p.name: type(p.default) for p in _parameters(cls) if isinstance(p.default, Enum)}
    return {n: enums[n](value) if n in enums else value for n, value in arguments.items() if value != []}


def _given(cls: str, shape: ImageShape) -> dict[str, Any]:
    """Return the arguments that follow from the images."""
    if cls == "Grayscale":
        return {"num_output_channels": shape.channels}
    return {"size": (shape.height, shape.width)} if cls in SIZED else {}


# --- drawing ----------------------------------------------------------------------------------------------------------


def _per_image(transform: Callable[[Tensor], Tensor]) -> TransformFn:
    def change(images: Tensor, generator: torch.Generator) -> Tensor:
        with _lent_seed(generator):
            return torch.stack([transform(image) for image in images])

    return change


@contextmanager
def _lent_seed(generator: torch.Generator) -> Generator[None]:
    """Seed the global generators of the CPU and of `generator`'s device from it; give them back as they were.

    Not `torch.manual_seed`, which seeds those of all GPUs, of which some would not be given back.
    """
    device = generator.device
    seed = _seed(generator)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _seed(generator: torch.Generator) -> int:
    """Return a seed drawn from `generator`. On a GPU no value is read, which would wait."""
    if generator.device.type != "cuda":
        return int(torch.randint(2**62, (), generator=generator, device=generator.device))
    seed = random.Random(f"{generator.initial_seed()} {generator.get_offset()}").getrandbits(62)
    torch.rand((), generator=generator, device=generator.device)  # the next seed is another one
    return seed
